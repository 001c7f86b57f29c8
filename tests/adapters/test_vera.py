"""VeRA: the contract of recipes, its formula by hand, and its shared matrices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.adapter_contract import small
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import exports


class TestVeRA(AdapterContract):
    learns = {"vera_lambda_d", "vera_lambda_b"}
    parameters = 2 * (8 + 16)  # query and value: rank + outputs
    no_images = "no layer that VeRA can adapt"

    def recipe(self, **kwargs):
        return adapters.VeRA(rank=8, **kwargs)


# The first row of A and the first column of B for seed 0, before scaling.
GOLDEN_A = [-0.6985654830932617, -0.6089145541191101]
GOLDEN_B = [-0.7740113735198975, -0.1643422693014145]


def shared(model):
    """Return the layers that contain the two matrices, without duplicates."""
    return list({id(p.projection): p.projection for _, _, p in places(model)}.values())


def matrices(seed, rank, inputs, outputs):
    """Return A and B as in the paper, Kaiming uniform, from NumPy's generator."""
    a, b = (
        2 * np.random.RandomState([seed, i]).random_sample((size, rank)) - 1
        for i, size in enumerate((inputs, outputs))
    )
    return a * np.sqrt(6 / inputs), b.T * np.sqrt(6 / rank)


def sequential(widths=(5, 3)):
    model = keras.Sequential([keras.Input((4,))])
    for i, width in enumerate(widths):
        model.add(keras.layers.Dense(width, "tanh", name=f"layer_{i}"))
    return model


def test_layers_of_several_sizes_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    model = sequential()
    adapters.VeRA(rank=7, targets="layer", seed=3).attach(model)
    parts = [part for _, _, part in places(model)]
    assert_close(parts[0].vera_lambda_d, np.full(7, 0.1, "float32"))
    assert_close(parts[0].vera_lambda_b, np.zeros(5, "float32"))
    models.disturb(model, 1.0)
    expected = x
    for layer, part in zip(model.layers, parts, strict=True):
        a, b = matrices(3, 7, layer.kernel.shape[0], layer.units)
        hidden = (
            expected @ a * array(part.vera_lambda_d) @ b * array(part.vera_lambda_b)
        )
        plain = expected @ array(layer.kernel) + array(layer.bias)
        expected = np.tanh(plain + hidden)
    assert_close(model(x), expected.astype("float32"), 1e-5)
    adapters.merge(model)
    assert_close(model(x), expected.astype("float32"), 1e-5)


def test_the_numbers_of_the_seed_never_change():
    # Files contain only the seed. If this fails, no saved file can be used.
    model = sequential((2,))
    adapters.VeRA(rank=2, targets="layer").attach(model)
    held = shared(model)[0]
    assert_close(held.a[0], np.array(GOLDEN_A, "float32"))
    assert_close(held.b[:, 0], np.array(GOLDEN_B, "float32"))


@pytest.mark.slow
def test_one_pair_for_all_layers_and_another_for_another_seed():
    model = models.nested()
    adapters.VeRA(rank=8, targets="all-linear").attach(model)
    held = shared(model)
    assert len(held) == 1
    assert held[0].a.shape == (32, 8) and held[0].b.shape == (8, 32)
    other = models.nested()
    adapters.VeRA(rank=8, seed=1).attach(other)
    small_a, large_a = shared(other)[0].a, held[0].a[:16]
    assert np.abs(small_a - large_a).max() > 0.1
    adapters.VeRA(rank=8).attach(models.nested(), "again")
    third = models.nested()
    adapters.VeRA(rank=8).attach(third)
    assert_close(shared(third)[0].a, large_a)  # the first rows of a larger matrix


@pytest.mark.slow
@pytest.mark.parametrize("make", [models.nested, models.flat])
def test_files_do_not_contain_the_matrices(make, tmp_path):
    model = make()
    adapters.VeRA(rank=4096, targets="all-linear").attach(model)
    models.disturb(model)
    model.save(tmp_path / "model.keras")
    size = (tmp_path / "model.keras").stat().st_size
    vectors = sum(array(part.vera_lambda_d).nbytes for _, _, part in places(model))
    assert size < vectors + 200_000 < array(shared(model)[0].a).nbytes
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(shared(again)) == 1
    assert_close([*shared(again)[0].weights], [*shared(model)[0].weights])
    x = models.tokens()
    assert_close(again(x), model(x))
    other = make()
    adapters.VeRA(rank=4096, targets="all-linear").attach(other)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_close(other(x), model(x))


