"""Read the cost of each training phase from the History of `fit`."""

import math
import numbers
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer._arguments import is_number

# Keys of a History that are settings of an epoch, not losses or metrics.
PHASE = "phase"
SECONDS = "seconds"
TRAINABLE = "trainable_parameters"
SETTINGS = ("learning_rate", "moved/", PHASE, SECONDS, TRAINABLE)


def costs(history: Any) -> tuple[dict, dict[str, str]]:
    """Return the phases and curves of a `history`, and reasons for missing values.

    Args:
        history: The History that `fit` returns, or a dict of lists with one value for
            each epoch. The optional keys "phase", "seconds" and "trainable_parameters"
            are used.

    Returns:
        A dict of `epochs`, `phases`, `curves` and `not_finite` that JSON can store, and
        a dict from the names of values that are None to the reasons. `not_finite` maps
        the names of curves to the first epoch whose value is NaN or infinite.

    Raises:
        TypeError: If `history` is neither a History nor a dict of lists.
        ValueError: If it has no epochs.
    """
    epochs, logs = _read(history)
    reasons, curves, not_finite = {}, {}, {}
    for name, values in logs.items():
        if len(values) != len(epochs):
            reasons[f"history.{name}"] = (
                f"{len(values)} value(s) for {len(epochs)} epoch(s)"
            )
        elif name == PHASE or any(map(is_number, values)):
            curves[name] = [plain(each) for each in values]
            lost = [is_number(each) and plain(each) is None for each in values]
            if any(lost):
                not_finite[name] = epochs[lost.index(True)]
                reasons[f"history.{name}"] = "some values are NaN or infinite"
        else:
            reasons[f"history.{name}"] = "the values are not numbers"
    marks = curves.pop(PHASE, None)
    for key in (PHASE, SECONDS, TRAINABLE):
        if key not in logs:
            reasons[f"history.{key}"] = f"the history has no {key!r}"
    groups = getattr(history, "phase_groups", ())
    phases = [
        _phase(first, last, marks, epochs, curves) | {"groups": None}
        for first, last in _runs(marks or [None] * len(epochs))
    ]
    for phase in phases:
        number = phase["phase"]
        if isinstance(number, int) and 0 <= number < len(groups):
            phase["groups"] = list(groups[number])
        elif number is not None:
            reasons["phases.groups"] = (
                "the history does not name the groups of its phases: pass the History "
                "of a fit with GradualUnfreezing, or of fine_tune"
            )
    return {
        "epochs": epochs,
        "phases": phases,
        "curves": curves,
        "not_finite": not_finite,
    }, reasons


def is_setting(name: str) -> bool:
    """Return whether `name` in a History is a setting, not a loss or metric."""
    return name.startswith(SETTINGS)


def plain(value: Any) -> float | int | str | None:
    """Return a value that JSON can store. Numbers that are not finite become None."""
    if isinstance(value, str):
        return value
    if not is_number(value):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def _read(history: Any) -> tuple[list[int], dict[str, Sequence]]:
    logs = history
    if isinstance(history, keras.callbacks.History):
        logs = getattr(history, "history", {})
    if not isinstance(logs, Mapping) or not all(
        isinstance(each, Sequence) and not isinstance(each, str)
        for each in logs.values()
    ):
        raise TypeError(
            f"history is a {type(history).__name__}. Pass the History that fit() "
            "returns, or a dict of lists with one value for each epoch."
        )
    length = max(map(len, logs.values()), default=0)
    epochs = [int(each) for each in getattr(history, "epoch", None) or range(length)]
    if not epochs:
        raise ValueError(
            "The history has no epochs, so there is no cost to report. Pass the "
            "History that fit() returns after at least one epoch."
        )
    return epochs, dict(logs)


def _runs(marks: list) -> list[tuple[int, int]]:
    """Return the (first, last) index of each run of equal marks."""
    starts = [i for i, mark in enumerate(marks) if not i or mark != marks[i - 1]]
    ends = [start - 1 for start in starts[1:]] + [len(marks) - 1]
    return list(zip(starts, ends, strict=True))


def _phase(
    first: int, last: int, marks: list | None, epochs: list[int], curves: dict
) -> dict:
    seconds = curves.get(SECONDS, [None])[first : last + 1]
    trainable = curves.get(TRAINABLE, [None] * len(epochs))
    return {
        "phase": marks and marks[first],
        "first_epoch": epochs[first],
        "last_epoch": epochs[last],
        "num_epochs": last - first + 1,
        "seconds": None if None in seconds or not seconds else sum(seconds),
        "trainable_parameters": trainable[last],
        "at_its_end": {
            name: values[last]
            for name, values in curves.items()
            if not is_setting(name)
        },
    }
