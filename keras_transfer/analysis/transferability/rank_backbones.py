"""rank_backbones: which pretrained network suits a new task, without training it."""

from __future__ import annotations

import os
import pathlib
import time
import urllib.parse
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import different_names
from keras_transfer.analysis.transferability.cached_arrays import cached_arrays
from keras_transfer.analysis.transferability.classes import class_indices
from keras_transfer.analysis.transferability.h_score import h_score
from keras_transfer.analysis.transferability.leep import leep
from keras_transfer.analysis.transferability.log_me import log_me
from keras_transfer.analysis.transferability.probe import cross_validated_probe
from keras_transfer.analysis.transferability.ranking import BackboneRanking
from keras_transfer.analysis.transferability.ranking import BackboneRow
from keras_transfer.backbones.class_scores import class_scores
from keras_transfer.backbones.features import features as features_of
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.stitch import inputs_of

SCORES = ("probe", "log_me", "h_score", "leep")
Backbones = Mapping[str, Any] | Sequence[keras.Model | FrozenBackbone]


def rank_backbones(
    backbones: Backbones,
    data: Any = None,
    *,
    scores: Sequence[str] = ("probe", "log_me", "h_score"),
    directory: str | os.PathLike | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 1,
) -> BackboneRanking:
    """Score pretrained networks on a labeled set, without training them.

    Each backbone runs once over the data, and all scores are computed from its
    features:

    - `"probe"`: the accuracy of a logistic regression on held-out examples, in five
      folds. It is about what `kt.fine_tune(..., strategy="probe")` would reach. It
      standardizes the features, so it can be higher if they are all below 1e-4.
    - `"log_me"`: the evidence for a linear model, see `kt.analysis.log_me`.
    - `"h_score"`: the regularized H-score, see `kt.analysis.h_score`.
    - `"leep"`: from the classes of a pretrained classifier, see `kt.analysis.leep`.
      Every backbone must then be a classifier, such as `keras.applications` with
      `include_top=True`.

    For a network that ends in class scores, the other scores use the features before
    the layer of these scores. A ranking is a guide and not a verdict: scores on
    features do not show how far fine-tuning can change them.

    Args:
        backbones: Dict from names to built backbones, or list of them: a `keras.Model`
            as in `kt.backbones.features`, or a `FrozenBackbone`. A backbone with inputs
            of its own, such as another preprocessor, is a pair `(backbone, data)` of
            the same examples.
        data: Batched `tf.data.Dataset` of `(x, y)`, or a tuple of arrays, with class
            numbers or one-hot rows. Defaults to `None`, if each backbone has its own.
        scores: Names of the scores. The first decides the order. Defaults to
            `("probe", "log_me", "h_score")`.
        directory: Folder for the features, one folder for each backbone. A later call
            with the same data continues or reads them. Defaults to `None`, which keeps
            nothing.
        batch_size: Integer, the number of examples in a batch, for arrays. Defaults to
            32.
        seed: Integer, the seed of the folds of the probe. Defaults to 0.
        verbose: 1 for progress bars, 0 for no output. Defaults to 1.

    Returns:
        A `kt.analysis.BackboneRanking`. Print it, or call its `plot`.

    Raises:
        TypeError: If a backbone is not a model, or the data cannot be read twice.
        ValueError: If there are no backbones, two have one name, a score is unknown or
            cannot be had, if the data have weights, or if labels are of one class, or
            of classes with a single example. Backbones are checked before any
            runs, and data and labels when the first backbone that has them runs.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        x, y = np.random.rand(40, 8, 8, 3), np.arange(40) % 2
        backbones = {
            f"{filters} filters": keras.Sequential(
                [keras.Input((8, 8, 3)), keras.layers.Conv2D(filters, 3)]
            )
            for filters in (2, 8)
        }
        ranking = kt.rank_backbones(backbones, (x, y), verbose=0)
        print(ranking)
        assert 0 <= ranking.rows[0].scores["probe"] <= 1
        ```

    Reference:
        You, Liu, Wang and Long 2021, LogME: Practical Assessment of Pre-trained Models
        for Transfer Learning, arXiv:2102.11005. Kornblith, Shlens and Le 2019, Do
        Better ImageNet Models Transfer Better?, arXiv:1805.08974 (the probe).
    """
    named = _named(backbones, data)
    scores = different_names("scores", scores, SCORES)
    networks = {
        name: _network(name, backbone, "leep" in scores)
        for name, (backbone, _) in named.items()
    }
    rows, counts = [], None
    for name, (_, data) in named.items():
        network, are_logits = networks[name]
        if verbose:
            print(f"{name}:")
        folder = None
        if directory is not None:
            folder = pathlib.Path(directory) / urllib.parse.quote(name, safe=" ")
        began = time.perf_counter()
        try:
            features, labels = cached_arrays(network, data, folder, batch_size, verbose)
        except ValueError as error:
            raise ValueError(f"For the backbone {name!r}: {error}") from error
        seconds = {"features": time.perf_counter() - began}
        labels = class_indices(labels, len(labels))
        counts = _checked_counts(name, labels, counts)
        values = features["features"].reshape(len(labels), -1).astype("float64")
        found, error = {}, None
        for score in scores:
            began = time.perf_counter()
            if score == "probe":
                found[score], error = cross_validated_probe(values, labels, seed)
            elif score == "leep":
                found[score] = leep(features["scores"], labels, from_logits=are_logits)
            else:
                found[score] = {"log_me": log_me, "h_score": h_score}[score](
                    values, labels
                )
            seconds[score] = time.perf_counter() - began
        sizes = values.shape[1], network.count_params()
        rows.append(BackboneRow(name, found, error, seconds, *sizes))
    return BackboneRanking(rows)


