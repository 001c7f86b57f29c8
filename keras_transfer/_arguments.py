"""Checks of arguments: whole numbers, numbers, rates and choices."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np


def whole_number(
    name: str,
    value: object,
    least: int | None = 1,
    *,
    most: int | None = None,
    floats: bool = False,
    why: str = "",
    kind: type[Exception] = ValueError,
) -> int:
    """Return `value` as an int if it is a whole number in the range.

    NumPy integers are accepted. A bool is not.

    Args:
        name: Name or description of the argument, for the error.
        value: Value that was passed.
        least: The smallest allowed number, or None for no limit.
        most: The largest allowed number, or None for no limit.
        floats: Whether a float without a fraction, such as 100.0, is accepted too.
        why: Meaning of the number or reason for the range, put at the end of the error.
        kind: Type of the error for a value that is not a whole number.

    Raises:
        ValueError: If the number is out of range.
    """
    whole = isinstance(value, numbers.Integral)
    if floats and not whole:
        whole = isinstance(value, numbers.Real) and float(value).is_integer()
    whole = whole and not isinstance(value, bool)
    if whole and _within(value, least, None, most, None):
        return int(value)
    above = 0 if least == 1 and most is None else None
    least = None if above == 0 else least
    what = f"a whole number{_range(least, above, most, None)}"
    raise (ValueError if whole else kind)(_text(name, value, what, why))


def number(
    name: str,
    value: object,
    least: float | None = None,
    *,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    why: str = "",
    kind: type[Exception] = ValueError,
) -> float:
    """Return `value` as a float if it is a finite number in the range.

    NumPy scalars are accepted. A bool is not.

    Args:
        name: Name or description of the argument, for the error.
        value: Value that was passed.
        least: The smallest allowed number, or None for no limit.
        above: Lower limit that is not allowed itself, or None.
        most: The largest allowed number, or None for no limit.
        below: Upper limit that is not allowed itself, or None.
        why: Meaning of the number or reason for the range, put at the end of the error.
        kind: Type of the error for a value that is not a number.

    Raises:
        ValueError: If the number is not finite or out of range.
    """
    real = is_number(value)
    if real and _is_finite(value) and _within(value, least, above, most, below):
        return float(value)
    what = f"a finite number{_range(least, above, most, below)}"
    raise (ValueError if real else kind)(_text(name, value, what, why))


def positive(name: str, value: object, why: str = "") -> float:
    """Return `value` as a float if it is a finite number above 0.

    Raises:
        ValueError: If `value` is not a finite number above 0.
    """
    return number(name, value, above=0, why=why)


def fraction(name: str, value: object, why: str = "") -> float:
    """Return `value` as a float if it is a number from 0 to 1.

    Raises:
        ValueError: If `value` is not a number from 0 to 1.
    """
    return number(name, value, 0, most=1, why=why)


def dropout_rate(name: str, value: object) -> float:
    """Return `value` as a float if it is a dropout rate: from 0 to below 1.

    Raises:
        ValueError: If `value` is not a number from 0 to below 1.
    """
    return number(name, value, 0, below=1, why="it is the rate of values to drop")


def one_of(name: str, value: object, choices: Iterable, why: str = "") -> object:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: If `value` is not one of `choices`.
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(_text(name, value, f"one of {choices}", why))
    return value


def different_names(
    name: str, value: object, choices: Iterable[str], why: str = ""
) -> tuple[str, ...]:
    """Return one or more different names of `choices`, from a name or a sequence.

    Raises:
        ValueError: If there is no name, an unknown name, or a name twice.
    """
    choices = list(choices)
    names = (value,) if isinstance(value, str) else value
    names = tuple(names) if isinstance(names, Sequence) else ()
    unknown = any(each not in choices for each in names)
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(_text(name, value, f"different names of {choices}", why))
    return names


def unique_names(name: str, value: object, why: str = "") -> tuple[str, ...]:
    """Return one or more different strings, from a sequence of them.

    Raises:
        ValueError: If it is a single string, has no name, a name twice, or other items.
    """
    found = () if isinstance(value, str) else tuple(value)
    strings = all(isinstance(each, str) and each for each in found)
    if not found or not strings or len(set(found)) < len(found):
        raise ValueError(_text(name, value, "different names, each a str", why))
    return found


def is_number(value: object) -> bool:
    """Return whether `value` is a real number, also of NumPy, and not a bool."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for a float
        return False


def _within(
    value: float,
    least: float | None,
    above: float | None,
    most: float | None,
    below: float | None,
) -> bool:
    return (
        (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )


def _range(
    least: float | None,
    above: float | None,
    most: float | None,
    below: float | None,
) -> str:
    """Return the range in words, such as " from 0 to 1" or " above 0"."""
    if least is not None and most is not None:
        return f" from {least} to {most}"
    ends = [
        least is not None and f"of {least} or more",
        above is not None and f"above {above}",
        most is not None and f"of {most} or less",
        below is not None and f"below {below}",
    ]
    text = " and ".join(end for end in ends if end)
    return text and f" {text}"


def _text(name: str, value: object, what: str, why: str) -> str:
    given = f"{name}={value!r}" if name.isidentifier() else f"{name} is {value!r}, but"
    return f"{given} must be {what}{f': {why}' if why else ''}."
