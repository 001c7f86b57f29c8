"""An adapter's own layers: switching, training, files and sums."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.own_layer import OwnLayer
from keras_transfer.adapters.switching import own_places
from tests.adapters import models
from tests.contracts import fresh
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.compute import compiled

X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
Y = np.arange(12) % 2
NAMES = ("first", "second")


def lora():
    return adapters.LoRA(rank=2, targets="hidden")


def body():
    layers = [keras.layers.Dense(6, "tanh", name=f"hidden_{i}") for i in range(2)]
    return keras.Sequential([keras.Input((6,)), *layers], name="body")


def model_of(*head, units=2):
    """Return a model with these layers in its head, and always the same body."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6,)), body(), *head, keras.layers.Dense(units, name="logits")]
    )


def normalized():
    return model_of(keras.layers.BatchNormalization(name="norm"))


def recurrent():
    return model_of(
        keras.layers.Reshape((3, 2)), keras.layers.LSTM(4, name="lstm", unroll=True)
    )


class Counted(keras.layers.Dense):
    """A Dense that counts its calls in Python."""

    calls = 0

    def call(self, inputs, training=None):
        Counted.calls += 1
        return super().call(inputs)


class Composite(keras.layers.Layer):
    """A layer with its own weight, and a sublayer with an activation."""

    def build(self, shape):
        self.scales = [self.add_weight(shape=(3,), initializer="ones", name="scale")]
        self.hidden = keras.layers.Dense(3, "relu", name="inner")
        self.hidden.build(shape)

    def call(self, inputs):
        return self.hidden(inputs) * self.scales[0]


HEADS = {
    "dense": model_of,
    "normalized": normalized,
    "recurrent": recurrent,
    "composite": lambda: model_of(Composite(name="composite")),
}


def two(make, **kwargs):
    """Return a model with two trained adapters, and its outputs with each."""
    model = make()
    outputs = {"": array(run(model, X))}
    for name, labels in zip(NAMES, (Y, 1 - Y), strict=True):
        models.compiled(model, 0.05, run_eagerly=True)
        lora().attach(model, name, **kwargs)
        fit(model, X, labels)
        outputs[name] = array(run(model, X))
    return model, outputs


def values(layer):
    """Return the values of the layer's own weights by path."""
    parts = {id(v) for part in parts_of(layer) for v in part.weights}
    return {v.path: array(v) for v in layer.weights if id(v) not in parts}


@pytest.mark.parametrize("kind", HEADS)
class TestEachHead:
    def test_use_and_remove_switch_the_own_layer(self, kind):
        model, outputs = two(HEADS[kind])
        assert np.abs(outputs["first"] - outputs["second"]).max() > 1e-3
        for name in (*NAMES, "first"):
            adapters.use(model, name)
            assert_close(run(model, X), outputs[name], 1e-6)
            with adapters.disabled(model):
                assert_close(run(model, X), outputs[""], 1e-6)
        adapters.remove(model, "first")
        assert_close(run(model, X), outputs[""], 1e-6)
        adapters.use(model, "second")
        assert_close(run(model, X), outputs["second"], 1e-6)
        adapters.detach(model)
        assert_close(run(model, X), outputs[""], 1e-6)

    def test_merge_and_unmerge(self, kind):
        model, outputs = two(HEADS[kind])
        adapters.merge(model)
        assert not any("keras_transfer" in k.__module__ for k in models.classes(model))
        assert_close(run(model, X), outputs["second"], 1e-5)
        adapters.unmerge(model)
        for name in NAMES:
            adapters.use(model, name)
            assert_close(run(model, X), outputs[name], 1e-6)

    @pytest.mark.slow
    def test_keras_files_and_adapter_files_contain_it(self, kind, tmp_path):
        custom = {"Composite": Composite}
        model, outputs = two(HEADS[kind])
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras", custom_objects=custom)
        paths = models.trained_paths(model)
        assert models.trained_paths(again) == paths
        for name in NAMES:
            adapters.use(again, name)
            assert_close(run(again, X), outputs[name], 1e-6)
            kt.save_adapter(model, tmp_path / f"{name}.safetensors", name=name)
        other = HEADS[kind]()
        for name in NAMES:
            kt.load_adapter(other, tmp_path / f"{name}.safetensors")
        for name in NAMES:
            adapters.use(other, name)
            assert_close(run(other, X), outputs[name], 1e-6)


