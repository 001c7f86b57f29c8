"""Pairs of recurrent cells take effect in fused and in plain computations."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import tensorflow_only

L = keras.layers
LAYERS = {
    "LSTM": lambda: L.LSTM(6, return_sequences=True),
    "LSTM, not fused": lambda: L.LSTM(6, use_cudnn=False, unroll=True),
    "GRU": lambda: L.GRU(6),
    "GRU, old": lambda: L.GRU(6, reset_after=False, implementation=1),
    "SimpleRNN": lambda: L.SimpleRNN(6),
    "stacked": lambda: L.RNN([L.LSTMCell(3), L.GRUCell(4)]),
    "two ways": lambda: L.Bidirectional(L.LSTM(6)),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)
NAMES = {"lora_a", "lora_b", "recurrent_lora_a", "recurrent_lora_b"}


def made(kind):
    """Return a model of one layer of this kind, and examples of different lengths."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((5, 4)), L.Masking(), LAYERS[kind]()]
    x = np.random.default_rng(0).normal(size=(4, 5, 4)).astype("float32")
    x[::2, -2:] = 0
    return keras.Sequential(layers), x


@each_layer
def test_it_starts_as_the_layer_and_folds_into_it(kind, tmp_path):
    model, x = made(kind)
    y, classes = array(model(x)), models.classes(model)
    adapters.LoRA(rank=2, alpha=3, targets="cell").attach(model, "one")
    assert_close(model(x), y)
    assert {v.name for v in model.trainable_weights} == NAMES
    models.disturb(model)
    changed = array(model(x))
    assert np.abs(changed - y).max() > 0.1
    with adapters.disabled(model):
        assert_close(model(x), y)
    kt.save_adapter(model, tmp_path / "one.safetensors")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    # On JAX, two calls of a cell may round differently.
    assert_close(again(x), changed, 1e-6)
    adapters.merge(model)
    assert models.classes(model) == classes
    assert_close(model(x), changed, 2e-6)
    adapters.unmerge(model)
    adapters.detach(model)
    assert_close(model(x), y)
    kt.load_adapter(model, tmp_path / "one.safetensors")
    assert_close(model(x), changed)


def test_an_lstm_equals_a_plain_lstm_with_the_summed_kernels():
    model, x = made("LSTM")
    layer = model.layers[-1]
    adapters.LoRA(rank=2, alpha=3, targets=[layer]).attach(model)
    models.disturb(model)
    (path, cell, part), *_ = places(model)
    assert cell is layer.cell and path.endswith("lstm_cell")
    plain, _ = made("LSTM")
    for name, begin in (("kernel", "lora"), ("recurrent_kernel", "recurrent_lora")):
        a, b = (array(getattr(part, f"{begin}_{x}")) for x in "ab")
        kernel = getattr(plain.layers[-1].cell, name)
        kernel.assign(kernel + 1.5 * (a @ b))
    assert_close(model(x), plain(x), 2e-6)
    assert [tuple(v.shape) for v in part.named_weights.values()] == [
        (4, 2),
        (2, 24),
        (6, 2),
        (2, 24),
    ]


@each_layer
def test_a_weighted_sum_adds_up_the_kernels(kind):
    model, x = made(kind)
    for name, rank in (("one", 2), ("two", 1)):
        adapters.LoRA(rank=rank, alpha=rank, targets="cell").attach(model, name)
    models.disturb(model, 0.1)
    adapters.add_weighted(model, "sum", {"one": 0.5, "two": 2.0})
    parts = {(id(host), part.name): part for _, host, part in places(model)}
    for _, host, part in places(model, "sum"):
        for name in ("kernel", "recurrent_kernel"):
            one, two = (parts[id(host), x] for x in ("one", "two"))
            wanted = [0.5 * folded(host, one, name), 2 * folded(host, two, name)]
            assert_close(folded(host, part, name), sum(wanted), 1e-6)


def folded(host, part, name):
    """Return the part's addition to a kernel if its gate is 1."""
    gate = float(array(part.gate))
    part.gate.assign(1.0)
    weights = {x: np.zeros(1) for x in ("kernel", "recurrent_kernel")}
    part.fold(host, weights)
    part.gate.assign(gate)
    return weights[name]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LSTM, not fused", "GRU", "two ways"])
def test_it_trains_the_same_under_xla_and_in_half_precision(kind, tmp_path):
    values = {}
    for xla in (False, True):
        model, x = made(kind)
        adapters.LoRA(rank=2, targets="cell").attach(model)
        settings = dict(jit_compile=xla, run_eagerly=not xla)
        model.compile(keras.optimizers.SGD(0.1), "mse", **settings)
        y = np.ones((4, *model.output_shape[1:]))
        before = arrays(model.weights)
        fit(model, x, y, epochs=2)
        values[xla] = arrays(model.weights)
        moved = [
            v.name
            for v, old in zip(model.weights, before, strict=True)
            if not np.array_equal(array(v), old)
        ]
        assert set(moved) == NAMES
    assert_close(values[True], values[False], 1e-5)
    model.export(tmp_path / "served", verbose=False)
    full = array(model(x))
    keras.config.set_dtype_policy("mixed_bfloat16")
    half, _ = made(kind)
    adapters.LoRA(rank=2, targets="cell").attach(half)
    half.set_weights(values[True])
    assert_close(np.asarray(half(x)).astype("float32"), full, 0.1)


def test_a_cell_raises_for_adapters_that_do_not_support_it():
    model, _ = made("LSTM")
    with pytest.raises(ValueError, match="of the class LSTM.*, which DoRA cannot"):
        adapters.DoRA(rank=2, targets="lstm").attach(model)


@tensorflow_only("a graph with many adapters is TensorFlow's")
def test_a_cell_cannot_be_exported_with_other_adapters(tmp_path):
    model, _ = made("LSTM")
    adapters.LoRA(rank=2, targets="lstm").attach(model)
    with pytest.raises(ValueError, match="does not add a product"):
        kt.export_serving(model, tmp_path / "served", adapters=["default"])
