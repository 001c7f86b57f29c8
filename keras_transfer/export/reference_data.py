"""Compute the reference of an export from held-out examples."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer._version import __version__
from keras_transfer.analysis.arrays import as_classes
from keras_transfer.analysis.shift.score_kind import ScoreKind
from keras_transfer.analysis.shift.score_kind import SUM
from keras_transfer.backbones.class_scores import AFTER
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import check_batched
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import rows_of
from keras_transfer.export.request import inputs_of
from keras_transfer.export.served_model import fingerprint_of
from keras_transfer.export.served_model import ServedModel
from keras_transfer.export.shift_reference import make_reference
from keras_transfer.export.signatures import features_of
from keras_transfer.losses.compiled_loss import compiled_loss

MOST = 5_000  # examples of arrays that the model runs on
SEED = 0  # of the examples that are kept


def check_reference(reference: object, adapters: object) -> None:
    """Check the form of the data of a reference, before anything is computed.

    Raises:
        TypeError: If it is an iterator, or of another kind.
        ValueError: If arrays do not fit each other, a dataset is not batched, or the
            export has several adapters.
    """
    if adapters:
        raise ValueError(
            "reference= does not work together with adapters=, because each adapter "
            "has its own scores. Export the model with one active adapter, which is "
            "merged."
        )
    kind = kind_of(reference, "reference", x_alone=True)
    if kind == DATASET:
        check_batched(reference, "reference")
    elif kind == ARRAYS:
        if isinstance(reference, tuple) and len(reference) != 2:
            raise ValueError(
                f"reference is a tuple of {len(reference)}. Pass (x, y) or x alone; a "
                "list for a model of several inputs."
            )
        count_rows(reference, "reference")


def monitored_features(model: keras.Model, pooling: bool | str) -> keras.Model | None:
    """Return the network of the features of a reference, or None without features.

    These are the features of the signature `features`, or of the backbone, or else
    the inputs of the last Dense layer of a functional model.
    """
    kinds = (keras.Model, FrozenBackbone)
    own = isinstance(getattr(model, "backbone", None), kinds)
    inside = [each for each in _keras.sublayers(model) if isinstance(each, kinds)]
    if pooling or own or len(inside) == 1:
        return features_of(model, pooling or True)
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None
    layer, _, before = _keras.source(outputs[0])
    while isinstance(layer, AFTER) and before:
        layer, _, before = _keras.source(before[0])
    if not isinstance(layer, keras.layers.Dense) or len(before[0].shape) != 2:
        return None
    name = f"{model.name}_features"
    return keras.Model(inputs_of(model), before[0], name=name)


def write_reference(
    folder: pathlib.Path, model: keras.Model, reference: object, labels: object
) -> None:
    """Write the reference of the SavedModel in `folder`.

    Args:
        folder: Folder of the SavedModel, whose outputs on the examples are kept.
        model: The model, whose compiled loss says what its outputs are.
        reference: Examples, as in `kt.export_serving`.
        labels: As in `kt.export_serving`.

    Raises:
        ValueError: If the model is not a classifier with one output, or the examples
            do not fit it.
    """
    served = ServedModel(folder)
    found, classes = [], []
    for x, y in _batches(reference):
        found.append(served(x))
        classes.append(y)
    answers = {k: np.concatenate([each[k] for each in found]) for k in found[0]}
    known = [k for k in answers if k not in ("label", "label_id", "features")]
    if len(known) != 1 or answers[known[0]].ndim > 2:
        shapes = {k: answers[k].shape[1:] for k in known}
        raise ValueError(
            f"The model has outputs of the shapes {shapes} for each example. A "
            "reference needs a classifier with one output and a row of scores for each "
            "example. Export without reference=."
        )
    outputs = answers[known[0]]
    kind = kind_of_outputs(model, outputs)
    names = _names(model, labels, 2 if kind.kind == "binary" else kind.size)
    y = None
    if any(each is not None for each in classes):
        y = _classes(np.concatenate(classes), kind, names)
    facts = {
        "output": known[0],
        "model": model.name,
        "fingerprint": fingerprint_of(folder),
        "keras_transfer": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
    features = answers.get("features")
    made = make_reference(kind, outputs, features, y, names, SEED, facts)
    made.write(folder)


def kind_of_outputs(model: keras.Model, outputs: np.ndarray) -> ScoreKind:
    """Return how outputs become scores, from the compiled loss and the values.

    Raises:
        ValueError: If the loss is that of numbers, or there is a single class.
    """
    loss = compiled_loss(model)
    if loss.is_classifier is False:
        raise ValueError(
            f"{model.name!r} is compiled with the loss {loss.name}, so its outputs are "
            "numbers and not classes. A reference needs a classifier. Export without "
            "reference=."
        )
    rows = outputs if outputs.ndim == 2 else outputs[:, None]
    size, outside = rows.shape[1], bool(((rows < 0) | (rows > 1)).any())
    logits = outside or bool(loss.from_logits)
    if size == 1:
        softmax = getattr(model.layers[-1], "activation", None)
        if softmax is keras.activations.softmax:
            raise ValueError(
                f"{model.name!r} has one class with a softmax, so each score is 1. "
                "Train at least two classes, or one output with a sigmoid."
            )
        return ScoreKind("binary", logits, 1)
    sums = np.abs(rows.astype("float64").sum(1) - 1)
    if loss.is_binary:
        return ScoreKind("labels", logits, size)
    if logits or bool((sums <= SUM).all()):
        return ScoreKind("classes", logits, size)
    activation = getattr(model.layers[-1], "activation", None)
    if activation is keras.activations.sigmoid:
        return ScoreKind("labels", False, size)
    return ScoreKind("classes", True, size)


def _batches(reference: object) -> Iterator[tuple[object, np.ndarray | None]]:
    if kind_of(reference, "reference", x_alone=True) != ARRAYS:
        for element in batches_of(reference, "reference"):
            x, y = element[:2] if isinstance(element, tuple) else (element, None)
            x = keras.tree.map_structure(keras.ops.convert_to_numpy, x)
            yield x, None if y is None else np.asarray(y)
        return
    x, y = reference if isinstance(reference, tuple) else (reference, None)
    count = count_rows(x, "reference")
    rows = np.arange(count)
    if count > MOST:
        rows = np.sort(np.random.default_rng(SEED).choice(count, MOST, replace=False))
    yield rows_of(x, rows), None if y is None else np.asarray(y)[rows]


def _names(model: keras.Model, labels: object, count: int) -> Sequence[str]:
    given = not isinstance(labels, Mapping | bool | None) and len(labels) == count
    if given and all(isinstance(each, str) for each in labels):
        return list(labels)
    known = class_names_of(model)
    if known is not None and len(known) == count:
        return known
    return [str(number) for number in range(count)]


def _classes(y: np.ndarray, kind: ScoreKind, names: Sequence[str]) -> np.ndarray:
    if kind.kind == "labels":
        raise ValueError(
            "reference has labels y, but the model gives independent labels. Labels "
            "are only used for the shares of classes of which each example has one. "
            "Pass x alone."
        )
    if y.dtype.kind in "OUS":
        at = {name: number for number, name in enumerate(names)}
        words = [x.decode() if isinstance(x, bytes) else str(x) for x in y.ravel()]
        unknown = sorted(set(words) - set(at))
        if unknown:
            raise ValueError(
                f"reference has the labels {unknown[:5]}, but the classes are "
                f"{list(names)[:10]}. Pass class numbers or these names."
            )
        y = np.array([at[word] for word in words])
    return as_classes(y, len(names))
