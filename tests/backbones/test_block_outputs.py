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
    backbone = tiny.bert(num_layers=2)
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
    found, expected = model(padded), model(short)
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


def test_what_a_block_takes_in_addition_is_not_a_state():
    """As in DeBERTa and T5: an earlier group also makes a bias of the positions."""

    class Biased(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4)

        def build(self, x_shape, bias_shape):
            self.dense.build(x_shape)

        def call(self, x, bias):
            return self.dense(x) + bias

    inputs = keras.Input((4,))
    state = layers.Dense(4, name="stem_dense")(inputs)
    bias = layers.Dense(4, name="stem_bias")(state)
    x = state
    for number in range(2):
        x = Biased(name=f"block_{number}")(x, bias=bias)
    assert block_outputs(keras.Model(inputs, x))["stem"] is state


def test_copies_for_the_next_block_are_not_states():
    """As in Inception and ResNet: a pooled branch, and padding with the next name."""
    inputs = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 1, name="block1_conv")(inputs)
    pooled = layers.AveragePooling2D(1)(first)
    one = layers.Conv2D(4, 1, name="block2_a")(first)
    two = layers.Conv2D(4, 1, name="block2_b")(pooled)
    second = layers.Add()([one, two])
    padded = layers.ZeroPadding2D(1)(second)
    end = layers.Conv2D(4, 3, name="block3_conv")(padded)
    found = block_outputs(keras.Model(inputs, end))
    expected = {"block1": first, "block2": second, "block3": end}
    assert all(found[name] is expected[name] for name in expected)


def test_a_block_that_runs_again_has_a_state_for_each_time():
    shared = layers.Dense(4, name="block1_dense")
    inputs = keras.Input((4,))
    states = [layers.Dense(4, name="stem_dense")(inputs)]
    for _ in range(3):
        states.append(layers.ReLU()(shared(states[-1])))
    end = layers.Dense(2, name="block2_dense")(states[-1])
    model = keras.Model(inputs, end)
    found = block_outputs(model, repeated=True)
    assert [*found] == ["stem", "block1/1", "block1/2", "block1/3", "block2"]
    assert all(a is b for a, b in zip(found.values(), [*states, end], strict=True))
    assert [*block_outputs(model)] == ["stem", "block1", "block2"]


def test_two_towers_of_shared_layers_are_one_time():
    shared = [layers.Dense(4, name=f"block{n}_dense") for n in (1, 2)]
    inputs = [keras.Input((4,)), keras.Input((4,))]
    towers = [shared[1](shared[0](x)) for x in inputs]
    end = layers.Dense(2, name="block3_dense")(layers.Concatenate()(towers))
    found = block_outputs(keras.Model(inputs, end), repeated=True)
    assert [*found] == ["block1", "block2", "block3"]


def test_blocks_inside_a_layer_are_opened_and_shared():
    class Encoder(layers.Layer):
        def build(self, shape):
            self.blocks = [layers.Dense(4, name=f"block_{n}") for n in range(3)]
            for block in self.blocks:
                block.build(shape)

        def call(self, x, training=None):
            for block in self.blocks:
                x = block(x)
            return x, {"twice": x * 2}

    inputs = keras.Input((4,))
    x = layers.Dense(4, name="embed")(inputs)
    model = keras.Model(inputs, Encoder(name="encoder")(x)[0])
    found = block_outputs(model)
    assert [*found] == ["stem", "block_0", "block_1", "block_2"]
    values = keras.Model(inputs, list(found.values()))(np.ones((2, 4)))
    blocks = model.get_layer("encoder").blocks
    state = values[0]
    for block, value in zip(blocks, values[1:], strict=True):
        state = block(state)
        np.testing.assert_allclose(value, state, rtol=1e-5, atol=1e-6)


def test_a_layer_with_weights_of_its_own_has_only_its_last_state():
    class Encoder(layers.Layer):
        def build(self, shape):
            self.gain = self.add_weight(shape=(4,), initializer="ones")
            self.blocks = [layers.Dense(4, name=f"block_{n}") for n in range(2)]
            for block in self.blocks:
                block.build(shape)

        def call(self, x):
            for block in self.blocks:
                x = block(x * self.gain)
            return x

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Encoder(name="encoder")(inputs))
    found = block_outputs(model)
    assert [*found] == ["block_1"]


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
