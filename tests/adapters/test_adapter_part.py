"""Parts of adapters: declared weights, and subclasses that override a hook."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.ia3 import IA3Scale
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from tests import tiny
from tests.adapters import models
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run


class Undeclared(Part):
    """A part that creates a weight without declaring it."""

    def create_weights(self, host):
        self.offset = self.weight("offset", (host.units,), "zeros")


class Declared(Undeclared):
    """A part that also declares its weight."""

    def weight_specs(self, host):
        return {"offset": ((host.units,), "zeros")}


class OfAnotherShape(Undeclared):
    """A part that declares its weight with another shape."""

    def weight_specs(self, host):
        return {"offset": ((host.units, 1), "zeros")}


def recipe_of(kind):
    class Offset(Adapter):
        parts = {keras.layers.Dense: kind}

        def part(self, target):
            return kind()

    return Offset("dense")


@pytest.mark.parametrize("kind", [Undeclared, OfAnotherShape])
def test_undeclared_weights_raise(kind):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"\{'offset': \(3,\)\}.*weight_specs"):
        recipe_of(kind).attach(model)
    assert adapters.attached(model) == {}


def test_a_part_can_create_declared_weights():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    recipe_of(Declared).attach(model)
    assert [v.name for v in model.trainable_weights] == ["offset"]


class Bent(DensePair):
    """A pair that overrides only `on_outputs`, with another computation."""

    def on_outputs(self, host, inputs, outputs, **kwargs):
        return outputs + keras.ops.tanh(super().on_outputs(host, inputs, 0.0))


class BentHeads(EinsumPair):
    """A pair that overrides only `scaled`, with another computation."""

    def scaled(self, hidden):
        return keras.ops.tanh(super().scaled(hidden))


class Noted(DensePair):
    """A pair that only records the inputs, and declares that it folds as before."""

    fold = DensePair.fold

    def on_outputs(self, host, inputs, outputs, **kwargs):
        self.__dict__["seen"] = inputs.shape
        return super().on_outputs(host, inputs, outputs, **kwargs)


class BentScale(IA3Scale):
    """Factors that are applied twice, with only `on_outputs` overridden."""

    def on_outputs(self, host, inputs, outputs, **kwargs):
        once = super().on_outputs(host, inputs, outputs, **kwargs)
        return super().on_outputs(host, inputs, once, **kwargs)


def with_parts(recipe, **kinds):
    layers = {"dense": keras.layers.Dense, "heads": keras.layers.EinsumDense}
    parts = {layers[name]: kind for name, kind in kinds.items()}
    return type(f"Own{recipe.__name__}", (recipe,), {"parts": parts})


@pytest.mark.parametrize("kind", [Bent, BentScale])
def test_a_subclass_with_another_computation_does_not_fold_as_its_parent(kind):
    model, x = tiny.mlp(), np.random.default_rng(0).normal(size=(4, 6))
    technique, numbers = (
        (adapters.LoRA, {"rank": 2}) if kind is Bent else (adapters.IA3, {})
    )
    recipe = with_parts(technique, dense=kind)
    recipe(targets="dense_0", **numbers).attach(model)
    models.disturb(model)
    before, weights = run(model, x), arrays(model.weights)
    with pytest.raises(ValueError, match=rf"{kind.__name__}.*on_outputs.*`fold`"):
        adapters.merge(model)
    assert_close(run(model, x), before)
    assert_close(arrays(model.weights), weights)
    with pytest.raises(ValueError, match=rf"{kind.__name__}.*on_outputs.*`joined`"):
        adapters.add_weighted(model, "sum", {"default": 0.5})


def test_a_subclass_that_declares_fold_is_folded():
    model, x = tiny.mlp(), np.random.default_rng(0).normal(size=(4, 6))
    with_parts(adapters.LoRA, dense=Noted)(rank=2, targets="dense_0").attach(model)
    before = run(models.disturb(model), x)
    adapters.merge(model)
    assert_close(run(model, x), before, 1e-5)


def test_a_subclass_with_another_computation_has_no_peft_format(tmp_path):
    model = models.nested()
    with_parts(adapters.LoRA, heads=BentHeads)(rank=2).attach(model)
    with pytest.raises(ValueError, match=r"BentHeads.*scaled.*`peft_tensors`"):
        kt.save_adapter(model, tmp_path / "folder", format="peft")
    assert not (tmp_path / "folder").exists()
