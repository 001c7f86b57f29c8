"""DomainRandomization: the random changes, their ranges, and where they run."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.layers import DomainRandomization
from tests.contracts.compare import arrays
from tests.contracts.compute import exports
from tests.contracts.compute import tensorflow_only
from tests.contracts.layer_contract import LayerContract

NONE = dict(color=0, invert=0, noise=0, occlusion=0)


def images(count=8, size=8, channels=3):
    random = np.random.default_rng(0)
    return random.uniform(0.2, 0.8, (count, size, size, channels)).astype("float32")


def changed(layer, x):
    """Return what a layer makes of images in training, as a NumPy array."""
    return arrays(layer(x, training=True))[0]


class TestDomainRandomization(LayerContract):
    mask = None

    def make(self):
        # Inverting all images changes them in training without a random choice.
        return DomainRandomization(**NONE | dict(invert=1), seed=1)

    def inputs(self):
        return images()


def test_strength_zero_is_the_identity_in_training():
    layer = DomainRandomization(0)
    assert np.array_equal(layer(images(), training=True), images())
    assert layer.weights == []


def network(channels=3, **kwargs):
    head = keras.layers.Dense(1, kernel_initializer="ones")
    layer = DomainRandomization(seed=1, **kwargs)
    model = keras.Sequential(
        [keras.Input((8, 8, channels)), layer, keras.layers.Flatten(), head]
    )
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy, jit_compile",
    [("mixed_float16", False), ("float32", True)],
)
def test_all_steps_train_in_graph_and_xla(policy, jit_compile):
    # In float16 Keras's RandomErasing fails only in a graph.
    keras.config.set_dtype_policy(policy)
    model = network()
    model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=jit_compile)
    history = model.fit(images(), np.ones((8, 1)), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    # The seeds are variables. A random number of the trace would never change.
    states = arrays(model.layers[0].variables)
    assert len(states) == 7
    assert all(state[1] > 0 for state in states)


@pytest.mark.slow
def test_all_steps_train_on_two_replicas(strategy):
    with strategy.scope():
        model = network()
        model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
    history = model.fit(images(), np.ones((8, 1)), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for variable in model.variables:
        first, second = strategy.experimental_local_results(variable.value)
        assert np.array_equal(first, second)


@exports
@pytest.mark.slow
def test_saved_and_exported_layer_is_the_identity(tmp_path):
    model = network()
    expected = images().reshape(8, -1).sum(1, keepdims=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(images(), verbose=0), expected, 1e-5)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(images()), expected, 1e-5)


@tensorflow_only("a graph of tf.data runs operations of TensorFlow")
@pytest.mark.parametrize("batched", [True, False])
def test_in_a_pipeline_of_tf_data(batched):
    layer = DomainRandomization(seed=1)
    data = tf.data.Dataset.from_tensors(images(1)[0]).repeat(4)
    data = data.batch(2) if batched else data
    drawn = list(data.map(lambda x: layer(x, training=True)).as_numpy_iterator())
    drawn = np.concatenate(drawn) if batched else np.stack(drawn)
    assert drawn.shape == (4, 8, 8, 3)
    assert all(abs(a - b).max() > 0.05 for a, b in zip(drawn, drawn[1:]))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels(channels):
    x = images(channels=channels)
    out = changed(DomainRandomization(seed=1), x)
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1


def test_gray_images_keep_three_equal_channels_in_light_and_polarity():
    x = np.repeat(images(channels=1), 3, axis=-1)
    layer = DomainRandomization(noise=0, occlusion=0, seed=1)
    out = changed(layer, x)
    np.testing.assert_allclose(out[..., 0], out[..., 1], atol=1e-5)
    assert abs(out - x).max() > 0.1


@pytest.mark.parametrize("value_range", [(0, 255), (-1, 1), (100, 101)])
def test_the_value_range_only_changes_the_unit(value_range):
    low, high = value_range
    unit = changed(DomainRandomization(seed=1), images())
    layer = DomainRandomization(seed=1, value_range=value_range)
    scaled = changed(layer, images() * (high - low) + low)
    np.testing.assert_allclose((scaled - low) / (high - low), unit, atol=2e-4)


def test_uint8_images():
    layer = DomainRandomization(**NONE | dict(invert=1), value_range=(0, 255))
    x = np.arange(12, dtype="uint8").reshape(1, 2, 2, 3)
    assert layer(x).dtype == "float32"
    np.testing.assert_allclose(layer(x, training=True), 255.0 - x, atol=1e-4)
    with pytest.raises(ValueError, match=r"uint8.*value_range=\(0, 255\)"):
        DomainRandomization()(x)


def drawn(**amounts):
    """Return 200 random variants of a gray image of 0.5, with only the given steps."""
    x = np.full((200, 8, 8, 1), 0.5, "float32")
    return changed(DomainRandomization(**NONE | amounts, seed=1), x)


def test_brightness_changes_within_its_range():
    # A uniform image has no contrast, so only the brightness changes.
    shift = drawn(color=0.2)[:, 0, 0, 0] - 0.5
    assert abs(shift).max() <= 0.2 + 1e-6
    assert shift.min() < -0.17
    assert shift.max() > 0.17


def test_contrast_decreases_as_often_as_it_increases():
    # Keras reads a single number x as the range from 1 to 1 + x.
    x = np.full((400, 8, 8, 1), 0.45, "float32")
    x[:, ::2] = 0.55
    out = changed(DomainRandomization(**NONE | dict(color=0.3), seed=1), x)
    spread = np.ptp(out, axis=(1, 2, 3)) / 0.1
    assert spread.min() < 0.75
    assert spread.max() > 1.25
    assert 0.4 < (spread > 1).mean() < 0.6


def test_saturation_decreases_and_increases():
    x = np.tile(np.array([0.6, 0.5, 0.5], "float32"), (400, 8, 8, 1))
    out = changed(DomainRandomization(**NONE | dict(color=0.3), seed=1), x)
    pixel = out[:, 0, 0]
    spread = np.ptp(pixel, axis=-1) / pixel.max(-1)
    assert spread.min() < 0.6 / 6
    assert spread.max() > 1.5 / 6


def test_the_fraction_of_inverted_images():
    x = np.full((400, 4, 4, 1), 0.25, "float32")
    layer = DomainRandomization(**NONE | dict(invert=0.3), seed=1)
    out = changed(layer, x)[:, 0, 0, 0]
    assert set(out) == {0.25, 0.75}
    assert 0.22 < (out == 0.75).mean() < 0.38


def test_the_standard_deviation_of_noise():
    assert (drawn(noise=0.1) - 0.5).std() == pytest.approx(0.1, rel=0.03)


def test_the_covered_area():
    x = np.full((200, 32, 32, 1), 0.5, "float32")
    layer = DomainRandomization(**NONE | dict(occlusion=0.3), seed=1)
    covered = (changed(layer, x) != 0.5).mean((1, 2, 3))
    assert covered.max() < 0.35  # the edges of a patch fall on whole pixels
    assert covered.max() > 0.2


def test_strength_scales_every_amount():
    amounts = dict(color=0.4, invert=0.6, noise=0.2, occlusion=0.5)
    half = DomainRandomization(0.5, **amounts, seed=1)(images(), training=True)
    amounts = {name: value / 2 for name, value in amounts.items()}
    whole = DomainRandomization(**amounts, seed=1)(images(), training=True)
    np.testing.assert_allclose(half, whole, atol=1e-6)


def test_the_steps_have_different_seeds():
    # With one seed for all steps, bright images would also have high contrast.
    layer = DomainRandomization(seed=1)
    states = [tuple(state) for state in arrays(layer.variables)]
    assert len(set(states)) == len(states) == 7


def test_equal_seeds_give_equal_images_and_calls_differ():
    one, two = (DomainRandomization(seed=5) for _ in range(2))
    first = changed(one, images())
    assert np.array_equal(first, two(images(), training=True))
    assert not np.array_equal(first, one(images(), training=True))


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, None, "1", True])
@pytest.mark.parametrize("name", ["strength", "color", "invert", "noise", "occlusion"])
def test_bad_amounts_raise(name, value):
    with pytest.raises(ValueError, match=name):
        DomainRandomization(**{name: value})


@pytest.mark.parametrize(
    "value", [(1, 0), (0, 0), (0,), (0, 1, 2), 1, None, (0, math.inf), (math.nan, 1)]
)
def test_bad_value_ranges_raise(value):
    with pytest.raises(ValueError, match="value_range"):
        DomainRandomization(value_range=value)


@pytest.mark.parametrize("seed", [1.5, "a", True])
def test_bad_seeds_raise(seed):
    with pytest.raises(ValueError, match="seed"):
        DomainRandomization(seed=seed)


def test_inputs_that_are_not_images_raise():
    with pytest.raises(ValueError, match=r"the shape \(8, 3\)"):
        DomainRandomization()(np.zeros((8, 3), "float32"))