@pytest.mark.slow
def test_functions_traced_for_inference_stay_valid():
    model, outputs = two(model_of)
    traced = compiled(model, jit_compile=False)
    assert_close(traced(X), outputs["second"], 1e-6)
    adapters.use(model, "first")
    assert_close(traced(X), outputs["first"], 1e-6)
    assert_close(model.predict(X, verbose=0), outputs["first"], 1e-6)
    function = model.predict_function
    with adapters.disabled(model):
        assert_close(traced(X), outputs[""], 1e-6)
        assert_close(model.predict(X, verbose=0), outputs[""], 1e-6)
        assert model.predict_function is function
    adapters.remove(model, "first")
    assert_close(traced(X), outputs[""], 1e-6)
    adapters.detach(model)
    assert_close(traced(X), outputs[""], 1e-6)


@pytest.mark.slow
def test_only_the_batch_norm_in_use_updates_its_averages():
    model, _ = two(normalized)
    norm = model.get_layer("norm")
    base = values(norm)
    first, second = own_norms(model)
    adapters.use(model, "first")
    fit(models.compiled(model, 0.05, run_eagerly=True), X + 1, Y)
    assert_close(list(values(norm).values()), list(base.values()))
    now_first, now_second = own_norms(model)
    assert all(np.array_equal(now_second[name], second[name]) for name in second)
    assert not any(np.array_equal(now_first[name], first[name]) for name in first)
    assert len(first) == 4


def own_norms(model):
    """Return the values of the adapters' own normalizations, by name."""
    return [
        {name: array(v) for name, v in part.named_weights.items()}
        for path, _, part in own_places(model)
        if path.endswith("norm")
    ]


@pytest.mark.slow
def test_training_computes_only_the_layer_in_use():
    model = keras.Sequential([keras.Input((6,)), body(), Counted(2, name="logits")])
    for name in NAMES:
        lora().attach(model, name)
    models.compiled(model).train_on_batch(X, Y)
    model.make_train_function(force=True)
    Counted.calls = 0
    model.train_on_batch(X, Y)
    assert Counted.calls == 1


