"""compiled_loss: the properties of a loss in each form that compile() accepts."""

import functools
import inspect

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.analysis.report.predictions import Batch
from keras_transfer.analysis.report.reading_outputs import Reading
from keras_transfer.fine_tuning.check_labels import check_labels
from keras_transfer.losses.compiled_loss import compiled_loss
from keras_transfer.losses.compiled_loss import CompiledLoss
from keras_transfer.losses.compiled_loss import read_loss
from keras_transfer.losses.compiled_loss import says_logits
from keras_transfer.models.label_heads import gives_logits
from tests import tiny

losses = keras.losses
SPARSE = losses.SparseCategoricalCrossentropy(from_logits=True)
BOTH = "either"  # from the argument; by default probabilities

# The expected properties of each Keras loss: labels, from_logits, is_classifier.
OF_KERAS = {
    "SparseCategoricalCrossentropy": ("sparse", BOTH, True),
    "CategoricalGeneralizedCrossEntropy": ("sparse", False, True),
    "CategoricalCrossentropy": ("one-hot", BOTH, True),
    "CategoricalFocalCrossentropy": ("one-hot", BOTH, True),
    "BinaryCrossentropy": ("binary", BOTH, True),
    "BinaryFocalCrossentropy": ("binary", BOTH, True),
    "MeanSquaredError": ("numbers", None, False),
    "MeanAbsoluteError": ("numbers", None, False),
    "MeanAbsolutePercentageError": ("numbers", None, False),
    "MeanSquaredLogarithmicError": ("numbers", None, False),
    "Huber": ("numbers", None, False),
    "LogCosh": ("numbers", None, False),
    "Poisson": ("numbers", None, False),
    "KLDivergence": (None, False, None),
    "Dice": (None, False, None),
    "Tversky": (None, False, None),
    "CTC": (None, True, None),
    "CosineSimilarity": (None, None, None),
    "Hinge": (None, None, None),
    "SquaredHinge": (None, None, None),
    "CategoricalHinge": (None, None, None),
    "Circle": (None, None, None),
}
NO_LOSSES = {"Loss", "get", "serialize", "deserialize"}
PUBLIC = {each for each in dir(losses) if not each.startswith("_")} - NO_LOSSES


def expected_of(name):
    """Return the expected properties of a class or of the function of the same name."""
    bare = {each.lower(): said for each, said in OF_KERAS.items()}
    return bare.get(name.lower().replace("_", ""))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_loss_of_keras(name):
    assert expected_of(name), f"Keras has a loss that no table knows: {name}"
    labels, from_logits, is_classifier = expected_of(name)
    loss = getattr(losses, name)
    either = from_logits == BOTH
    forms = [loss]
    if inspect.isclass(loss):
        forms.append(loss())
    if not name.lower().replace("_", "").startswith("categoricalgeneralized"):
        forms.append(name)  # Keras has no name for these
    for form in forms:
        found = read_loss(form)
        assert (found.name, found.labels) == (name, labels)
        assert found.from_logits is (False if either else from_logits)
        assert found.is_classifier is is_classifier
        assert found.is_binary == (labels == "binary")
    assert ("from_logits" in inspect.signature(loss).parameters) == either
    if either:
        partial = functools.partial(loss, from_logits=True)
        said = partial() if inspect.isclass(loss) else partial
        assert read_loss(said).from_logits is True
        assert read_loss(said).labels == labels


@pytest.mark.parametrize("short", ["bce", "BCE", "mse", "MSE", "mae", "mape", "msle"])
def test_short_names(short):
    assert read_loss(short).labels == ("binary" if short in "bce BCE" else "numbers")
    assert read_loss("KLD").from_logits is False


@pytest.mark.parametrize("name", ["crossentropy", "CE"])
def test_the_crossentropy_that_keras_chooses_from_the_labels(name):
    found = read_loss(name)
    assert found == CompiledLoss(name, None, False, True)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", name)
    x, y = np.random.default_rng(0).random((6, 6)), np.arange(6) % 3
    model.evaluate(x, y, verbose=0)
    assert kt.report(model, data=(x, y)).to_dict()["evaluation"]["kind"] == "classes"


