"""stitch: a head of cached features on its backbone, equal except for rounding."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as kt
from keras_transfer.backbones import cache_features
from keras_transfer.backbones import features
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.backbones import stitch
from tests import tiny
from tests.backbones.test_feature_cache import all_of
from tests.backbones.test_feature_cache import IDS
from tests.backbones.test_feature_cache import token_network
from tests.backbones.test_feature_cache import tokens
from tests.contracts import fresh
from tests.contracts.compare import assert_close

SPARSE = keras.losses.SparseCategoricalCrossentropy


def trained(head, cached, loss="mse"):
    head.compile("sgd", loss, jit_compile=False)
    head.fit(cached.shuffle(9, seed=0).batch(3), epochs=2, shuffle=False, verbose=0)
    return head


def dense(width, units=3):
    return keras.Sequential(
        [keras.Input((width,)), layers.Dropout(0.5), layers.Dense(units)], name="out"
    )


BACKBONES = {
    "plain": lambda: tiny.mlp(),
    "pooled frozen": lambda: features(FrozenBackbone(tiny.bert(num_layers=1)), "first"),
    "sequential": lambda: keras.Sequential(
        [keras.Input((6,)), FrozenBackbone(tiny.mlp()), layers.Dense(2)], name="seq"
    ),
    "frozen features": lambda: FrozenBackbone(features(tiny.cv_resnet())),
}


def inputs_for(name):
    rng = np.random.default_rng(0)
    if "pool" in name:
        return tokens()
    shape = (7, 16, 16, 3) if name == "frozen features" else (7, 6)
    return rng.normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", BACKBONES)
def test_equals_the_head_on_the_features(name, tmp_path):
    backbone = BACKBONES[name]()
    x, y = inputs_for(name), np.arange(7) % 3
    cached = cache_features(backbone, (x, y), verbose=0)
    found = all_of(cached)[0]
    head = trained(dense(found.shape[-1]), cached, SPARSE(from_logits=True))
    model = stitch(backbone, head)
    assert_close(model(x), head(found), atol=1e-6)
    # The model contains only weights that the outputs depend on, and all of them train.
    still = [v for v in model.variables if not v.trainable]
    assert all("moving" in v.path or "seed" in v.path for v in still)
    model.compile(keras.optimizers.SGD(0.1), SPARSE(from_logits=True), run_eagerly=True)
    before = [v.numpy() for v in model.trainable_variables]
    model.fit(x, y, verbose=0)  # Keras would warn about a weight without a gradient
    moved = [
        not np.array_equal(a, v.numpy())
        for a, v in zip(before, model.trainable_variables, strict=True)
    ]
    assert np.mean(moved) > 0.7  # the biases of attention keys never change
    if name not in ("plain", "pooled frozen", "frozen features"):
        return
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", x, imports=["keras_cv"])
    assert_close(again.outputs, model(x), atol=1e-6)


def test_the_layers_are_not_copied():
    backbone = tiny.mlp()
    head = dense(3)
    model = stitch(FrozenBackbone(backbone), head)
    assert model.layers[-1] is head and backbone in model.layers
    assert len(model.trainable_variables) == 8


def test_no_frozen_backbone_and_no_unused_weight_is_left():
    bert = tiny.bert()
    model = stitch(features(FrozenBackbone(bert)), dense(16))
    names = [v.path for v in model.weights]
    assert not any("pooled_dense" in name for name in names)
    assert bert.get_layer("transformer_layer_0").trainable_variables
    kt.callbacks.GradualUnfreezing(model)


def test_the_groups_are_the_backbone_groups_and_the_head():
    bert = tiny.bert()
    groups = kt.layer_groups(bert).names
    assert kt.layer_groups(stitch(bert, both())).names == [*groups, "head"]
    model = stitch(features(FrozenBackbone(bert)), dense(16))
    assert kt.layer_groups(model).names == [*groups, "head"]
    images = features(FrozenBackbone(tiny.hub_resnet()))
    expected = kt.layer_groups(tiny.hub_resnet()).names
    model = stitch(images, dense(64))
    assert kt.layer_groups(model).names == [*expected, "head"]


@pytest.mark.slow
def test_gradual_unfreezing_trains_the_model():
    backbone = features(FrozenBackbone(tiny.bert(num_layers=2)))
    x, y = tokens(), np.arange(7) % 3
    model = stitch(backbone, dense(16))
    model.compile("adam", SPARSE(from_logits=True), jit_compile=False)
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    history = model.fit(x, y, epochs=4, callbacks=[unfreezing], verbose=0)
    assert len(history.history["loss"]) == 4
    assert len(model.trainable_variables) == 5 + 2 * 16 + 2  # no pooler


def both():
    """Return a head with two inputs, which have the names of BERT's outputs."""
    sequence = keras.Input((12, 16), name="sequence_output")
    pooled = keras.Input((16,), name="pooled_output")
    x = layers.GlobalAveragePooling1D()(sequence)
    x = layers.Dense(3)(layers.Concatenate()([x, pooled]))
    inputs = dict(sequence_output=sequence, pooled_output=pooled)
    return keras.Model(inputs, x, name="both")