def test_a_batch_norm_of_another_adapter_leaves_the_base_frozen():
    model = normalized()
    lora().attach(model, "first")
    lora().attach(model, "second", train=["logits"])
    norm = model.get_layer("norm")
    before = arrays(norm.weights)
    fit(models.compiled(model, 0.05, run_eagerly=True), X + 1, Y)
    assert_close(norm.weights, before)
    model.trainable = False
    adapters.use(model, "first")
    model.trainable = False
    before = arrays(norm.weights)
    model(X + 1, training=True)
    assert_close(norm.weights, before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_training_within_disabled_does_not_train_the_adapter():
    model, outputs = two(normalized)
    fit(models.compiled(model, 0.0), X, Y)
    function, norm = model.train_function, model.get_layer("norm")
    outputs, before = run(model, X), arrays(norm.weights)
    with adapters.disabled(model):
        fit(model, X, Y)
        assert model.train_function is not function
    assert model.train_function is function
    # The base's own BatchNormalization was used, and it is frozen.
    assert_close(norm.weights, before)
    assert_close(run(model, X), outputs)


def test_loading_base_weights_keeps_trained_own_layers(tmp_path):
    model, other = model_of(), model_of()
    for variable in other.weights:
        variable.assign(variable + 0.5)
    other.save_weights(tmp_path / "base.weights.h5")
    lora().attach(model, "fresh")
    lora().attach(model, "learned")
    models.disturb_head(model, "learned")
    learned = [array(p.named_weights["kernel"]) for _, _, p in own_places(model)][1]
    model.load_weights(tmp_path / "base.weights.h5")
    fresh_one, learned_one = (p for _, _, p in own_places(model))
    assert_close(fresh_one.named_weights["kernel"], other.layers[-1].kernel)
    assert_close(learned_one.named_weights["kernel"], learned)
    adapters.use(model, "fresh")
    assert_close(run(model, X), run(other, X), 1e-6)


def test_a_sum_of_heads_adds_their_changes():
    model, outputs = two(model_of)
    base = array(model.layers[-1].kernel)
    own = {p.name: array(p.named_weights["kernel"]) for _, _, p in own_places(model)}
    adapters.add_weighted(model, "same", {"first": 1.0})
    assert_close(run(model, X), outputs["first"], 1e-5)
    weights = {"first": 0.5, "second": 0.7}
    adapters.add_weighted(model, "sum", weights)
    wanted = base + sum(w * (own[name] - base) for name, w in weights.items())
    (found,) = (p for _, _, p in own_places(model, "sum"))
    assert_close(found.named_weights["kernel"], wanted, 1e-6)


def test_heads_with_different_numbers_of_outputs(tmp_path):
    outputs = {}
    for units, name in ((2, "first"), (3, "second")):
        model = model_of(units=units)
        lora().attach(model, name)
        fit(models.compiled(model, 0.05), X, np.arange(12) % units, epochs=2)
        outputs[name] = model.predict(X, verbose=0)
        kt.save_adapter(model, tmp_path / f"{name}.safetensors")
    model = model_of()
    outputs["base"] = model.predict(X, verbose=0)
    for name in NAMES:
        kt.load_adapter(model, tmp_path / f"{name}.safetensors")
    check_widths(model, outputs)
    adapters.use(model, "second")
    fit(models.compiled(model, 0.0), X, np.arange(12) % 3)
    model.save(tmp_path / "model.keras")
    there = fresh.load(tmp_path / "model.keras", X)
    assert_close(there.outputs, outputs["second"], 1e-6)
    again = kt.resume(tmp_path / "model.keras")
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    check_widths(again, outputs)
    adapters.use(model, "second")
    with pytest.raises(ValueError, match="kt.save_adapter and load it into a model"):
        adapters.merge(model)
    with pytest.raises(ValueError, match="'first': 2, 'second': 3"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})
    adapters.add_weighted(model, "same", {"second": 1.0})
    assert_close(model.predict(X, verbose=0), outputs["second"], 1e-6)
    adapters.detach(model)
    assert_close(model.predict(X, verbose=0), outputs["base"])


def check_widths(model, outputs):
    """Check that each adapter gives its own outputs in compiled functions."""
    for name in (*NAMES, "first"):
        adapters.use(model, name)
        assert_close(model.predict(X, verbose=0), outputs[name], 1e-6)
        with adapters.disabled(model):
            assert_close(model.predict(X, verbose=0), outputs["base"], 1e-6)
        assert_close(model.predict(X, verbose=0), outputs[name], 1e-6)


def test_weights_have_the_regularizers_and_constraints_of_the_host():
    dense = keras.layers.Dense(2, kernel_regularizer="l2", bias_constraint="non_neg")
    model = keras.Sequential([keras.Input((6,)), body(), dense])
    y = run(model, X)
    penalty = float(sum(model.losses))
    lora().attach(model)
    assert_close(run(model, X), y)
    (part,) = (each for each in parts_of(dense) if isinstance(each, OwnLayer))
    kernel, bias = part.named_weights.values()
    assert kernel.regularizer is not None and bias.constraint is not None
    assert np.isclose(float(sum(model.losses)), penalty)


def test_layer_groups_put_own_layers_into_the_head():
    model = model_of()
    lora().attach(model)
    groups = kt.layer_groups(model)
    (part,) = (p for _, _, p in own_places(model))
    for variable in part.named_weights.values():
        assert groups.names[groups.position(variable)] == "head"
    model.compile(
        kt.optimizers.discriminative(
            keras.optimizers.Adam(0.1), model, layer_decay=1e-9
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    before = {v.path: array(v) for v in model.trainable_variables}
    fit(model, X, Y)
    moved = {
        v.path: np.abs(v - before[v.path]).max() for v in model.trainable_variables
    }
    assert all((step > 1e-3) == ("logits" in path) for path, step in moved.items())
