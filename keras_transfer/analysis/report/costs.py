"""What training cost, phase by phase, read from the History of `fit`."""

import math
import numbers
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer._arguments import is_number

# Keys of a History that say what an epoch was, not how well it went.
PHASE = "phase"
SECONDS = "seconds"
TRAINABLE = "trainable_parameters"
SETTINGS = ("learning_rate", "moved/", PHASE, SECONDS, TRAINABLE)


def costs(history: Any) -> tuple[dict, dict[str, str]]:
    """Return phases and curves of a `history`, and why something is missing.

    Args:
        history: What `fit` returned, or a dict of lists with one value an epoch. Its
            keys "phase", "seconds" and "trainable_parameters" are used where they are.

    Returns:
        A JSON-plain dict of `epochs`, `phases` and `curves`, and a dict from what is
        None in it to the reason.

    Raises:
        TypeError: If `history` is neither a History nor a dict of lists.
        ValueError: If it has no epochs.
    """
    epochs, logs = _read(history)
    reasons, curves = {}, {}
    for name, values in logs.items():
        if len(values) != len(epochs):
            reasons[f"history.{name}"] = (
                f"{len(values)} values for {len(epochs)} epochs"
            )
        elif name == PHASE or any(map(is_number, values)):
            curves[name] = [plain(each) for each in values]
        else:
            reasons[f"history.{name}"] = "its values are not numbers"
    marks = curves.pop(PHASE, None)
    for key in (PHASE, SECONDS, TRAINABLE):
        if key not in logs:
            reasons[f"history.{key}"] = f"the history has no {key!r}"
    return {
        "epochs": epochs,
        "phases": [
            _phase(first, last, marks, epochs, curves)
            for first, last in _runs(marks or [None] * len(epochs))
        ],
        "curves": curves,
    }, reasons


def is_setting(name: str) -> bool:
    """Return whether `name` in a History is a setting and no loss or metric."""
    return name.startswith(SETTINGS)


def plain(value: Any) -> float | int | str | None:
    """Return a value as JSON has it; None for what is no finite number."""
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
            f"history is a {type(history).__name__}. Pass what fit() returned, or its "
            "`history`: a dict of lists with one value an epoch."
        )
    length = max(map(len, logs.values()), default=0)
    epochs = [int(each) for each in getattr(history, "epoch", None) or range(length)]
    if not epochs:
        raise ValueError(
            "The history has no epochs, so there is no cost to report. Pass what "
            "fit() returned once it had finished an epoch."
        )
    return epochs, dict(logs)


def _runs(marks: list) -> list[tuple[int, int]]:
    """Return (first, last) index of each run of equal marks."""
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