def test_dictionaries_of_outputs(tmp_path):
    bert = tiny.bert(num_layers=1)
    x = tokens()
    cached = cache_features(FrozenBackbone(bert), (x, np.arange(7) % 3), verbose=0)
    head = trained(both(), cached, SPARSE(from_logits=True))
    model = stitch(bert, head)
    assert bert in model.layers
    assert_close(model(x), head(all_of(cached)[0]), atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", x)
    assert_close(again.outputs, model(x), atol=1e-6)


def test_a_head_on_one_of_several_outputs():
    bert = tiny.bert(num_layers=1)
    pooled = keras.Input((16,), name="pooled_output")
    head = keras.Model({"pooled_output": pooled}, layers.Dense(3)(pooled))
    model = stitch(FrozenBackbone(bert), head)
    expected = head({"pooled_output": bert(tokens())["pooled_output"]})
    assert_close(model(tokens()), expected, atol=1e-6)
    with pytest.raises(ValueError, match="does not fit the features"):
        stitch(bert, dense(16))


def masked_head():
    output = keras.Input((5, 3), name="output")
    mask = keras.Input((5,), dtype="bool", name="mask")
    x = layers.GlobalAveragePooling1D()(output, mask=mask)
    return keras.Model({"output": output, "mask": mask}, layers.Dense(1)(x))


def test_masks_reach_the_head_as_in_the_cache(tmp_path):
    backbone = token_network()
    cached = cache_features(backbone, (IDS, np.arange(3)), verbose=0)
    found = all_of(cached)[0]
    head = trained(masked_head(), cached)
    model = stitch(FrozenBackbone(backbone), head)
    assert_close(model(IDS), head(found), atol=1e-6)
    unmasked = head(found | {"mask": np.ones_like(found["mask"])})
    assert np.abs(model(IDS) - unmasked).max() > 1e-4
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", IDS)
    assert_close(again.outputs, model(IDS), atol=1e-6)


def test_a_head_trained_without_the_mask_gets_no_mask():
    backbone = token_network()
    cached = cache_features(backbone, (IDS, np.arange(3)), verbose=0)
    found = all_of(cached)[0]["output"]
    head = keras.Sequential(
        [keras.Input((5, 3)), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    )
    model = stitch(backbone, head)
    assert_close(model(IDS), head(found), atol=1e-6)
    # Without stitch, the mask of the backbone reaches the pooling of the head.
    pool = head.layers[0]
    assert np.abs(pool(backbone(IDS)) - pool(found)).max() > 1e-4


def test_a_single_layer_can_be_the_head():
    backbone = tiny.mlp()
    head = layers.Dense(2)
    head.build((None, 3))
    x = inputs_for("plain")
    assert_close(stitch(backbone, head)(x), head(backbone(x)), atol=1e-6)


def test_bad_backbones_and_heads_raise():
    backbone = tiny.mlp()
    with pytest.raises(TypeError, match="head is a str"):
        stitch(backbone, "dense")
    with pytest.raises(ValueError, match="not built"):
        stitch(backbone, layers.Dense(2))
    with pytest.raises(TypeError, match="Pass its `.backbone`"):
        stitch(tiny.bert_classifier(num_layers=1), dense(3))

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inside = FrozenBackbone(tiny.mlp())

        def call(self, x):
            return self.inside(x)

    own = Own()
    own(np.ones((1, 6)))
    with pytest.raises(ValueError, match="no symbolic inputs"):
        stitch(own, dense(3))
    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="cannot be removed"):
        stitch(keras.Model(inputs, own(inputs)), dense(3))
