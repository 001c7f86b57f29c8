"""Several adapters on one model: use, disabled, remove, and weighted sums."""

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.contracts import fresh
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run

X, Y = models.tokens(), models.labels()


def two(**kwargs):
    """Return a compiled model, and its outputs without and with each adapter."""
    model = models.compiled(models.nested(), **kwargs)
    outputs = {"base": array(run(model, X))}
    for name in ("first", "second"):
        adapters.LoRA(rank=2).attach(model, name)
    for seed, name in enumerate(("first", "second")):
        rng = np.random.default_rng(seed)
        for _, _, part in places(model, name):
            for variable in part.named_weights.values():
                variable.assign(rng.normal(0, 0.3, variable.shape))
        adapters.use(model, name)
        outputs[name] = array(run(model, X))
    return model, outputs


class Bent(DensePair):
    """A pair that overrides only `on_outputs`, with another computation."""

    def on_outputs(self, host, inputs, outputs, **kwargs):
        return keras.ops.tanh(super().on_outputs(host, inputs, outputs, **kwargs))


class Bending(adapters.LoRA):
    parts = {keras.layers.Dense: Bent}


def test_a_subclass_with_another_computation_has_no_sum():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    for name in ("first", "second"):
        Bending(rank=2, targets="dense").attach(model, name)
    with pytest.raises(ValueError, match=r"Bent.*\['on_outputs'\].*`joined`"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})
    assert list(adapters.attached(model)) == ["first", "second"]


@pytest.mark.slow
def test_use_switches_the_outputs_of_traced_functions():
    model, outputs = two()
    assert np.abs(outputs["first"] - outputs["second"]).max() > 1e-3
    model.predict(X, verbose=0)
    traced = model.predict_function
    for name in ("first", "second", "first"):
        adapters.use(model, name)
        assert_close(run(model, X), outputs[name])
        assert_close(model.predict(X, verbose=0), outputs[name], 1e-6)
    # The gate is enough: a graph traced before stays valid.
    model.predict_function = traced
    adapters.use(model, "second")
    model.predict_function = traced
    assert_close(model.predict(X, verbose=0), outputs["second"], 1e-6)


@pytest.mark.slow
def test_disabled_equals_the_base_model_exactly():
    model, outputs = two()
    traced = model.predict(X, verbose=0)
    with adapters.disabled(model):
        assert np.array_equal(run(model, X), outputs["base"])
        assert adapters.active(model) == {}
        base = model.predict(X, verbose=0)
    assert_close(base, outputs["base"], 1e-6)
    assert_close(model.predict(X, verbose=0), traced)
    with pytest.raises(KeyError), adapters.disabled(model):
        raise KeyError
    assert adapters.active(model) == {"second": 1.0}


@pytest.mark.slow
def test_only_the_adapter_in_use_trains():
    model, _ = two()
    fit(model, X, Y)
    adapters.use(model, "first")
    assert all("second" not in v.path for v in model.trainable_variables)
    still = [array(v) for _, _, p in places(model, "second") for v in p.weights]
    with pytest.raises(ValueError, match="Unknown variable"):
        fit(model, X, Y)  # Adam has no slots for this adapter
    models.compiled(model)
    before = [array(v) for _, _, p in places(model, "first") for v in p.weights]
    fit(model, X, Y)
    now = [array(v) for _, _, p in places(model, "second") for v in p.weights]
    assert_close(now, still)
    after = [array(v) for _, _, p in places(model, "first") for v in p.weights]
    assert any(not np.array_equal(a, b) for a, b in zip(after, before, strict=True))
    model.trainable = False
    model.trainable = True
    assert all("second" not in v.path for v in model.trainable_variables)


@pytest.mark.slow
def test_switching_between_fits_retraces():
    model, _ = two()
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    y = np.ones((8, 3))
    both = [v for v in model.trainable_variables]
    adapters.use(model, "first")
    both += [v for v in model.trainable_variables if "first" in v.path]
    model.optimizer.build(both)
    for name in ("first", "second"):
        adapters.use(model, name)
        before = {v.path: array(v) for v in model.weights}
        fit(model, X, y)
        moved = [v.path for v in model.weights if (array(v) != before[v.path]).any()]
        assert moved and all(name in path or "logits" in path for path in moved)


def test_names_survive_a_reload(tmp_path):
    model, outputs = two()
    adapters.use(model, "first")
    model.save(tmp_path / "model.keras")
    there = fresh.load(tmp_path / "model.keras", X, compile=False)
    assert_close(there.outputs, outputs["first"])
    assert len(there.trainable) == len(model.trainable_variables)
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert list(adapters.attached(again)) == ["first", "second"]
    assert adapters.active(again) == {"first": 1.0}
    adapters.use(again, "second")
    assert_close(run(again, X), outputs["second"])


