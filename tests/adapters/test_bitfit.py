"""BitFit: the contract of recipes, one step by hand, and which biases train."""

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from tests import tiny
from tests.adapters import models
from tests.backbones import families
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.adapter_contract import small
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit

# Query, key, value, output; both layers of the feed-forward network; three
# normalizations; the pooler.
BIASES = 4 * 16 + 32 + 16 + 3 * 16 + 16


class TestBitFit(AdapterContract):
    learns = {"bias", "beta"}
    parameters = BIASES
    own = True
    test_xla_trains_the_same = None  # it computes nothing
    test_mixed_bfloat16 = None
    no_images = "has no biases below its head"

    def recipe(self, **kwargs):
        return adapters.BitFit(**kwargs)


def test_one_step_by_hand():
    x, y = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[1.0], [0.0]])
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[0.5], [-1.0]]), np.array([0.25])])
    adapters.BitFit().attach(model)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    fit(model, x, y)
    kernel, bias = model.get_weights()
    assert_close(kernel, np.array([[0.5], [-1.0]], "float32"))
    error = np.array([0.5 - 2 + 0.25 - 1, 1.5 + 1 + 0.25])
    assert_close(bias, np.array([0.25 - 0.1 * 2 * error.mean()], "float32"), 1e-6)


def test_a_smaller_choice_of_layers():
    model = small()
    targets = ["query$", "feedforward_intermediate_dense$"]
    adapters.BitFit(targets=targets).attach(model)
    learning = [v for v in model.trainable_variables if "logits" not in v.path]
    assert [tuple(v.shape) for v in learning] == [(2, 8), (32,)]


def test_batch_normalization_does_not_change():
    model = tiny.convnet()
    adapters.BitFit().attach(model)
    norm = model.get_layer("norm")
    before = arrays(norm.weights)
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3))
    kernels = [array(v) for v in model.weights if v.name == "kernel"][:-1]
    biases = [array(v) for v in model.weights if v.name == "bias"]
    fit(models.compiled(model), x, models.labels())
    assert_close(norm.weights, before)
    assert_close([v for v in model.weights if v.name == "kernel"][:-1], kernels)
    now = [array(v) for v in model.weights if v.name == "bias"]
    assert all((a != b).any() for a, b in zip(now, biases, strict=True))


@pytest.mark.parametrize("away", [adapters.merge, adapters.detach])
def test_the_plain_model_keeps_the_trained_weights(away):
    model = small()
    classes = models.classes(model)
    adapters.BitFit().attach(model)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1)
    y = model(models.tokens())
    away(model)
    assert models.classes(model) == classes
    assert adapters.attached(model) == {}
    assert_close(model(models.tokens()), y)
    assert all(v.trainable for v in model.weights)


def test_weights_of_the_base_model_load_in_the_same_order(tmp_path):
    # Keras lists trainable weights first: beta before the frozen gamma.
    base, model, other = small(), small(), small()
    for i, variable in enumerate(base.weights):
        variable.assign(np.random.default_rng(i).normal(0, 0.5, variable.shape))
    base.save_weights(tmp_path / "base.weights.h5")
    x = models.tokens()
    names = [v.path.split("/", 1)[-1] for v in model.weights]
    adapters.BitFit().attach(model)
    assert [v.path.split("/", 1)[-1] for v in model.weights] == names
    model.load_weights(tmp_path / "base.weights.h5")
    assert_close(model(x), base(x))
    model.set_weights(other.get_weights())
    assert_close(model(x), other(x))
    model.set_weights(base.get_weights())
    model.save_weights(tmp_path / "tuned.weights.h5")
    other.load_weights(tmp_path / "tuned.weights.h5")
    assert_close(other(x), base(x))


def test_a_model_without_biases_raises():
    with pytest.raises(ValueError, match="no biases below its head"):
        adapters.BitFit().attach(families.build("llama"))


def test_cannot_be_combined_with_another_adapter():
    model = small()
    adapters.LoRA(rank=2).attach(model)
    with pytest.raises(ValueError, match="combined in one model"):
        adapters.BitFit().attach(model, "second")
    assert list(adapters.attached(model)) == ["default"]
