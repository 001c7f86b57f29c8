"""The values of repeated runs as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation; None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_and_deviation(values: Sequence[float | None]) -> str:
    """Return the mean as text, with the deviation of several values.

    Args:
        values: A value of each run, None where it is not finite.
    """
    if None in values:
        return "not finite"
    shown, spread = f"{np.mean(values):.3f}", deviation(values)
    return shown if spread is None else f"{shown} ± {spread:.3f}"
