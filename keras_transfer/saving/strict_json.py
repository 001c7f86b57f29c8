"""JSON as a file from somebody else may have it: no repeated keys, no NaN, no depth."""

from __future__ import annotations

import json
import math


def parse_json(text: bytes | str) -> object:
    """Return what JSON says, without repeated keys or numbers that are not finite.

    Raises:
        ValueError: If it is not such JSON.
    """
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError as problem:
        raise ValueError("its JSON is nested too deep.") from problem
    except json.JSONDecodeError as problem:
        raise ValueError(f"it is no JSON: {problem}.") from problem
    except UnicodeDecodeError as problem:
        raise ValueError("its text is not UTF-8.") from problem


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"its JSON has the key {short(key)} twice.")
        found[key] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"its JSON has the number {short(text)}.")
    return number


def short(value: object) -> str:
    """Return the repr of a value, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