def disturbed():
    model = sequential()
    adapters.VeRA(rank=8, targets="layer").attach(model)
    return models.disturb(model)


def test_groups_and_files_contain_the_matrices_once(tmp_path):
    model = disturbed()
    groups = kt.layer_groups(model)
    assert sum(group.num_parameters for group in groups) == sum(
        array(v).size for v in model.weights
    )
    assert len({v.path for v in model.weights if v.name in ("vera_a", "vera_b")}) == 2
    x = np.ones((3, 4), "float32")
    # Loading creates the layers one by one, the smaller layer first.
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(shared(again)) == 1
    assert_close(again(x), model(x))


@exports
def test_an_exported_model_computes_the_same(tmp_path):
    model, x = disturbed(), np.ones((3, 4), "float32")
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    assert_close(served.serve(x), model(x), 1e-6)


def test_a_rank_above_the_width_and_dropout():
    x = np.ones((1, 4), "float32")
    model = sequential((3,))
    adapters.VeRA(rank=64, dropout=0.5, targets="layer").attach(model)
    models.disturb(model, 1.0)
    assert_close(model(x), model(x))
    noisy = {array(model(x, training=True)).tobytes() for _ in range(8)}
    assert len(noisy) > 1


@pytest.mark.slow
def test_two_replicas_equal_one(strategy):
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    start = sequential().get_weights()

    def make():
        model = sequential()
        model.set_weights(start)
        adapters.VeRA(rank=8, targets="layer").attach(model)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        return model

    one = make()
    with strategy.scope():
        two = make()
    for model in (one, two):
        fit(model, x, np.ones((8, 3)), epochs=2)
    assert_close(two.get_weights(), one.get_weights(), 1e-5)


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(rank=0),
        dict(dropout=1.0),
        dict(initial=0.0),
        dict(initial=float("nan")),
        dict(seed=-1),
        dict(seed=2**32),
        dict(seed=1.5),
        dict(draw="torch"),
    ],
)
def test_numbers_out_of_range_raise(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))}="):
        adapters.VeRA(**kwargs)


@pytest.mark.slow
def test_matrices_as_in_peft_by_hand_and_after_reload(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    model = sequential()
    before = array(model(x))
    recipe = adapters.VeRA(rank=7, targets="layer", seed=3, draw="peft")
    assert adapters.VeRA(**recipe.get_config()).draw == "peft"
    recipe.attach(model)
    models.disturb(model)
    (a, b), parts = shared(model)[0].weights, [part for _, _, part in places(model)]
    assert array(a).shape == (5, 7) and array(b).shape == (7, 5)
    assert 0.9 < np.abs(array(a)).max() / np.sqrt(6 / 5) <= 1
    hidden, layers = x, [model.get_layer(f"layer_{i}") for i in (0, 1)]
    for layer, part in zip(layers, parts, strict=True):
        into, out = layer.kernel.shape
        left = array(a)[:into] * array(part.vera_lambda_d)
        delta = left @ (array(b)[:, :out] * array(part.vera_lambda_b))
        hidden = np.tanh(hidden @ (array(layer.kernel) + delta) + array(layer.bias))
    assert_close(model(x), hidden, 1e-6)
    assert np.abs(hidden - before).max() > 0.01
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again(x), model(x))


def test_there_is_no_weighted_sum():
    model = small()
    for name in ("first", "second"):
        adapters.VeRA(rank=8).attach(model, name)
    with pytest.raises(ValueError, match="no weighted sum"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})


def test_the_error_for_convolutional_networks_names_lora():
    layers = [keras.layers.Conv2D(4, 3, name=f"block_{i}_conv") for i in range(2)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, *head])
    with pytest.raises(ValueError, match="that VeRA can adapt.*; LoRA adapts conv"):
        adapters.VeRA().attach(model)
