"""IA3: the contract of recipes, its formula by hand, and its default targets."""

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.backbones import families
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.compare import array
from tests.contracts.compare import assert_close


class TestIA3(AdapterContract):
    learns = {"ia3_scale"}
    parameters = 16 + 16 + 32  # keys, values, hidden features of the feed-forward net

    def recipe(self, **kwargs):
        return adapters.IA3(**kwargs)


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def adapted(layer, x, **kwargs):
    """Return a model of one layer with random factors, and its part."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.set_weights([random(*v.shape) for v in layer.weights])
    adapters.IA3(targets=layer.name, **kwargs).attach(model)
    models.disturb(model)
    _, _, part = next(places(model))
    return model, array(part.ia3_scale)


@pytest.mark.parametrize("feedforward", [[], ["it"]])
def test_dense_by_hand(feedforward):
    x = random(2, 4)
    model, scale = adapted(
        keras.layers.Dense(3, "tanh", name="it"), x, feedforward=feedforward
    )
    kernel, bias = array(model.layers[-1].kernel), array(model.layers[-1].bias)
    if feedforward:
        expected = np.tanh((scale * x) @ kernel + bias)
    else:
        expected = np.tanh(scale * (x @ kernel + bias))
    assert_close(model(x), expected, 1e-6)
    adapters.merge(model)
    assert_close(model(x), expected, 1e-6)


@pytest.mark.parametrize("feedforward", [[], ["it"]])
@pytest.mark.parametrize(
    "equation, features, shape, bias_axes",
    [
        ("abc,cde->abde", (6,), (5, 2, 3), "de"),
        ("abcd,cde->abe", (2, 3), (5, 4), "e"),
        ("abcd,dce->aeb", (2, 3), (4, 5), "e"),  # axes in another order
        ("...c,cde->...ed", (6,), (3, 2), "ed"),
    ],
)
def test_einsum_by_hand(equation, features, shape, bias_axes, feedforward):
    x = random(2, 5, *features)
    layer = keras.layers.EinsumDense(equation, shape, bias_axes=bias_axes, name="it")
    model, scale = adapted(layer, x, feedforward=feedforward)
    kernel, bias = array(layer.kernel), array(layer.bias)
    source, letters, target = equation.replace("->", ",").split(",")
    into = [x for x in letters if x not in target]
    axes = into if feedforward else [x for x in letters if x not in into]
    names = "".join(axes)  # one factor per entry, in the order of the kernel's axes
    grid = scale.reshape([kernel.shape[letters.index(x)] for x in axes])
    if feedforward:
        scaled = np.einsum(f"{source},{names}->{source}", x, grid)
        expected = np.einsum(equation, scaled, kernel) + bias
    else:
        plain = np.einsum(equation, x, kernel) + bias
        expected = np.einsum(f"{target},{names}->{target}", plain, grid)
    assert_close(model(x), expected, 1e-5)
    adapters.merge(model)
    assert_close(model(x), expected, 1e-5)


def test_a_kernel_that_is_not_a_matrix_raises():
    layer = keras.layers.EinsumDense("abc,acd->abd", (None, 3), name="it")
    model = keras.Sequential([keras.Input((5, 6), batch_size=2), layer])
    with pytest.raises(ValueError, match="not a matrix"):
        adapters.IA3(targets="it").attach(model)


@pytest.mark.parametrize("feedforward", [[], ["it"]])
def test_convolution_by_hand(feedforward):
    x = random(2, 6, 6, 3)
    layer = keras.layers.Conv2D(4, 3, strides=2, name="it")
    model, scale = adapted(layer, x, feedforward=feedforward)
    plain = keras.layers.Conv2D(4, 3, strides=2)
    plain.build(x.shape)
    plain.set_weights([layer.kernel, layer.bias])
    expected = plain(x * scale) if feedforward else plain(x) * scale
    assert_close(model(x), expected, 1e-5)
    adapters.merge(model)
    assert_close(model(x), expected, 1e-5)


def test_a_shared_bias_cannot_be_merged():
    x = random(2, 5, 6)
    layer = keras.layers.EinsumDense(
        "abc,cde->abde", (5, 2, 3), bias_axes="e", name="it"
    )
    model, _ = adapted(layer, x)
    y = model(x)
    with pytest.raises(ValueError, match="share a bias"):
        adapters.merge(model)
    assert_close(model(x), y)


def test_groups_of_channels():
    x = random(2, 6, 6, 4)
    layer = keras.layers.Conv2D(4, 3, groups=2, name="it")
    model, _ = adapted(layer, x)
    y = model(x)
    adapters.merge(model)
    assert_close(model(x), y, 1e-5)
    with pytest.raises(ValueError, match="groups"):
        adapted(layer, x, feedforward=["it"])


def test_a_weighted_sum_adds_the_changes():
    x = random(2, 4)
    layer = keras.layers.Dense(3, name="it")
    model, first = adapted(layer, x)
    adapters.IA3(targets="it").attach(model, "second")
    models.disturb(model, 0.7, "second")
    second = array(list(places(model, "second"))[0][2].ia3_scale)
    adapters.add_weighted(model, "sum", {"default": 0.5, "second": 2.0})
    scale = 1 + 0.5 * (first - 1) + 2 * (second - 1)
    expected = scale * (x @ array(layer.kernel) + array(layer.bias))
    assert_close(model(x), expected, 1e-5)
    adapters.IA3(targets="it", feedforward=["it"]).attach(model, "inside")
    with pytest.raises(ValueError, match="no sum"):
        adapters.add_weighted(model, "other", {"inside": 0.5, "second": 2.0})


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, keys_and_values, inside",
    [("bert_of_one", 2, 1), ("t5", 2 * 2 + 2 * 4, 4), ("gemma", 6, 3)],
)
def test_default_targets(family, keys_and_values, inside):
    model = families.build(family)
    adapters.IA3().attach(model)
    found = {path: part.of_inputs for path, _, part in places(model)}
    assert list(found.values()).count(False) == keys_and_values
    assert list(found.values()).count(True) == inside


def test_invalid_arguments_and_models_raise():
    with pytest.raises(TypeError, match="list of expressions"):
        adapters.IA3(feedforward="output")
    with pytest.raises(TypeError, match="not a string"):
        adapters.IA3(feedforward=[3])
    with pytest.raises(ValueError, match="matches none of the targets"):
        adapters.IA3(feedforward=["outptu"]).attach(models.nested())
    mlp = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="No default targets"):
        adapters.IA3().attach(mlp)
