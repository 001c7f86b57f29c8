"""What the pilot of fine_tune tried and chose, as content of a report."""

from __future__ import annotations

from typing import Any

from keras_transfer.analysis.report.costs import plain


def pilot_facts(history: Any) -> dict | None:
    """Return the pilot of a `history` as a dict that JSON can store, or None.

    Args:
        history: The History of `fine_tune`. Any other history has no pilot.

    Returns:
        A dict of `why`, `labels`, `steps` and `tried`, the rows of the candidates.
        Values that are not finite are None.
    """
    pilot = getattr(history, "pilot", None)
    if pilot is None:
        return None
    tried = [
        {
            name: plain(value) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in pilot.rows()
    ]
    return {
        "why": pilot.why,
        "labels": pilot.labels,
        "steps": pilot.steps,
        "tried": tried,
    }


def finalists(pilot: dict) -> list[dict]:
    """Return the rows of the candidates that the pilot compared at the end.

    These are the candidates with the most steps, without the probe.
    """
    most = max(row["steps"] for row in pilot["tried"])
    return [row for row in pilot["tried"] if row["steps"] == most > 0]


def said(row: dict) -> str:
    """Return the estimate of a candidate and its standard error as text."""
    if row["estimate"] is None:
        return "not finite"
    if row["error"] is None:
        return f"{row['estimate']:.4g}"
    return f"{row['estimate']:.4g} ± {row['error']:.2g}"
