"""AdaLoRA: the contract of recipes, its formula and penalty by hand, its ranks."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import tensorflow_only
from tests.export import test_many_adapters as many

SCALING = 5 / 3  # alpha / initial_rank


class TestAdaLoRA(AdapterContract):
    learns = {"adalora_p", "adalora_lambda", "adalora_q"}
    parameters = 2 * (16 * 2 + 2 + 2 * 16)  # query and value, rank 2

    def recipe(self, **kwargs):
        return adapters.AdaLoRA(rank=1, initial_rank=2, **kwargs)

    def callbacks(self):
        return [kt.callbacks.RankBudget(4, interval=1, verbose=0)]


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def adapted(layer, x, **kwargs):
    """Return a model of one layer with a disturbed AdaLoRA, and its part."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.set_weights([random(*v.shape) for v in layer.weights])
    recipe = adapters.AdaLoRA(2, 3, alpha=5, targets=layer.name, **kwargs)
    recipe.attach(model)
    models.disturb(model)
    return model, next(places(model))[2]


def change(part):
    """Return P diag(lambda) Q, as a matrix of inputs and outputs."""
    p, values, q = (array(part.named_weights[name]) for name in part.named_weights)
    return SCALING * p.reshape(-1, 3) @ np.diag(values) @ q


@pytest.mark.parametrize(
    "kind, arguments, features, order",
    [
        (keras.layers.Dense, (5, "tanh"), (4,), None),
        (keras.layers.EinsumDense, ("abcd,dec->aeb", (4, 5)), (5, 2, 3), "dce"),
        (keras.layers.Conv2D, (4, 3), (6, 6, 2), None),
    ],
)
def test_layers_by_hand(kind, arguments, features, order):
    x = random(2, *features)
    model, part = adapted(kind(*arguments, name="it"), x)
    kernel, new = array(model.layers[0].kernel), change(part)
    if order:  # the axes of the inputs, then those of the outputs
        letters = arguments[0].split(",")[1][:3]
        size = dict(zip(letters, kernel.shape, strict=True))
        new = np.einsum(f"{order}->{letters}", new.reshape([size[k] for k in order]))
    plain = keras.Sequential([keras.Input(x.shape[1:]), kind(*arguments)])
    weights = [random(*v.shape) for v in plain.weights]
    weights[0] = kernel + new.reshape(kernel.shape)
    plain.set_weights(weights)
    assert_close(model(x), plain(x), 1e-4)
    adapters.merge(model)
    assert_close(model.layers[0].kernel, weights[0], 1e-5)


def test_the_penalty_is_the_mean_of_the_distances_from_orthogonal():
    model = keras.Sequential([keras.Input((4,))])
    for name in ("a", "b"):
        model.add(keras.layers.Dense(4, name=name))
    adapters.AdaLoRA(2, 3, targets=["a", "b"], orthogonality=0.8).attach(model)
    models.disturb(model)
    norms = []
    for _, _, part in places(model):
        p, q = array(part.adalora_p), array(part.adalora_q)
        norms += [np.linalg.norm(g - np.eye(3)) for g in (p.T @ p, q @ q.T)]
    assert_close(sum(model.losses), np.float32(0.8 * np.mean(norms)), 1e-5)
    adapters.LoRA(rank=1, targets=["a"]).attach(model, "other")
    assert model.losses == []  # what does not train has no penalty


def test_orthogonal_vectors_have_no_penalty_and_a_finite_gradient():
    model, part = adapted(keras.layers.Dense(3, name="it"), random(2, 4))
    part.adalora_p.assign(np.eye(4, 3))
    part.adalora_q.assign(np.eye(3))
    assert abs(sum(array(each) for each in model.losses)) < 1e-5
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    budget = kt.callbacks.RankBudget(4, verbose=0)
    fit(model, random(4, 4), random(4, 3), callbacks=[budget])
    assert all(np.isfinite(array(v)).all() for v in model.trainable_variables)


def test_the_printed_ranks_are_those_of_the_merged_change(capsys):
    model = keras.Sequential([keras.Input((6,))])
    for name in ("a", "b"):
        model.add(keras.layers.Dense(6, name=name))
    adapters.AdaLoRA(1, 3, targets="all-linear").attach(model, verbose=0)
    assert adapters.ranks(model) == {"a": 0, "b": 0}
    before = [array(layer.kernel) for layer in model.layers]
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    x = random(16, 6)
    budget = kt.callbacks.RankBudget(interval=1)
    fit(model, x, x[:, ::-1].copy(), epochs=4, callbacks=[budget])
    found = adapters.ranks(model)
    assert sum(found.values()) == 2
    text = f"keeps 2 of 6 triplets: a {found['a']}, b {found['b']}"
    assert text in capsys.readouterr().out
    adapters.merge(model)
    for layer, kernel in zip(model.layers, before, strict=True):
        moved = np.linalg.matrix_rank(array(layer.kernel) - kernel, tol=1e-5)
        assert moved == found[layer.name]


def test_an_adapter_file_keeps_the_ranks(tmp_path):
    model, other = (models.nested(num_layers=1) for _ in range(2))
    other.set_weights(model.get_weights())
    adapters.AdaLoRA(1, 3).attach(model)
    models.disturb(model)
    for _, _, part in places(model):
        part.adalora_lambda.assign([0.0, 0.5, 0.0])
    kt.save_adapter(model, tmp_path / "it.safetensors")
    kt.load_adapter(other, tmp_path / "it.safetensors")
    assert set(adapters.ranks(other).values()) == {1}
    x = models.tokens()
    assert_close(other(x), model(x))


def test_ranks_of_another_technique_raise():
    model = models.nested(num_layers=1)
    adapters.LoRA(rank=2).attach(model)
    with pytest.raises(ValueError, match="no AdaLoRA in use"):
        adapters.ranks(model)
    with pytest.raises(ValueError, match="no AdaLoRA 'default'"):
        adapters.ranks(model, "default")
    with pytest.raises(ValueError, match="no adapter 'other'"):
        adapters.ranks(model, "other")


@pytest.mark.parametrize(
    "kwargs, match",
    [
        (dict(rank=0), "rank=0"),
        (dict(rank=4, initial_rank=3), "initial_rank=3 is below rank=4"),
        (dict(initial_rank=0), "initial_rank=0"),
        (dict(alpha=0), "alpha=0"),
        (dict(dropout=1.0), "dropout="),
        (dict(orthogonality=-0.1), "orthogonality=-0.1"),
    ],
)
def test_numbers_out_of_range_raise(kwargs, match):
    with pytest.raises(ValueError, match=match):
        adapters.AdaLoRA(**kwargs)


def test_a_rank_above_the_width_raises():
    model = models.nested(num_layers=1)
    with pytest.raises(ValueError, match="rank=17 is too large"):
        adapters.AdaLoRA(rank=2, initial_rank=17, targets="query").attach(model)
    assert adapters.attached(model) == {}


def test_there_is_no_weighted_sum():
    model = models.nested(num_layers=1)
    for name in ("first", "second"):
        adapters.AdaLoRA(rank=2).attach(model, name)
    with pytest.raises(ValueError, match="not linear"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})


@tensorflow_only("a graph with many adapters is TensorFlow's")
def test_several_adapters_are_served_from_one_graph():
    model = many.around(keras.layers.Dense(4, name="hidden"), (6,))
    many.adapted(model, ranks=(2, 1, 1), kind=adapters.AdaLoRA)
    x = random(len(many.WHO), 6)
    found = many.function_of(model)(x, many.WHO)
    assert_close(found, many.merged_rows(model, x, many.WHO), 1e-5)
