"""The examples of a pilot: folds by class, data of all kinds, and many examples."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot import held_out
from keras_transfer.fine_tuning.pilot.held_out import classes_of
from keras_transfer.fine_tuning.pilot.held_out import FOLDS
from keras_transfer.fine_tuning.pilot.held_out import folds
from keras_transfer.fine_tuning.pilot.held_out import read_examples
from keras_transfer.fine_tuning.run import Call
from keras_transfer.fine_tuning.run import Run
from tests import tiny

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SETTINGS = dict(
    batch_size=None, callbacks=None, class_weight=None, validation_freq=1, verbose=0
)


@pytest.mark.parametrize("classes", [None, np.arange(50) % 3])
def test_folds_are_disjoint_and_complete(classes):
    found = folds(classes, 50, 0)
    assert len(found) == FOLDS
    for fold in found:
        rows = np.concatenate([fold.train, fold.held_out])
        assert sorted(rows) == list(range(50))
        assert len(fold.held_out) in (12, 13)
    held = np.concatenate([fold.held_out for fold in found])
    assert sorted(held) == list(range(50))
    again, other = folds(classes, 50, 0), folds(classes, 50, 1)
    assert all(map(np.array_equal, found[0], again[0]))
    assert not all(map(np.array_equal, found[0], other[0]))


def test_each_fold_has_its_share_of_each_class():
    classes = np.repeat([0, 1, 2], [80, 20, 8])
    for fold in folds(classes, 108, 0):
        counts = np.bincount(classes[fold.held_out])
        assert list(counts) == [20, 5, 2]


def test_trials_know_each_class():
    classes = np.repeat([0, 1, 2, 3], [40, 3, 2, 1])
    found = folds(classes, 46, 0)
    for fold in found:
        assert set(classes[fold.train]) == {0, 1, 2, 3}
    held = [classes[row] for fold in found for row in fold.held_out]
    assert [held.count(each) for each in range(4)] == [40, 2, 1, 0]


def run_of(data, loss=SPARSE, outputs=3, model=None, **settings):
    if model is None:
        below = tiny.mlp(widths=(5, 4))
        model = keras.Sequential(
            [keras.Input((6,)), below, keras.layers.Dense(outputs)]
        )
    model.compile("adam", loss, jit_compile=False)
    call = Call(model, data, None, 3, None, (), SETTINGS | settings)
    return Run.of(call, Candidate("auto"))


def arrays(count=12):
    x = np.arange(count * 6, dtype="float32").reshape(count, 6)
    return x, np.arange(count) % 3


@pytest.mark.parametrize(
    "loss, outputs, labels, expected",
    [
        (SPARSE, 3, arrays()[1], arrays()[1]),
        (SPARSE, 3, arrays()[1][:, None], arrays()[1]),
        ("categorical_crossentropy", 3, np.eye(3)[arrays()[1]], arrays()[1]),
        ("binary_crossentropy", 1, np.arange(12) % 2, np.arange(12) % 2),
        ("binary_crossentropy", 3, np.eye(3)[arrays()[1]], None),
        ("mse", 1, np.arange(12.0), None),
    ],
)
def test_the_class_of_each_example(loss, outputs, labels, expected):
    found = classes_of(run_of((arrays()[0], labels), loss, outputs), labels)
    assert (found is None) if expected is None else (found == expected).all()


class Batches(keras.utils.PyDataset):
    """Count how often batches are read."""

    reads = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.reads += 1
        return tuple(each[4 * index :][:4] for each in arrays())


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_data_of_each_kind_are_read_in_one_pass():
    run = run_of(arrays(), batch_size=5)
    same(read_examples(run), arrays())
    weights = np.linspace(0, 1, 12, dtype="float32")
    same(read_examples(run_of((*arrays(), weights))), (*arrays(), weights))
    dataset = tf.data.Dataset.from_tensor_slices((*arrays(), weights)).batch(5)
    same(read_examples(run_of(dataset)), (*arrays(), weights))
    batches = Batches()
    run = run_of(batches)
    batches.reads = 0
    same(read_examples(run), arrays())
    assert batches.reads == 3


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_of_many_examples_a_random_choice_is_read(kind, monkeypatch):
    monkeypatch.setattr(held_out, "MOST", 90)
    x, y = np.arange(600.0).reshape(100, 6), np.repeat([0, 1, 2], [60, 35, 5])
    data = x, y
    if kind == "dataset":
        data = tf.data.Dataset.from_tensor_slices(data).batch(8)
    rows, labels = read_examples(run_of(data))
    assert len(labels) == 90 and len(np.unique(rows[:, 0])) == 90
    np.testing.assert_array_equal(labels, y[(rows[:, 0] / 6).astype(int)])
    assert set(labels) == {0, 1, 2}  # sorted data have the last class at the end


@pytest.mark.slow
def test_texts_are_preprocessed():
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer(vocabulary=words), sequence_length=6
    )
    model = keras_hub.models.BertTextClassifier(
        backbone=tiny.bert(num_layers=1), num_classes=2, preprocessor=preprocessor
    )
    texts, labels = ["a b", "c", "d e f"] * 4, np.arange(12) % 2
    x, y = read_examples(run_of((texts, labels), model=model))
    np.testing.assert_array_equal(y, labels)
    ids = preprocessor(texts)["token_ids"]
    np.testing.assert_array_equal(x["token_ids"][:, :5], ids[:, :5])
