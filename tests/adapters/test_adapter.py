"""Plans of adapters: what is to be added, before anything changes, and with values."""

import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.adapter import techniques
from tests import tiny
from tests.saving.files import state

RECIPES = [
    adapters.BitFit(),
    adapters.Bottleneck(size=2, targets="dense_0"),
    adapters.DoRA(rank=2, targets="dense_0"),
    adapters.IA3(targets="dense_0"),
    adapters.LoRA(rank=2, targets="dense_0"),
    adapters.VeRA(rank=2, targets="dense_0"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
class TestPlan:
    def test_it_changes_nothing(self, recipe):
        model = tiny.mlp()
        before = state(model)
        plan = recipe.plan(model)
        assert state(model) == before
        assert plan.pairs or plan.trained

    def test_its_specs_are_those_of_the_weights_that_are_made(self, recipe):
        model = tiny.mlp()
        plan = recipe.plan(model)
        specs = [
            {name: shape for name, (shape, _) in part.weight_specs(x.layer).items()}
            for x, part in plan.pairs
        ]
        plan.install(model, "default")
        for shapes, (_, part) in zip(specs, plan.pairs, strict=True):
            made = {name: tuple(v.shape) for name, v in part.named_weights.items()}
            assert made == shapes
            assert all(getattr(part, k) is v for k, v in part.named_weights.items())


def test_values_are_those_that_are_given():
    model = tiny.mlp()
    plan = adapters.LoRA(rank=2, targets="dense_0").plan(model)
    target, part = plan.pairs[0]
    b = np.ones(part.weight_specs(target.layer)["lora_b"][0], "float32")
    bias = np.full(target.layer.bias.shape, 3.0, "float32")
    values = {target.path: {"lora_b": b}}
    plan.install(model, "default", values, [(target.layer.bias, bias)])
    assert np.array_equal(part.lora_b, b)
    assert np.array_equal(target.layer.bias, bias)
    assert list(adapters.attached(model)) == ["default"]


def test_all_registered_recipes_are_known_by_their_saved_names():
    kinds = techniques()
    assert kinds["keras_transfer>LoRA"] is adapters.LoRA
    assert kinds["keras_transfer>PfeifferBottleneck"] is adapters.PfeifferBottleneck