@pytest.mark.parametrize(
    "form",
    [
        lambda x: [x],
        lambda x: (x,),
        lambda x: {"logits": x},
        lambda x: {"logits": [x]},
        lambda x: {"logits": x, "features": None},
    ],
)
def test_a_single_loss_in_a_structure_is_read(form):
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    expected = CompiledLoss(
        "SparseCategoricalCrossentropy", "sparse", True, True, False, -1
    )
    assert read_loss(loss) == read_loss(form(loss)) == expected


@pytest.mark.parametrize("none", [None, [], {}, [None], {"a": None}])
def test_no_loss_has_no_properties(none):
    assert read_loss(none) == CompiledLoss()


def test_several_losses_have_no_properties():
    found = read_loss({"a": SPARSE, "b": "mse"})
    assert found == CompiledLoss("2 losses")


def test_a_loss_without_readable_arguments_has_no_properties():
    assert read_loss(max) == CompiledLoss("max")


def test_an_unknown_name_raises():
    with pytest.raises(ValueError, match="Could not interpret"):
        read_loss("squared_crossentropy")


# User-defined losses.


class Smoothed(losses.SparseCategoricalCrossentropy):
    """A loss that derives from one of Keras."""


class Weighted(losses.Loss):
    """A loss that wraps another loss, which is not in its config."""

    def __init__(self, inner, **kwargs):
        super().__init__()
        self.inner = inner
        vars(self).update(kwargs)

    def call(self, y_true, y_pred):
        return 2 * self.inner(y_true, y_pred)


class FocalCrossentropy(Weighted):
    """A loss whose name shows that it is for a classifier."""


class SquaredLoss(Weighted):
    """A loss whose name shows that it is for numbers."""


def binary_crossentropy(y, outputs, from_logits=True):
    """A function with the name of a Keras loss and another default."""
    return losses.binary_crossentropy(y, outputs, from_logits)


@pytest.mark.parametrize(
    "loss, labels, from_logits, is_classifier, is_binary",
    [
        (Smoothed(from_logits=True), "sparse", True, True, False),
        (Weighted(SPARSE), None, None, None, False),
        (Weighted(SPARSE, from_logits=True), None, True, None, False),
        (Weighted(SPARSE, from_logits="yes"), None, None, None, False),
        (FocalCrossentropy(SPARSE), None, None, True, False),
        (SquaredLoss("mse"), None, None, False, False),
        (binary_crossentropy, None, True, True, True),
        (lambda y, outputs: outputs, None, None, None, False),
        (lambda y, outputs, *, from_logits: outputs, None, None, None, False),
    ],
)
def test_user_defined_losses(loss, labels, from_logits, is_classifier, is_binary):
    found = read_loss(loss)
    said = (found.labels, found.from_logits, found.is_classifier, found.is_binary)
    assert said == (labels, from_logits, is_classifier, is_binary)


# All functions that read the loss of a model.


def test_a_model_that_is_not_compiled_has_no_properties():
    assert compiled_loss(tiny.mlp()) == CompiledLoss()


@pytest.mark.parametrize(
    "form", [lambda x: x, lambda x: [x], lambda x: {"dense_2": x}, lambda x: [[x]]]
)
def test_all_readers_agree(form):
    model = tiny.mlp()
    model.compile("sgd", form(SPARSE))
    # These rows add up to 1, so they could be probabilities.
    batch = Batch(None, np.array([0, 1]), np.array([[0.5, 0.3, 0.2]] * 2, "float32"))
    assert Reading.of(model, batch).outputs == "logits"
    model.__dict__["label_head"] = model.layers[-1]  # like a model of two domains
    assert gives_logits(model) is True
    with pytest.raises(ValueError, match="outside 0 to 2: 7"):
        check_labels(form(SPARSE), (None, 3), np.array([0, 1, 7]))
    assert says_logits(model) is True
