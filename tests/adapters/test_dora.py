"""DoRA: the contract of recipes, its formula and gradient by hand, its lengths."""

import itertools

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import weight_gradients


class TestDoRA(AdapterContract):
    representative = True
    learns = {"lora_a", "lora_b", "magnitude"}
    parameters = 2 * (16 * 2 + 2 * 16 + 16)  # query and value at rank 2

    def recipe(self, **kwargs):
        return adapters.DoRA(rank=2, alpha=3, **kwargs)


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def adapted(layer, x, disturb=True, **kwargs):
    """Return a model of one layer with DoRA, and its part."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.set_weights([random(*v.shape) for v in layer.weights])
    adapters.DoRA(rank=2, alpha=3, targets=layer.name, **kwargs).attach(model)
    if disturb:
        models.disturb(model)
    return model, next(places(model))[2]


def columns(kernel, part, inputs):
    """Return W' of the paper's equation 5 as a matrix."""
    a, b = array(part.lora_a), array(part.lora_b)
    total = kernel.reshape(inputs, -1) + 1.5 * (a.reshape(inputs, -1) @ b)
    return array(part.magnitude) * total / np.linalg.norm(total, axis=0)


def test_the_lengths_start_at_the_norms_of_the_weight():
    layer = keras.layers.EinsumDense("abc,cde->abde", (5, 2, 3), name="it")
    _, part = adapted(layer, random(2, 5, 6), disturb=False)
    lengths = np.linalg.norm(array(layer.kernel), axis=0).reshape(-1)
    assert_close(part.magnitude, lengths, 1e-6)


def test_dense_by_hand():
    x = random(2, 4)
    layer = keras.layers.Dense(3, "tanh", name="it")
    model, part = adapted(layer, x)
    weight = columns(array(layer.kernel), part, 4)
    expected = np.tanh(x @ weight + array(layer.bias))
    assert_close(model(x), expected, 1e-5)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-6)
    assert_close(model(x), expected, 1e-5)


@pytest.mark.parametrize(
    "equation, features, shape, order",
    [
        ("abc,cde->abde", (6,), (5, 2, 3), "cde"),
        ("abcd,cde->abe", (2, 3), (5, 4), "cde"),
        ("abcd,dec->aeb", (2, 3), (4, 5), "dce"),  # the new axis between the others
    ],
)
def test_einsum_by_hand(equation, features, shape, order):
    x = random(2, 5, *features)
    layer = keras.layers.EinsumDense(equation, shape, name="it")
    model, part = adapted(layer, x)
    letters = equation.split(",")[1][:3]
    kernel = np.einsum(f"{letters}->{order}", array(layer.kernel))
    weight = columns(kernel, part, 6).reshape(kernel.shape)
    weight = np.einsum(f"{order}->{letters}", weight)
    assert_close(model(x), np.einsum(equation, x, weight), 1e-5)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-6)


def test_convolution_by_hand():
    x = random(2, 6, 6, 3)
    layer = keras.layers.Conv2D(4, 3, strides=2, name="it")
    model, part = adapted(layer, x)
    plain = keras.layers.Conv2D(4, 3, strides=2)
    plain.build(x.shape)
    weight = columns(array(layer.kernel), part, 27).reshape(3, 3, 3, 4)
    plain.set_weights([weight, layer.bias])
    assert_close(model(x), plain(x), 1e-5)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-6)


def test_the_gradient_treats_the_norm_as_a_constant():
    x, c = random(2, 4), random(2, 3)
    model, part = adapted(keras.layers.Dense(3, name="it"), x)
    learns = [part.lora_a, part.lora_b, part.magnitude]
    grads = weight_gradients(lambda: keras.ops.sum(model(x) * c), learns)
    a, b, m = arrays(learns)
    total = array(model.layers[-1].kernel) + 1.5 * a @ b
    norm = np.linalg.norm(total, axis=0)
    outer = x.T @ c * (m / norm)
    expected = [1.5 * outer @ b.T, 1.5 * a.T @ outer, (x.T @ c * total).sum(0) / norm]
    assert_close(grads, expected, 1e-5)


def test_dropout_matches_peft():
    x = random(1, 3)
    layer = keras.layers.Dense(2, name="it")
    model, part = adapted(layer, x, dropout=0.5)
    kernel, bias = array(layer.kernel), array(layer.bias)
    weight = columns(kernel, part, 3)
    assert_close(model(x), x @ weight + bias, 1e-5)
    # One mask applies to the whole change of length and direction, none to x W.
    masks = [2 * np.array(mask) for mask in itertools.product([0, 1], repeat=3)]
    allowed = [x @ kernel + bias + (x * mask) @ (weight - kernel) for mask in masks]
    seen = set()
    for _ in range(20):
        y = array(model(x, training=True))
        distances = [np.abs(y - each).max() for each in allowed]
        assert min(distances) < 1e-5
        seen.add(int(np.argmin(distances)))
    assert len(seen) > 2


def test_a_column_of_zeros_gives_no_nan():
    x = random(2, 4)
    layer = keras.layers.Dense(3, name="it")
    model = keras.Sequential([keras.Input((4,)), layer])
    kernel = array(layer.kernel)
    kernel[:, 1] = 0
    layer.kernel.assign(kernel)
    y = array(model(x))
    adapters.DoRA(rank=2, targets="it").attach(model)
    assert_close(model(x), y)
    model.compile("sgd", "mse", jit_compile=False)
    fit(model, x, np.ones((2, 3)))
    assert all(np.isfinite(v).all() for v in model.get_weights())
    adapters.merge(model)
    assert np.isfinite(array(layer.kernel)).all()


@pytest.mark.parametrize("trained", [False, True])
def test_loading_base_weights_resets_the_lengths(trained, tmp_path):
    base, model = models.nested(), models.nested()
    for i, variable in enumerate(base.weights):
        variable.assign(np.random.default_rng(i).normal(0, 0.2, variable.shape))
    base.save_weights(tmp_path / "base.weights.h5")
    adapters.DoRA(rank=2).attach(model)
    if trained:
        models.disturb(model)
    pairs = [array(part.lora_b) for _, _, part in places(model)]
    model.load_weights(tmp_path / "base.weights.h5")
    assert_close([part.lora_b for _, _, part in places(model)], pairs)
    for _, host, part in places(model):
        lengths = np.linalg.norm(array(host.kernel), axis=0).reshape(-1)
        assert_close(part.magnitude, lengths, 1e-6)
    if not trained:
        assert_close(model(models.tokens()), base(models.tokens()))


def test_small_changes_of_length_take_effect_in_half_precision():
    # Rounded to bfloat16 a length is wrong by up to 0.2 %.
    keras.config.set_dtype_policy("mixed_bfloat16")
    x = np.eye(1024, dtype="float32")
    layer = keras.layers.Dense(64, use_bias=False, name="it")
    model = keras.Sequential([keras.Input((1024,)), layer])
    adapters.DoRA(rank=2, targets="it").attach(model)
    part = next(places(model))[2]
    part.magnitude.assign(1.02 * part.magnitude)
    y = array(keras.ops.cast(model(x), "float32"))
    ratio = np.linalg.norm(y, axis=0) / np.linalg.norm(array(layer.kernel), axis=0)
    assert np.abs(ratio - 1.02).max() < 1e-3


@pytest.mark.slow
def test_two_replicas_equal_one(strategy):
    x, y = random(8, 4), random(8, 3)
    values = []
    for scope in (None, strategy.scope()):
        keras.utils.set_random_seed(2)
        if scope is None:
            model = make(x)
        else:
            with scope:
                model = make(x)
        fit(model, x, y, epochs=2)
        values.append(model.get_weights())
    assert_close(values[1], values[0], 1e-5)


def make(x):
    layers = [keras.Input(x.shape[1:]), keras.layers.Dense(3, name="it")]
    model = keras.Sequential(layers)
    adapters.DoRA(rank=2, targets="it").attach(model)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def test_invalid_arguments_and_models_raise():
    with pytest.raises(ValueError, match="rank=0"):
        adapters.DoRA(rank=0)
    model = models.nested()
    with pytest.raises(ValueError, match="too large"):
        adapters.DoRA(rank=17).attach(model)
    for name in ("first", "second"):
        adapters.DoRA(rank=2).attach(model, name)
    with pytest.raises(ValueError, match="no weighted sum"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})
    layer = keras.layers.Dense(8, name="it")
    quantized = keras.Sequential([keras.Input((8,)), layer])
    layer.quantize("int8")
    with pytest.raises(ValueError, match="quantized"):
        adapters.DoRA(rank=2, targets="it").attach(quantized)
