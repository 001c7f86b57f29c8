"""Bottleneck adapters: the contract of recipes, the formula by hand, the targets."""

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests import tiny
from tests.adapters import models
from tests.backbones import families
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.adapter_contract import small
from tests.contracts.compare import array
from tests.contracts.compare import assert_close

ONE = 2 * 16 * 4 + 16 + 4  # parameters of one network of width 16 and size 4


class TestBottleneck(AdapterContract):
    learns = {"down", "down_bias", "up", "up_bias"}
    parameters = 2 * ONE
    cannot_fold = "has an activation"
    no_images = "No default targets"

    def recipe(self, **kwargs):
        return adapters.Bottleneck(size=4, **kwargs)


class TestPfeifferBottleneck(TestBottleneck):
    parameters = ONE
    test_xla_trains_the_same = None  # the same layers as above
    test_mixed_bfloat16 = None

    def recipe(self, **kwargs):
        return adapters.PfeifferBottleneck(size=4, **kwargs)


def test_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    layer = keras.layers.Dense(4, "tanh", name="it")
    model = keras.Sequential([keras.Input((5, 3)), layer])
    plain = array(model(x))
    adapters.Bottleneck(size=2, activation="relu", targets="it").attach(model)
    models.disturb(model)
    _, _, part = next(places(model))
    down, down_bias, up, up_bias = (array(v) for v in part.named_weights.values())
    assert down.shape == (4, 2) and up.shape == (2, 4)
    # After the layer's own activation.
    inside = np.maximum(plain @ down + down_bias, 0)
    assert_close(model(x), plain + inside @ up + up_bias, 1e-6)


@pytest.mark.parametrize(
    "family, houlsby, pfeiffer",
    [("bert_of_one", 2, 1), ("t5", 8, 4), ("gemma", 6, 3), ("hub_vit", 6, 3)],
)
def test_number_of_networks_in_a_block(family, houlsby, pfeiffer):
    model = families.build(family)
    adapters.Bottleneck(size=4).attach(model)
    found = [path for path, _, _ in places(model)]
    assert len(found) == houlsby
    assert not any("cross" in path for path in found)
    adapters.detach(model)
    adapters.PfeifferBottleneck(size=4).attach(model)
    found = [path for path, _, _ in places(model)]
    assert len(found) == pfeiffer
    assert not any("attention" in path for path in found)


def test_convolutions_can_be_targets():
    model = tiny.hub_resnet()
    x = models.images()
    y = model(x)
    adapters.Bottleneck(size=4, targets="block0.*conv").attach(model)
    assert_close(model(x), y)
    models.disturb(model)
    assert np.abs(model(x) - y).max() > 1e-3


def test_norms_trains_the_normalizations():
    model = small()
    adapters.Bottleneck(size=4, norms=True).attach(model)
    norms = [v for v in model.trainable_variables if v.name in ("gamma", "beta")]
    assert len(norms) == 3 * 2
    off = adapters.disabled(model)
    with pytest.raises(ValueError, match="switched off"), off:
        pass
    # BatchNormalization is left out, because it would update its statistics.
    model = tiny.convnet()
    adapters.Bottleneck(size=2, targets="conv", norms=True).attach(model)
    assert model.get_layer("norm").trainable_weights == []


def test_detach_restores_the_model():
    model = small()
    classes, y = models.classes(model), model(models.tokens())
    adapters.Bottleneck(size=4).attach(model)
    models.disturb(model)
    adapters.detach(model)
    assert models.classes(model) == classes
    assert_close(model(models.tokens()), y)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_an_invalid_size_raises(size):
    with pytest.raises(ValueError, match="size="):
        adapters.Bottleneck(size=size)


def test_invalid_arguments_and_models_raise():
    with pytest.raises(ValueError, match="activation"):
        adapters.Bottleneck(activation="no_such")
    with pytest.raises(ValueError, match="name of a Keras activation"):
        adapters.Bottleneck(activation=lambda x: x)
    with pytest.raises(ValueError, match="not a bottleneck"):
        adapters.Bottleneck(size=16).attach(small())
    with pytest.raises(ValueError, match="last axis"):
        adapters.Bottleneck(size=2, targets="query").attach(small())
    model = small()
    for name in ("first", "second"):
        adapters.Bottleneck(size=4).attach(model, name)
    with pytest.raises(ValueError, match="no weighted sum"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})
