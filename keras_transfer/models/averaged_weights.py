"""Average the weights of models that have the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Literal

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.switching import attached
from keras_transfer.models.ada_bn import batch_norms
from keras_transfer.models.ada_bn import replace_statistics
from keras_transfer.models.copied_model import copy_of
from keras_transfer.models.copied_model import with_new_metrics

BATCH_SIZE = 128  # for the statistics of arrays


class WeightAverage:
    """A copy of the last model, whose weights can be set to averages of all models.

    The copy is compiled with the loss and the metrics of the last model and a new Adam,
    if the last model is compiled.

    Args:
        models: Models with the same layers. Instead of a model, a list of arrays from
            its `get_weights()` is enough, except for the last one.
        batch_norm_data: Examples for new statistics of the BatchNormalization layers
            whose statistics differ, or `"average"`, or None if none may differ.

    Raises:
        TypeError: If the last model is not a model.
        ValueError: If the models differ, have adapters or weights that are not finite,
            or cannot be copied, or if statistics differ and `batch_norm_data` is None.
    """

    def __init__(
        self, models: Sequence[Any], batch_norm_data: Any | Literal["average"] | None
    ) -> None:
        last = models[-1]
        if not isinstance(last, keras.Model):
            raise TypeError(
                f"The last model is a {type(last).__name__}. Pass a keras.Model, from "
                "which the result is copied."
            )
        self.values = [_values(each, last) for each in models]
        self.data = batch_norm_data
        positions = _statistics_that_differ(last, self.values)
        if positions and batch_norm_data is None:
            raise ValueError(
                f"{len(positions)} BatchNormalization layers of {last.name!r} have "
                "other moving statistics in each model, and the average of statistics "
                "does not fit the averaged weights. Pass some hundred training "
                "examples as `batch_norm_data`, from which new statistics are "
                'computed, or batch_norm_data="average".'
            )
        text = isinstance(batch_norm_data, str)
        if text and batch_norm_data != "average":
            raise ValueError(
                f"batch_norm_data={batch_norm_data!r} must be examples without labels, "
                '"average" or None.'
            )
        if not (positions or batch_norm_data is None or text):
            raise ValueError(
                f"No BatchNormalization of {last.name!r} has other statistics in each "
                "model, so `batch_norm_data` has nothing to change. Leave it out."
            )
        self.model = _compiled_copy(last)
        layers = batch_norms(self.model)
        self.layers = [layers[place] for place in positions] * (not text)

    def set(self, shares: Sequence[float]) -> keras.Model:
        """Return the copy, with the sum of the weights times `shares`."""
        mixed = []
        for values in zip(*self.values, strict=True):
            first = values[-1]
            if np.issubdtype(first.dtype, np.inexact) or _is_bfloat16(first):
                pairs = zip(values, shares, strict=True)
                total = sum(np.asarray(v, "float64") * s for v, s in pairs if s)
                first = np.asarray(total).astype(first.dtype)
            mixed.append(first)
        self.model.set_weights(mixed)
        if self.layers:
            replace_statistics(self.model, self.layers, self.data, BATCH_SIZE)
        return self.model


def _compiled_copy(model: keras.Model) -> keras.Model:
    copy = copy_of(model)
    if model.compiled:
        compiled = with_new_metrics(_keras.compile_arguments(model))
        with _keras.scope(copy):
            copy.compile(**compiled | {"optimizer": keras.optimizers.Adam()})
    return copy


def _values(model: Any, last: keras.Model) -> list[np.ndarray]:
    """Return the weights of a model, or of a list, after checks against the last."""
    if isinstance(model, keras.Model):
        _check_model(model, last)
        values = [_keras.value(each) for each in model.weights]
    else:
        values = [np.asarray(each) for each in model]
    given = [value.shape for value in values]
    expected = [tuple(each.shape) for each in last.weights]
    if given != expected:
        raise ValueError(
            f"{_named(model)} has weights of other shapes than {last.name!r}: "
            f"{_first_difference(given, expected)}. Weights can be averaged only "
            "between models that were tuned from the same start."
        )
    for value, weight in zip(values, last.weights, strict=True):
        floats = np.issubdtype(value.dtype, np.inexact) or _is_bfloat16(value)
        if floats and not np.isfinite(value.astype("float32")).all():
            raise ValueError(
                f"The weight {weight.path!r} of {_named(model)} is not finite, so an "
                "average would not be. Leave out the run that diverged."
            )
        if not floats and not np.array_equal(value, _keras.value(weight)):
            raise ValueError(
                f"The weight {weight.path!r} of {_named(model)} holds whole numbers, "
                f"which differ from those of {last.name!r} and have no average. Pass "
                "models that are not quantized, with the same vocabulary and counts."
            )
    return values


def _check_model(model: keras.Model, last: keras.Model) -> None:
    if not model.built or not model.weights:
        raise ValueError(
            f"{_named(model)} is not built, so it has no weights. Call it once on a "
            "batch."
        )
    if attached(model):
        raise ValueError(
            f"{_named(model)} has the adapters {[*attached(model)]}. The average of "
            "factors is not the average of their products. Call kt.adapters.merge on "
            "each model first. Adapters of one model are averaged exactly by "
            "kt.models.adapter_soup and kt.adapters.add_weighted."
        )
    kinds = [type(each).__name__ for each in _keras.flat_layers(model)]
    expected = [type(each).__name__ for each in _keras.flat_layers(last)]
    if kinds != expected:
        raise ValueError(
            f"{_named(model)} has other layers than {last.name!r}: "
            f"{_first_difference(kinds, expected)}. Weights can be averaged only "
            "between models that were tuned from the same start."
        )


def _statistics_that_differ(
    last: keras.Model, values: Sequence[Sequence[np.ndarray]]
) -> list[int]:
    """Return the positions of BatchNormalization layers with different statistics."""
    places = {id(weight): place for place, weight in enumerate(last.weights)}
    found = []
    for number, layer in enumerate(batch_norms(last)):
        for variable in (layer.moving_mean, layer.moving_variance):
            place = places[id(variable)]
            same = (np.array_equal(each[place], values[-1][place]) for each in values)
            if not all(same):
                found.append(number)
                break
    return found


def _is_bfloat16(value: np.ndarray) -> bool:
    return value.dtype.name == "bfloat16"


def _named(model: Any) -> str:
    if isinstance(model, keras.Model):
        return f"The model {model.name!r}"
    return f"The list of {len(model)} arrays"


def _first_difference(given: Sequence, expected: Sequence) -> str:
    if len(given) != len(expected):
        return f"{len(given)}, not {len(expected)}"
    pairs = enumerate(zip(given, expected, strict=True))
    place, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"{a} instead of {b} at position {place}"
