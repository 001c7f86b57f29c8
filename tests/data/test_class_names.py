"""Class names of a model are stored, removed, and saved in a config."""

import gc
import weakref

import keras
import numpy as np
import pytest

from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.models import TransferClassifier


def network():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def test_names_are_stored_and_removed():
    model, other = network(), network()
    assert class_names_of(model) is None
    remember_class_names(model, np.array(["cat", "dog"]))
    assert class_names_of(model) == ("cat", "dog")
    assert all(type(name) is str for name in class_names_of(model))
    assert class_names_of(other) is None
    remember_class_names(model, None)
    assert class_names_of(model) is None


def test_names_do_not_keep_a_model_alive():
    model = network()
    remember_class_names(model, ["cat", "dog"])
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("names", ["cat", [], ["cat", "cat"]])
def test_bad_names_raise(names):
    with pytest.raises(ValueError, match="must be the names of the classes"):
        remember_class_names(network(), names)


def test_a_transfer_classifier_saves_class_names(tmp_path):
    backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = TransferClassifier(backbone, 2)
    assert "class_names" not in model.get_config()
    remember_class_names(model, ["cat", "dog"])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert class_names_of(loaded) == ("cat", "dog")