def _named(backbones: Any, data: Any) -> dict[str, tuple]:
    """Return a dict from names to pairs of a backbone and its data."""
    if isinstance(backbones, Mapping):
        items = list(backbones.items())
    elif isinstance(backbones, list | tuple):
        items = [(getattr(_first(each), "name", each), each) for each in backbones]
    else:
        raise TypeError(
            f"`backbones` is a {type(backbones).__name__}. Pass a list of backbones, "
            "or a dict from names to backbones."
        )
    if not items:
        raise ValueError("`backbones` is empty. Pass at least one backbone.")
    names = [str(name) for name, _ in items]
    if not all(name.strip(".") for name in names):
        raise ValueError(
            f"The names of the backbones are {names}, and one of them cannot be the "
            "name of a folder. Give it another name."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Several backbones have the name {twice[0]!r}. Pass a dict from different "
            "names to backbones."
        )
    pairs = {}
    for name, each in zip(names, (each for _, each in items), strict=True):
        pairs[name] = each if isinstance(each, tuple) else (each, data)
        if len(pairs[name]) != 2:
            raise ValueError(
                f"{name!r} is a tuple of {len(pairs[name])}. Pass a backbone, or a "
                "pair (backbone, data)."
            )
        if pairs[name][1] is None:
            raise ValueError(f"There are no data for {name!r}. Pass `data`.")
    return pairs


def _first(each: Any) -> Any:
    return each[0] if isinstance(each, tuple) and each else each


def _network(name: str, backbone: Any, needs_scores: bool) -> tuple[keras.Model, bool]:
    """Return a model to features and class scores, and whether these are logits."""
    network = unwrap(backbone)
    graph = network.built and getattr(network, "outputs", None)
    found = class_scores(network) if graph else None
    if found is None or found.before is None:
        if needs_scores:
            raise ValueError(
                f"{name!r} does not end in the scores of source classes, so it has no "
                "LEEP. Leave 'leep' out of `scores`, or pass the pretrained classifier "
                "with its top."
            )
        model = features_of(backbone)
        return keras.Model(model.input, {"features": model.output}), False
    outputs = {"features": found.before, "scores": network.outputs[0]}
    return keras.Model(inputs_of(network), outputs, name=name), found.are_logits


def _checked_counts(
    name: str, labels: np.ndarray, expected: np.ndarray | None
) -> np.ndarray:
    counts = np.bincount(labels)
    if expected is not None and not np.array_equal(counts, expected):
        raise ValueError(
            f"{name!r} has {len(labels)} examples with other labels than the backbones "
            "before it, so their scores cannot be compared. Pass the same examples for "
            "each backbone."
        )
    return counts
