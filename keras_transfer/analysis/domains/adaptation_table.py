"""Compare methods of domain adaptation with two references."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

SOURCE_ONLY, ON_TARGET = "source only", "trained on target"
NEGATIVE = "negative transfer"
CLEAR = 2  # standard errors


class AdaptationRow(NamedTuple):
    """One row of the table. A value that is not defined is None."""

    method: str
    mean: float
    standard_deviation: float | None
    num_seeds: int
    gap_closed: float | None
    note: str


def gap_closed(accuracy: float, source_only: float, on_target: float) -> float:
    """Return the share of the gap between two references that an adapted model closes.

    The share is `(accuracy - source_only) / (on_target - source_only)`. A share of 0 is
    no better than no adaptation, and 1 is as good as training on labels of the target.
    Negative transfer gives a share below 0. The share can also exceed 1.

    All accuracies are measured on the test part of the target.

    Args:
        accuracy: Float from 0 to 1, the accuracy of the adapted model.
        source_only: Float from 0 to 1, the accuracy of the same network trained on the
            source alone.
        on_target: Float from 0 to 1, the accuracy of the same network trained on the
            labels of the target.

    Returns:
        The share, as a float.

    Raises:
        ValueError: If an accuracy is not from 0 to 1, or if `on_target` is not above
            `source_only`.

    Example:
        ```python
        import keras_transfer as kt

        assert abs(kt.analysis.gap_closed(0.75, 0.5, 1.0) - 0.5) < 1e-12
        ```

    Reference:
        Ganin et al. 2016, Domain-Adversarial Training of Neural Networks,
        arXiv:1505.07818, table 2 ("covered" gap, after Fernando et al. 2013).
    """
    given = dict(accuracy=accuracy, source_only=source_only, on_target=on_target)
    for name, value in given.items():
        _accuracies(name, [value])
    gap = on_target - source_only
    if gap <= 0:
        raise ValueError(
            f"on_target={on_target:.4g} is not above source_only={source_only:.4g}. "
            "There is no gap to close, so its share is not defined. Pass accuracies "
            "on the target's test part."
        )
    return float((accuracy - source_only) / gap)


class AdaptationTable:
    """Table of accuracies over seeds, and of the share of the gap each method closes.

    A method is compared with two references, which use the same network and the same
    recipe. One is trained on the source alone, the other on the labels of the target.
    Print the table, or read its `rows`. The share is `gap_closed` of the mean
    accuracies. It is "undefined" if training on the target is not better than training
    on the source.

    A method with a mean below the mean of `source_only` is marked as negative transfer.
    The mark says "clear" if the mean difference, taken seed by seed, is more than two
    standard errors below 0. Otherwise it says "within noise". With one seed the
    standard error is not known, and the mark says "one seed".

    Args:
        methods: Dict from the name of a method to its accuracies on the target's test
            part: one float from 0 to 1 for each seed.
        source_only: List of floats, the accuracies of the source-only reference for
            the same seeds in the same order.
        on_target: List of floats, one or more accuracies of the reference that is
            trained on the target.

    Raises:
        TypeError: If `methods` is not a dict.
        ValueError: If a method has no accuracies, an accuracy is not from 0 to 1, the
            number of accuracies differs from `source_only`, or a method has the name
            of a reference.

    Example:
        ```python
        import keras_transfer as kt

        table = kt.analysis.AdaptationTable(
            {"DANN": [0.74, 0.76], "CORAL": [0.45, 0.47]},
            source_only=[0.5, 0.54],
            on_target=[0.96, 0.96],
        )
        print(table)
        assert round(table.rows[1].gap_closed, 3) == 0.523
        assert table.rows[2].note.startswith("negative transfer")
        ```

    Reference:
        Wang, Dai, Póczos and Carbonell 2019, Characterizing and Avoiding Negative
        Transfer, arXiv:1811.09751.
    """

    def __init__(
        self,
        methods: Mapping[str, Sequence[float]],
        *,
        source_only: Sequence[float],
        on_target: Sequence[float],
    ) -> None:
        if not isinstance(methods, Mapping):
            raise TypeError(
                f"methods is a {type(methods).__name__}. Pass a dict from the name of "
                "each method to its accuracies, one for each seed."
            )
        base = _accuracies("source_only", source_only)
        best = _accuracies("on_target", on_target)
        self.rows = [_row(SOURCE_ONLY, base, base, best)]
        for name, values in methods.items():
            if name in (SOURCE_ONLY, ON_TARGET):
                raise ValueError(
                    f"{name!r} is the name of a reference. Rename the method."
                )
            values = _accuracies(name, values)
            if len(values) != len(base):
                raise ValueError(
                    f"{name!r} has {len(values)} accuracies, but source_only has "
                    f"{len(base)}. They are compared seed by seed. Pass both for the "
                    "same seeds, in the same order."
                )
            self.rows.append(_row(name, values, base, best))
        self.rows.append(_row(ON_TARGET, best, base, best))

    def __str__(self) -> str:
        lines = [("method", "accuracy", "gap closed", "")]
        for row in self.rows:
            accuracy = f"{row.mean:.4f}"
            if row.standard_deviation is not None:
                accuracy += f" ± {row.standard_deviation:.4f}"
            share = row.gap_closed
            shown = "undefined" if share is None else f"{100 * share:.1f} %"
            lines.append((str(row.method), accuracy, shown, row.note))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = []
        for name, *numbers, note in lines:
            cells = [name.ljust(widths[0])]
            cells += [n.rjust(w) for n, w in zip(numbers, widths[1:3], strict=True)]
            shown.append("  ".join([*cells, note]).rstrip())
        seeds = f"{self.rows[0].num_seeds} seed(s)"
        if self.rows[-1].num_seeds != self.rows[0].num_seeds:
            seeds += f", {self.rows[-1].num_seeds} for {ON_TARGET!r}"
        return "\n".join([*shown, f"{seeds}; mean ± standard deviation"])


def _row(
    name: str, values: np.ndarray, base: np.ndarray, best: np.ndarray
) -> AdaptationRow:
    count = len(values)
    mean, low, high = (float(each.mean()) for each in (values, base, best))
    deviation = None if count == 1 else float(values.std(ddof=1))
    share = gap_closed(mean, low, high) if high > low else None
    note = "" if name == ON_TARGET or mean >= low else _loss(values - base)
    if name == ON_TARGET and share is None:
        note = "no better than source only"
    return AdaptationRow(name, mean, deviation, count, share, note)


def _loss(differences: np.ndarray) -> str:
    """Return the note for a method whose mean is below the source-only mean."""
    count = len(differences)
    if count == 1:
        return f"{NEGATIVE} (one seed)"
    error = differences.std(ddof=1) / np.sqrt(count)
    clear = differences.mean() < -CLEAR * error
    return f"{NEGATIVE} ({'clear' if clear else 'within noise'})"


def _accuracies(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"The accuracies of {name!r} have the shape {array.shape}. Pass a list "
            "with one number for each seed, for at least one seed."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"The accuracies of {name!r} are not numbers: {values!r}. Pass a list of "
            "floats from 0 to 1."
        )
    wrong = array[~((array >= 0) & (array <= 1))]
    if wrong.size:
        raise ValueError(
            f"{name!r} has the accuracy {wrong[0]:.4g}, which is not from 0 to 1. "
            "Divide percentages by 100. Leave out runs that gave NaN."
        )
    return array.astype("float64")
