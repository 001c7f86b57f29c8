"""Plans of adapters: planning changes nothing, and install accepts values."""

import inspect
import re

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.techniques import techniques
from tests import tiny
from tests.saving.files import state

OURS = {k: v for k, v in techniques().items() if k.startswith("keras_transfer>")}


def shape_of(kind):
    """Return the shape of one example for a layer of the class `kind`."""
    name = kind.__name__
    if "Embedding" in name:
        return (3,)
    if name.endswith("Cell"):
        return (3, 4)
    size = re.search(r"Conv(\d)D", name)
    return (4,) if size is None else (*[6] * int(size[1]), 3)


def host_of(kind):
    """Return a layer of the class `kind`, or an RNN with a cell of this class."""
    name = kind.__name__
    if name.endswith("Cell"):
        return keras.layers.RNN(kind(5, name="host"))
    arguments = {"Dense": [5], "EinsumDense": ["ab,bc->ac", 5]}.get(name)
    if arguments is None:
        size = {"Depthwise": [3], "Embedding": [9, 6], "Reversible": [9, 6]}
        arguments = next((v for k, v in size.items() if name.startswith(k)), [5, 3])
    return kind(*arguments, name="host")


def model_on(kind):
    """Return a model with a layer of the class `kind`, a normalization and a head.

    If `kind` is None, return a BERT.
    """
    if kind is None:
        return tiny.bert(num_layers=1)
    name = kind.__name__
    dtype = "int32" if "Embedding" in name else "float32"
    inputs = keras.Input(shape_of(kind), dtype=dtype)
    x = keras.layers.LayerNormalization(name="norm")(host_of(kind)(inputs))
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def cases():
    """Yield each technique with each class of host, with and without dropout."""
    for technique in OURS.values():
        if technique in (adapters.PrefixTuning, adapters.PromptTuning):
            # They need a whole transformer.
            yield pytest.param(technique(2), None, id=technique.__name__)
            continue
        given = inspect.signature(technique).parameters
        numbers = {k: 2 for k in ("rank", "size") if k in given}
        if technique.parts:
            numbers["targets"] = "host"
        rates = ({}, {"dropout": 0.1}) if "dropout" in given else ({},)
        for kind in technique.parts or [keras.layers.Dense]:
            for more in rates:
                name = "-".join([technique.__name__, kind.__name__, *more])
                yield pytest.param(technique(**numbers, **more), kind, id=name)


@pytest.mark.parametrize("recipe, kind", [*cases()])
class TestPlan:
    def test_plan_does_not_change_the_model(self, recipe, kind):
        model = model_on(kind)
        before = state(model)
        plan = recipe.plan(model)
        assert state(model) == before
        assert plan.pairs or plan.trained

    def test_weight_specs_match_the_created_weights(self, recipe, kind):
        model = model_on(kind)
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


def test_install_assigns_the_given_values():
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


@pytest.mark.parametrize("path, name", [("dense_1", "lora_b"), ("dense_0", "lora_c")])
def test_values_outside_the_plan_raise(path, name):
    model = tiny.mlp()
    before = state(model)
    plan = adapters.LoRA(rank=2, targets="dense_0").plan(model)
    with pytest.raises(ValueError, match=f"{name}.*{path}"):
        plan.install(model, "default", {path: {name: np.ones((2, 2))}})
    assert not any(part.built for _, part in plan.pairs)
    assert state(model) == before


def test_techniques_lists_registered_recipes_by_saved_name():
    kinds = techniques()
    assert kinds["keras_transfer>LoRA"] is adapters.LoRA
    assert kinds["keras_transfer>PfeifferBottleneck"] is adapters.PfeifferBottleneck
