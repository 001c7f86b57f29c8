"""diagonal_fisher: against NumPy, in mixed precision, and for wrong data."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts.compare import array

fisher = kt.regularizers.diagonal_fisher


def vectors(count, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype("float32")


def linear(outputs, activation=None, width=3):
    inputs = keras.Input((width,))
    layer = keras.layers.Dense(outputs, activation, name="linear")
    model = keras.Model(inputs, layer(inputs))
    layer.kernel.assign(vectors(width, outputs, seed=1))
    layer.bias.assign(vectors(1, outputs, seed=2)[0])
    return model


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def chances(model, x):
    kernel, bias = map(array, model.weights)
    logits = x @ kernel + bias
    return 1 / (1 + np.exp(-logits)) if logits.shape[1] == 1 else softmax(logits)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_logistic_regression_has_the_fisher_that_is_known_by_hand(activation):
    model, x = linear(1, activation), vectors(40)  # a full and a short batch
    kernel, bias = fisher(model, x, from_logits=activation is None)
    p = chances(linear(1), x)
    np.testing.assert_allclose(kernel, np.mean(p * (1 - p) * x**2, 0)[:, None], 1e-4)
    np.testing.assert_allclose(bias, np.mean(p * (1 - p), 0), 1e-4)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_classes_against_numpy(activation):
    model, x = linear(4, activation), vectors(7)
    kernel, _ = fisher(model, x, from_logits=activation is None)
    p = chances(linear(4), x)
    # d log p_c / d W_jk = x_j (1[c=k] - p_k), squared and averaged over the classes
    slopes = (np.eye(4)[None] - p[:, None]) ** 2  # (example, c, k)
    expected = np.einsum("nc,nj,nck->jk", p, x**2, slopes) / len(x)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4)


@pytest.mark.slow
def test_sampled_classes_converge_to_the_expectation_and_depend_on_the_seed():
    model, x = linear(3), 0.3 * vectors(1)
    settings = dict(from_logits=True, classes="sampled")
    exact = fisher(model, x, from_logits=True)[0]
    sampled = fisher(model, np.repeat(x, 800, axis=0), **settings)[0]
    np.testing.assert_allclose(sampled, exact, rtol=0.15)
    other = fisher(model, np.repeat(x, 800, axis=0), seed=1, **settings)[0]
    assert (sampled != other).any()


@pytest.mark.slow
def test_data_is_streamed_in_each_form():
    import tensorflow as tf

    model, x, y = linear(3), vectors(10), np.arange(10) % 3
    expected = fisher(model, x, from_logits=True)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    for data in ((x, y), batches.map(lambda x, y: x)):
        for a, b in zip(fisher(model, data, from_logits=True), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_small_gradients(policy):
    x = 1e-3 * vectors(6)  # the squares of the gradients are below float16
    expected = fisher(linear(3), x, from_logits=True)
    keras.config.set_dtype_policy(policy)
    found = fisher(linear(3), x, from_logits=True)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32 and (a > 0).all()
        np.testing.assert_allclose(a, b, rtol=0.05)


@pytest.mark.slow
def test_reads_the_loss_and_leaves_the_model_unchanged():
    model = tiny.convnet()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [array(v) for v in model.variables]
    x = vectors(2, 8 * 8 * 3).reshape(2, 8, 8, 3)
    found = fisher(model, x)
    assert [each.shape for each in found] == [v.shape for v in model.trainable_weights]
    for a, b in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(array(a), b)


def wrong(data=None, model=None, **settings):
    settings = {"from_logits": True} | settings
    return fisher(model or linear(3), vectors(4) if data is None else data, **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"data": vectors(0)}, "empty"),
        ({"data": vectors(4) * np.nan}, "not finite"),
        ({"data": (vectors(4), np.arange(4))}, "1 labels are outside 0 to 2"),
        ({"data": iter([vectors(4)])}, "only one pass"),
        ({"model": linear(21)}, "classes='sampled'"),
        ({"classes": "labels"}, "one of"),
        ({"from_logits": None}, "from_logits"),
    ],
)
def test_wrong_input(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        wrong(**settings)


def test_an_output_for_each_position_is_refused():
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match="one row of classes"):
        wrong(np.zeros((2, 4, 3), "float32"), model)
