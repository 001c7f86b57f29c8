"""block_outputs: the last tensor that leaves each layer group."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.backbones.block_outputs import block_outputs
from keras_transfer.backbones.features import features_of_outputs
from tests import tiny


def test_residual_blocks_end_after_their_sum():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="stem_conv")(inputs)
    expected = {"stem": x}
    for number in (1, 2):
        y = layers.Conv2D(4, 1, name=f"block{number}_conv")(x)
        x = layers.Activation("relu", name=f"relu{number}")(layers.Add()([x, y]))
        expected[f"block{number}"] = x
    found = block_outputs(keras.Model(inputs, x))
    assert [*found] == [*expected]
    assert all(found[name] is expected[name] for name in found)


def test_of_several_tensors_the_last_one_counts():
    """As in a U-Net: an early tensor of the first block is used last."""
    inputs = keras.Input((4,))
    early = layers.Dense(3, name="block1_in")(inputs)
    late = layers.Dense(5, name="block1_out")(early)
    middle = layers.Dense(3, name="block2_in")(late)
    model = keras.Model(inputs, layers.Add()([middle, early]))
    assert block_outputs(model)["block1"] is late


def test_transformer_blocks_are_pooled_without_padding():
    backbone = tiny.bert()
    outputs = block_outputs(backbone)
    names = [f"transformer_layer_{number}" for number in range(backbone.num_layers)]
    assert [*outputs][-len(names) :] == names
    model = features_of_outputs(backbone, outputs)
    ids = np.array([[1, 5, 6, 2, 0, 0]])
    padded = {
        "token_ids": ids,
        "segment_ids": ids * 0,
        "padding_mask": (ids > 0).astype("int32"),
    }
    short = {name: values[:, :4] for name, values in padded.items()}
    found, expected = model.predict(padded, verbose=0), model.predict(short, verbose=0)
    last = backbone(padded)["sequence_output"][:, :4]
    np.testing.assert_allclose(
        found[names[-1]], keras.ops.mean(last, axis=1), rtol=1e-4, atol=1e-5
    )
    for name in outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_sequential_model_has_the_output_after_its_activation():
    parts = [layers.Dense(3, name="a"), layers.ReLU(), layers.Dense(2, name="b")]
    model = keras.Sequential([keras.Input((4,)), *parts])
    outputs = block_outputs(model)
    assert [*outputs] == ["a", "b"]
    values = features_of_outputs(model, outputs)(np.ones((1, 4)))
    np.testing.assert_allclose(values["b"], model(np.ones((1, 4))), rtol=1e-6)
    assert keras.ops.min(values["a"]) >= 0


def test_a_shared_layer_belongs_to_its_last_call():
    shared = layers.Dense(4, name="block1_dense")
    inputs = keras.Input((4,))
    middle = layers.Dense(4, name="block2_dense")(shared(inputs))
    end = shared(middle)
    found = block_outputs(keras.Model(inputs, end))
    assert [*found] == ["block1", "block2"] and found["block2"] is end


def test_a_model_without_a_graph_raises():
    class Own(keras.Model):
        def build(self, shape):
            self.dense = layers.Dense(2)
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

    model = Own(name="own")
    model(np.ones((1, 3)))
    with pytest.raises(ValueError, match="'own' is not functional"):
        block_outputs(model)
