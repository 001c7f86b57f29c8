"""WeightDropLSTM: NumPy's LSTM with dropped weights, and Keras's LSTM without."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.layer_contract import LayerContract

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")


class TestWeightDropLSTM(LayerContract):
    def make(self):
        return kt.layers.WeightDropLSTM(3, 0.0, return_sequences=True)

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 5, 4)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(x, kernel, recurrent_kernel, bias):
    """Return the outputs of an LSTM at all positions."""
    h = c = np.zeros((len(x), recurrent_kernel.shape[0]))
    outputs = []
    for t in range(x.shape[1]):
        z = x[:, t] @ kernel + h @ recurrent_kernel + bias
        i, f, g, o = np.split(z, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def test_training_is_an_lstm_with_the_same_dropped_weights_at_all_positions():
    layer = kt.layers.WeightDropLSTM(6, 0.4, return_sequences=True, seed=7)
    layer.build(X.shape)
    kernel, recurrent_kernel, bias = arrays(layer.weights)
    seeds = keras.random.SeedGenerator(7)
    for _ in range(2):  # each batch draws another mask
        dropped = array(keras.random.dropout(recurrent_kernel, 0.4, seed=seeds))
        assert 0 < np.mean(dropped == 0) < 1
        expected = numpy_lstm(X, kernel, dropped, bias)
        assert_close(layer(X, training=True), expected, 1e-5)
    assert_close(layer(X), numpy_lstm(X, kernel, recurrent_kernel, bias), 1e-5)


def test_without_dropout_it_is_the_lstm_of_keras():
    layer = kt.layers.WeightDropLSTM(6, 0.5, return_state=True)
    plain = keras.layers.LSTM(6, return_state=True)
    state = [np.ones((2, 6), "float32"), -np.ones((2, 6), "float32")]
    layer(X), plain(X)
    plain.set_weights(layer.get_weights())
    paths = [
        [v.path.partition("/")[2] for v in each.weights] for each in (layer, plain)
    ]
    assert paths[0] == paths[1]
    for kwargs in ({}, {"initial_state": state}, {"mask": np.ones((2, 5), bool)}):
        assert_close(layer(X, **kwargs), plain(X, **kwargs), 1e-6)


def test_the_weights_are_not_changed_even_by_an_error():
    def broken(x):
        raise ValueError("broken activation")

    layer = kt.layers.WeightDropLSTM(6, 0.5)
    layer(X, training=True)
    before = array(layer.cell.recurrent_kernel)
    layer.cell.activation = broken
    with pytest.raises(ValueError, match="broken activation"):
        layer(X, training=True)
    assert isinstance(layer.cell.recurrent_kernel, keras.Variable)
    assert_close(layer.cell.recurrent_kernel, before)


def test_dropped_weights_get_no_gradient():
    layer = kt.layers.WeightDropLSTM(4, 0.5, seed=3)
    model = keras.Sequential([keras.Input((5, 4)), layer, keras.layers.Dense(1)])
    before = array(layer.cell.recurrent_kernel)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.train_on_batch(X, np.ones((2, 1)))
    same = np.mean(array(layer.cell.recurrent_kernel) == before)
    assert 0.2 < same < 0.8


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "half"])
def test_rate_out_of_range_raises(rate):
    with pytest.raises(ValueError, match="weight_dropout"):
        kt.layers.WeightDropLSTM(3, rate)


def test_an_adapter_is_added_once_after_the_dropout():
    lstm = kt.layers.WeightDropLSTM(3, 0.5, return_sequences=True, name="l", seed=7)
    model = keras.Sequential([keras.Input((5, 4)), lstm])
    kernel, recurrent_kernel, bias = arrays(lstm.weights)
    kt.adapters.LoRA(rank=2, targets="l").attach(model)
    pairs = {v.name: v for v in model.weights if "lora" in v.name}
    for variable in pairs.values():
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    a, b, c, d = (
        array(pairs[name])
        for name in ("lora_a", "lora_b", "recurrent_lora_a", "recurrent_lora_b")
    )
    scaling = kt.adapters.attached(model)["default"].get_config()["alpha"] / 2
    seeds = keras.random.SeedGenerator(7)
    dropped = array(keras.random.dropout(recurrent_kernel, 0.5, seed=seeds))
    found = lstm(X, training=True)
    sums = kernel + scaling * a @ b, dropped + scaling * c @ d
    assert_close(found, numpy_lstm(X, *sums, bias), 1e-5)
