"""FrozenBackbone: nothing in it changes, for every model around it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_transfer.backbones import FrozenBackbone
from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.layer_contract import LayerContract


def normed(dropout=0.5):
    """Return a small backbone with BatchNormalization and dropout."""
    inputs = keras.Input((6,))
    x = layers.Dense(5, kernel_regularizer="l2", name="dense")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dropout(dropout)(x), name="normed")


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(8, 6)).astype("float32")
    return x, np.ones((8, 1), "float32")


def headed(backbone, outputs=None):
    inputs = keras.Input((6,))
    x = backbone(inputs) if outputs is None else outputs(inputs)
    model = keras.Model(inputs, layers.Dense(1, name="head")(x))
    model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    return model


def token_data(backbone, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 60, size=(8, 12))
    mask = np.arange(12) < rng.integers(3, 12, size=(8, 1))
    x = dict(token_ids=ids, segment_ids=ids * 0, padding_mask=mask)
    return {name: value.astype("int32") for name, value in x.items()}


class TestFrozenDense(LayerContract):
    def make(self):
        return FrozenBackbone(layers.Dense(4, kernel_initializer="ones"))

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 3, 6)).astype("float32")


def test_weights_and_statistics_keep_their_bits():
    backbone = normed()
    model = headed(FrozenBackbone(backbone))
    before = backbone.get_weights()
    fit(model, *data(), epochs=3)
    assert_close(backbone.get_weights(), before)


def test_functional_training_false_does_not_freeze_batch_norm():
    # Without FrozenBackbone, fit overrides the argument (keras-team/keras#20285).
    backbone = normed()
    model = headed(None, outputs=lambda x: backbone(x, training=False))
    before = backbone.get_layer("norm").get_weights()
    fit(model, *data())
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(backbone.get_layer("norm").get_weights(), before, strict=True)
    ]
    assert moved[2] and moved[3]  # the moving mean and variance


def test_dropout_is_off():
    backbone = normed()
    x, _ = data()
    frozen = FrozenBackbone(backbone)
    assert_close(frozen(x, training=True), backbone(x, training=False))
    # Without FrozenBackbone, a frozen flag leaves dropout on.
    assert not backbone.trainable
    live = arrays(backbone(x, training=True))[0]
    assert np.abs(live - arrays(backbone(x, training=False))[0]).max() > 0.1


def test_dropout_after_it_stays_on_in_a_subclassed_model():
    # Keras passes the last `training` of a call to every later layer.
    class Classifier(keras.Model):
        def __init__(self, backbone):
            super().__init__()
            self.backbone = backbone
            self.drop = layers.Dropout(0.5)

        def call(self, x):
            return self.drop(self.backbone(x))

    model = Classifier(FrozenBackbone(layers.Dense(50, kernel_initializer="ones")))
    out = arrays(model(np.ones((4, 6)), training=True))[0]
    assert 0.2 < (out == 0).mean() < 0.8
    assert (arrays(model(np.ones((4, 6)), training=False))[0] == 6).all()


def test_outer_trainable_does_not_unfreeze():
    backbone = normed()
    model = headed(FrozenBackbone(backbone))
    for value in (False, True):
        model.trainable = value
    assert [v.path for v in model.trainable_variables] == ["head/kernel", "head/bias"]
    # A plain flag of a layer would be lost.
    plain = normed()
    plain.trainable = False
    model = headed(plain)
    for value in (False, True):
        model.trainable = value
    assert len(model.trainable_variables) == 6


def test_setting_its_own_flag_has_no_effect():
    frozen = FrozenBackbone(normed())
    frozen.trainable = True
    assert frozen.trainable is False
    assert frozen.trainable_variables == []


def test_freezes_children_that_differ_from_their_parent():
    # Keras ignores `trainable = False` if the parent's flag is already False.
    backbone = keras.Sequential([keras.Input((6,)), normed(), layers.Dense(2)])
    backbone.trainable = False
    backbone.layers[0].get_layer("dense").trainable = True
    model = headed(FrozenBackbone(backbone))
    assert len(model.trainable_variables) == 2
    assert not backbone.layers[0].get_layer("dense").trainable


def test_freezes_single_variables():
    backbone = normed()
    backbone.trainable = False
    backbone.get_layer("dense").kernel.trainable = True
    assert len(headed(FrozenBackbone(backbone)).trainable_variables) == 2


@pytest.mark.slow
@pytest.mark.parametrize("distributed", [False, True])
def test_a_child_unfrozen_afterward_does_not_change(request, distributed):
    scope = tf.distribute.get_strategy().scope()
    if distributed:
        scope = request.getfixturevalue("strategy").scope()
    with scope:
        backbone = normed()
        model = headed(FrozenBackbone(backbone))
    backbone.get_layer("dense").trainable = True
    # Keras uses the flag of the variable, for any flag of the parent.
    assert len(model.trainable_variables) == 4
    before = backbone.get_weights()
    # Without freezing it again, the regularizer would change the kernel.
    fit(model, *data(), epochs=2)
    assert_close(backbone.get_weights(), before)
    assert len(model.trainable_variables) == 2


def test_gradients_are_stopped():
    frozen = FrozenBackbone(normed())
    x = tf.constant(data()[0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(frozen(x, training=True))
    assert tape.gradient(y, [x, *frozen.layer.weights]) == [None] * 7


@pytest.mark.slow
def test_the_wrapped_layer_can_be_unfrozen():
    frozen = FrozenBackbone(normed())
    probe = headed(frozen)
    fit(probe, *data())
    frozen.layer.trainable = True
    model = headed(frozen.layer)
    assert len(model.trainable_variables) == 6
    before = frozen.layer.get_weights()
    probe.evaluate(*data(), verbose=0)  # evaluating the probe freezes nothing
    fit(model, *data())
    assert len(model.trainable_variables) == 6
    assert not np.array_equal(frozen.layer.get_weights()[0], before[0])


def test_loads_frozen_with_optimizer_state(tmp_path):
    x = token_data(None)
    backbone = tiny.bert(num_layers=1)
    pooled = FrozenBackbone(backbone)(backbone.input)["pooled_output"]
    model = keras.Model(backbone.input, layers.Dense(1)(pooled))
    model.compile("adam", "mse", jit_compile=False)
    fit(model, x, np.ones((8, 1)), epochs=2)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", x)
    assert_close(again.outputs, run(model, x))
    assert len(again.trainable) == 2
    assert again.iterations == 4
    assert_close(again.optimizer_variables, model.optimizer.variables)
    here = keras.models.load_model(tmp_path / "model.keras")
    here.trainable = True
    assert len(here.trainable_variables) == 2


def test_dictionaries_pass_through():
    backbone = tiny.bert(num_layers=1)
    x = token_data(backbone)
    frozen = FrozenBackbone(backbone)(x, training=True)
    assert sorted(frozen) == ["pooled_output", "sequence_output"]
    assert_close(frozen, run(backbone, x))


def embedding(kind):
    if kind == "layer":
        return layers.Embedding(9, 4, mask_zero=True)
    if kind == "sequential":
        return keras.Sequential(
            [keras.Input((5,)), layers.Embedding(9, 4, mask_zero=True)]
        )
    inputs = keras.Input((5,))
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("kind", ["layer", "sequential", "functional"])
@pytest.mark.parametrize("after", [layers.LSTM, layers.GlobalAveragePooling1D])
def test_masks_reach_the_layer_after_it(kind, after):
    backbone = embedding(kind)
    after = after() if after is layers.GlobalAveragePooling1D else after(3)
    inputs = keras.Input((5,))
    plain = keras.Model(inputs, after(backbone(inputs)))
    frozen = keras.Model(inputs, after(FrozenBackbone(backbone)(inputs)))
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    assert_close(run(frozen, x), run(plain, x))
    unmasked = run(after, backbone(x) + 0.0)
    assert np.abs(arrays(unmasked)[0] - arrays(run(plain, x))[0]).max() > 1e-4


def test_a_pooling_inside_ends_the_mask():
    inputs = keras.Input((5, 4))
    frozen = FrozenBackbone(layers.GlobalAveragePooling1D())
    masked = layers.Masking()(np.ones((2, 5, 4), "float32"))
    assert getattr(frozen(masked), "_keras_mask", None) is None
    assert getattr(frozen(layers.Masking()(inputs)), "_keras_mask", None) is None


def test_symbolic_mask_of_a_layer():
    mask = FrozenBackbone(embedding("layer"))(keras.Input((5,)))._keras_mask
    assert mask.shape == (None, 5)


class NoTraining(keras.Layer):
    """A layer without `training` in its call, built by its first call."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("make", [NoTraining, lambda: layers.Dense(2)])