@pytest.mark.slow
def test_remove():
    model, outputs = two()
    adapters.use(model, "first")
    adapters.remove(model, "second")
    assert list(adapters.attached(model)) == ["first"]
    assert_close(run(model, X), outputs["first"])
    adapters.LoRA(rank=3).attach(model, "second")
    adapters.remove(model, "second")
    assert adapters.active(model) == {}
    adapters.remove(model, "first")
    assert adapters.attached(model) == {}
    assert np.array_equal(run(model, X), outputs["base"])
    assert not any("keras_transfer" in k.__module__ for k in models.classes(model))
    assert len(model.trainable_variables) == len(model.weights)


def test_a_weighted_sum_is_exact(tmp_path):
    model, _ = two()
    one, other = models.nested(), models.nested()
    for each in (one, other):
        each.set_weights(
            [
                array(v)
                for v in model.weights
                if "/first/" not in v.path and "/second/" not in v.path
            ]
        )
    deltas = {}
    for name, weight in (("first", 0.3), ("second", -0.7)):
        for path, layer, part in places(model, name):
            deltas[path] = deltas.get(path, 0) + weight * part.delta(layer)
    adapters.add_weighted(model, "sum", {"first": 0.3, "second": -0.7})
    assert adapters.active(model) == {"sum": 1.0}
    for path, layer, part in places(model, "sum"):
        assert part.rank == 4
        assert_close(part.delta(layer), deltas[path], 1e-6)
    y = run(model, X)
    model.save(tmp_path / "model.keras")
    assert_close(fresh.load(tmp_path / "model.keras", X, compile=False).outputs, y)
    fit(models.compiled(model), X, Y)
    assert np.abs(run(model, X) - y).max() > 0
    adapters.remove(model, "first")
    adapters.remove(model, "second")
    adapters.merge(model)


def test_a_sum_of_lora_and_rslora_is_exact():
    model = models.nested()
    adapters.LoRA(rank=2, alpha=5, rank_pattern={"query": 1}).attach(model, "one")
    adapters.RsLoRA(rank=4, alpha=3, targets="query").attach(model, "two")
    models.disturb(model)
    adapters.add_weighted(model, "sum", {"one": 0.5, "two": -2.0})
    parts = {(path, part.name): part for path, _, part in places(model)}
    for path, host, part in places(model, "sum"):
        wanted = 0.5 * parts[path, "one"].delta(host)
        if (path, "two") in parts:
            wanted = wanted - 2 * parts[path, "two"].delta(host)
        assert_close(part.delta(host), wanted, 1e-6)


def test_a_sum_keeps_the_tied_setting_of_its_summands():
    import keras_hub

    layer = keras_hub.layers.ReversibleEmbedding(10, 6, name="tokens")
    ids = keras.Input((4,), dtype="int32")
    model = keras.Model(ids, layer(layer(ids), reverse=True))
    x = np.arange(8).reshape(2, 4)
    for name in ("one", "two", "tied"):
        adapters.LoRA(rank=2, targets="tokens").attach(model, name)
    models.disturb(model)
    for _, _, part in places(model):
        part.tied = part.name == "tied"
    adapters.use(model, "one")
    y = array(model(x))
    adapters.add_weighted(model, "alone", {"one": 1.0})
    assert_close(model(x), y, 1e-6)
    with pytest.raises(ValueError, match="'one' and 'tied' cannot be .*tied"):
        adapters.add_weighted(model, "sum", {"one": 1.0, "tied": 1.0})
    adapters.add_weighted(model, "sum", {"one": 1.0, "two": 1.0})
    (_, _, part), *_ = places(model, "sum")
    assert part.tied is False and part.rank == 4


@pytest.mark.slow
def test_errors_name_the_present_adapters():
    model, outputs = two()
    classes = models.classes(model)
    for call in (adapters.use, adapters.remove):
        with pytest.raises(ValueError, match="no adapter 'third'.*first.*second"):
            call(model, "third")
    with pytest.raises(ValueError, match="already has an adapter 'first'"):
        adapters.LoRA(rank=2).attach(model, "first")
    for weights, match in (
        ({}, "empty"),
        ({"third": 1.0}, "no adapter"),
        ({"first": float("nan")}, "a finite number"),
    ):
        with pytest.raises(ValueError, match=match):
            adapters.add_weighted(model, "sum", weights)
    with pytest.raises(ValueError, match="already"):
        adapters.add_weighted(model, "first", {"second": 1.0})
    assert models.classes(model) == classes
    assert_close(run(model, X), outputs["second"])


def test_a_plain_model_has_no_adapters():
    model = models.nested()
    assert adapters.attached(model) == {} and adapters.active(model) == {}
    with adapters.disabled(model):
        pass
