"""Parse JSON from untrusted files: no repeated keys, no NaN, no deep nesting."""

from __future__ import annotations

import json
import math


def parse_json(text: bytes | str) -> object:
    """Parse JSON, and refuse repeated keys and numbers that are not finite.

    Raises:
        ValueError: If the text is not valid JSON, repeats a key, is nested too deeply,
            or contains a number that is not finite.
    """
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError as problem:
        raise ValueError("its JSON is nested too deeply.") from problem
    except json.JSONDecodeError as problem:
        raise ValueError(f"it is not valid JSON: {problem}.") from problem
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
        raise ValueError(f"its JSON has the number {short(text)}, which is not finite.")
    return number


def short(value: object) -> str:
    """Return the repr of a value, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