def test_layers_built_by_a_call_are_frozen(make):
    model = headed(FrozenBackbone(make()))
    assert len(model.trainable_variables) == 2
    fit(model, *data())
    assert len(model.non_trainable_variables) == 2


@pytest.mark.parametrize("make", [tiny.hub_resnet, tiny.cv_resnet])
def test_image_backbones_stay_bit_equal(make):
    backbone = make()
    shape = backbone.input.shape[1:]
    pooled = layers.GlobalAveragePooling2D()(FrozenBackbone(backbone)(backbone.input))
    model = keras.Model(backbone.input, layers.Dense(1)(pooled))
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).random((4, *shape), "float32")
    before = backbone.get_weights()
    fit(model, x, np.ones((4, 1)))
    assert_close(backbone.get_weights(), before)


def test_nothing_is_cast_under_a_mixed_policy():
    backbone = normed()  # float32
    keras.config.set_dtype_policy("mixed_float16")
    x, _ = data()
    assert_close(FrozenBackbone(backbone)(x), run(backbone, x))


def test_trainable_true_raises():
    with pytest.raises(ValueError, match="never trains"):
        FrozenBackbone(normed(), trainable=True)
    FrozenBackbone(normed(), trainable=False)


def test_objects_that_are_not_layers_raise():
    with pytest.raises(ValueError, match="layer"):
        FrozenBackbone(lambda x: x)
