"""Common forms of labels and weights, in a whole run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.data.class_names import class_names_of
from tests import tiny
from tests.contracts.compare import assert_close

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ONE_HOT = keras.losses.CategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
WORDS = ["eel", "cat", "dog"]
NAMES = ("cat", "dog", "eel")
X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
Y = np.arange(12) % 3


def tuned(data, *, loss=SPARSE, outputs=3, strategy="full", **settings):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), tiny.mlp(widths=(5, 4)), keras.layers.Dense(outputs)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    settings = dict(epochs=2, strategy=strategy, verbose=0) | settings
    return model, kt.fine_tune(model, data, **settings)


@pytest.mark.slow
def test_names_get_numbers_in_alphabetical_order_and_are_stored():
    numbers = np.array([NAMES.index(WORDS[y]) for y in Y])
    words = [WORDS[y] for y in Y]
    plain, history = tuned(
        (X, numbers), class_weight={1: 2.0}, validation_data=(X, numbers)
    )
    assert history.class_names is None and class_names_of(plain) is None
    batches = tf.data.Dataset.from_tensor_slices((X, words)).batch(5)
    named, history = tuned((X, words), class_weight={"dog": 2}, validation_data=batches)
    assert history.class_names == class_names_of(named) == NAMES
    assert_close(named.get_weights(), plain.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize("loss, outputs", [(ONE_HOT, 3), (BINARY, 1)])
def test_names_work_with_each_classification_loss(loss, outputs):
    words = np.array(WORDS)[Y] if outputs > 1 else np.array(["spam", "ham"])[Y % 2]
    numbers = np.unique(words, return_inverse=True)[1]
    labels = np.eye(3)[numbers] if outputs > 1 else numbers
    plain, _ = tuned((X, labels), loss=loss, outputs=outputs)
    named, history = tuned((X, words), loss=loss, outputs=outputs)
    assert history.class_names == tuple(np.unique(words))
    assert_close(named.get_weights(), plain.get_weights())


@pytest.mark.slow
def test_a_second_run_keeps_the_numbers_of_the_first():
    model, _ = tuned((X, [WORDS[y] for y in Y]))
    model.compile(keras.optimizers.Adam(0.01), SPARSE, jit_compile=False)
    fewer = (X, ["eel", "dog"] * 6)
    with pytest.warns(UserWarning, match="1 of 3 classes have no label: 0"):
        history = kt.fine_tune(model, fewer, epochs=1, strategy="full", verbose=0)
    assert history.class_names == NAMES


def test_class_names_of_a_dataset_are_stored():
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(6)
    # As in keras.utils.image_dataset_from_directory.
    batches.class_names = list(NAMES)
    model, history = tuned(batches)
    assert history.class_names == class_names_of(model) == NAMES


def test_names_with_a_regression_loss_raise():
    with pytest.raises(ValueError, match="The labels are not numbers"):
        tuned((X, [WORDS[y] for y in Y]), loss="mse", outputs=1)


@pytest.mark.slow
def test_all_kinds_of_containers_give_the_same_result():
    yes, weight = Y > 1, {0: 1.0, 1: 3.0}
    expected, _ = tuned((X, yes * 1), outputs=2, class_weight=weight)
    for data, weights in [
        ((X.tolist(), list(np.int8(yes))), [1, 3]),
        ((X, yes), {np.False_: 1, np.True_: np.float32(3)}),
        ((X, yes.astype(object)), np.array([1, 3])),
        ((X, yes[:, None] * 1.0), weight),
        ((tf.constant(X), [tf.constant(int(each)) for each in yes]), weight),
    ]:
        model, _ = tuned(data, outputs=2, class_weight=weights)
        assert_close(model.get_weights(), expected.get_weights())


def test_pandas_tables_and_columns():
    pandas = pytest.importorskip("pandas")
    index = np.arange(100, 88, -1)
    table, column = (
        pandas.DataFrame(X, index),
        pandas.Series([WORDS[y] for y in Y], index),
    )
    weight = pandas.Series(np.ones(12), index)
    expected, _ = tuned((X, list(column), np.ones(12)))
    model, history = tuned((table, column, weight), validation_data=(table, column))
    assert history.class_names == NAMES
    assert_close(model.get_weights(), expected.get_weights())
