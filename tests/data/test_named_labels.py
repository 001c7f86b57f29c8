"""Labels that are names get the numbers of scikit-learn, in arrays and datasets."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.preprocessing import LabelEncoder

from keras_transfer.data.named_labels import choose_names
from keras_transfer.data.named_labels import is_named
from keras_transfer.data.named_labels import number_names
from keras_transfer.data.named_labels import with_numbers
from keras_transfer.data.named_labels import without_booleans

WORDS = np.array(["eel", "cat", "Dog", "ärger", "cat", "10", "9"])
NAMES = ("10", "9", "Dog", "cat", "eel", "ärger")
X = np.arange(7.0)[:, None]


@pytest.mark.parametrize(
    "words",
    [WORDS, WORDS.astype(object), WORDS[:, None], np.char.encode(WORDS, "utf-8")],
    ids=["U", "O", "column", "bytes"],
)
def test_numbers_match_scikit_learn(words):
    assert is_named(words)
    names = choose_names(words, 6, None)
    assert names == NAMES
    encoder = LabelEncoder().fit(WORDS)
    assert list(encoder.classes_) == list(names)
    assert number_names(words, names).tolist() == encoder.transform(WORDS).tolist()


def test_labels_that_are_not_names():
    assert not is_named(np.arange(3))
    assert not is_named(np.array([["a", "b"]]))
    assert not is_named({"a": WORDS, "b": WORDS})


def test_known_names_keep_their_numbers():
    known = ("eel", "cat", "ape")
    assert choose_names(np.array(["cat", "eel"]), 3, known) == known
    assert choose_names(np.array(["cat", "dog"]), 2, known) == ("cat", "dog")
    with pytest.raises(ValueError, match="2 names, cat, dog, but the model has 3"):
        choose_names(np.array(["cat", "dog"]), 3, known)


@pytest.mark.parametrize("weight", [(), (np.ones(7),)])
@pytest.mark.parametrize("one_hot", [False, True])
def test_arrays_and_datasets_get_the_same_numbers(one_hot, weight):
    numbers = number_names(WORDS, NAMES)
    expected = np.eye(6)[numbers] if one_hot else numbers
    x, y, *rest = with_numbers((X, list(WORDS), *weight), NAMES, one_hot=one_hot)
    assert x is X and y.tolist() == expected.tolist() and len(rest) == len(weight)
    for shape in (WORDS, WORDS[:, None]):
        dataset = tf.data.Dataset.from_tensor_slices((X, shape, *weight)).batch(3)
        found = with_numbers(dataset, NAMES, one_hot=one_hot)
        assert len(found) == 3
        rows = np.concatenate([y for _, y, *_ in found.as_numpy_iterator()])
        assert rows.tolist() == expected.tolist()


def test_unknown_names_and_py_datasets_raise():
    with pytest.raises(ValueError, match=r"2 of 3 labels are not .*\(cat\): ape, cow"):
        with_numbers((X, np.array(["cow", "cat", "ape"])), ("cat",), one_hot=False)

    class Batches(keras.utils.PyDataset):
        pass

    with pytest.raises(ValueError, match="cannot be numbered in a PyDataset"):
        with_numbers(Batches(), NAMES, one_hot=False)


def test_booleans_become_0_and_1():
    yes = np.arange(7) > 3
    assert without_booleans((X, yes.tolist()))[1].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert without_booleans((X, WORDS))[1] is WORDS
    dataset = tf.data.Dataset.from_tensor_slices((X, yes, X)).batch(7)
    (batch,) = without_booleans(dataset).as_numpy_iterator()
    assert batch[1].tolist() == [0, 0, 0, 0, 1, 1, 1] and len(batch) == 3
