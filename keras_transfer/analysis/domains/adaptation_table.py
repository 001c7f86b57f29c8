"""Methods of domain adaptation beside what to compare them with."""

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
    """One line of the table; None is what is not defined."""

    method: str
    mean: float
    standard_deviation: float | None
    num_seeds: int
    gap_closed: float | None
    note: str


def gap_closed(accuracy: float, source_only: float, on_target: float) -> float:
    """Return which share of the gap between two references an accuracy closes.

    `(accuracy - source_only) / (on_target - source_only)`: 0 is no better than no
    adaptation, 1 as good as labels of the target. It is below 0 for negative transfer,
    and may be above 1.

    Args:
        accuracy: Accuracy on the target's test part of the adapted model, from 0 to 1.
        source_only: That of the same network trained on the source alone.
        on_target: That of the same network trained on the target's labels.

    Returns:
        The share, as a float.

    Raises:
        ValueError: If an accuracy is not from 0 to 1, or the gap is not above 0, so
            that the share is not defined.

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
            f"The gap is {gap:.4g}: training on the target gave {on_target:.4g}, and "
            f"on the source alone {source_only:.4g}. There is nothing to close, so a "
            "share of it is not defined."
        )
    return float((accuracy - source_only) / gap)


class AdaptationTable:
    """Accuracies of several methods over seeds, and the share of the gap they close.

    A method can be judged only beside two references on the same network and recipe:
    trained on the source alone, and on the target's labels. Print the table, or read
    its `rows`. The share is `gap_closed` of the means; it is "undefined" where training
    on the target is no better than on the source.

    A method whose mean is below that of source-only is called negative transfer. It is
    "clear" where the loss is above two standard errors of the differences seed by seed,
    so accuracies must stand in the same order of seeds; else it is "within noise". One
    seed cannot tell.

    Args:
        methods: Dict from the name of a method to its accuracies on the target's test
            part, from 0 to 1, one a seed.
        source_only: Accuracies of the source-only reference, for the same seeds.
        on_target: Accuracies of the train-on-target reference, one or more.

    Raises:
        TypeError: If `methods` is not a dict.
        ValueError: If a method has no accuracy, one that is not from 0 to 1, not as
            many as source-only, or the name of a reference.

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
                "each method to its accuracies, one a seed."
            )
        base = _accuracies("source_only", source_only)
        best = _accuracies("on_target", on_target)
        self.rows = [_row(SOURCE_ONLY, base, base, best)]
        for name, values in methods.items():
            if name in (SOURCE_ONLY, ON_TARGET):
                raise ValueError(f"{name!r} names a reference. Rename the method.")
            values = _accuracies(name, values)
            if len(values) != len(base):
                raise ValueError(
                    f"{name!r} has {len(values)} accuracies, and source_only "
                    f"{len(base)}. They are compared seed by seed: pass both for the "
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
            seeds += f", {self.rows[-1].num_seeds} of {ON_TARGET!r}"
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
    """Return how sure it is that a method that lost on average did lose."""
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
            f"{name!r} has accuracies of the shape {array.shape}. Pass a list of one "
            "number for each seed, and at least one."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The accuracies of {name!r} are no numbers: {values!r}.")
    wrong = array[~((array >= 0) & (array <= 1))]
    if wrong.size:
        raise ValueError(
            f"{name!r} has the accuracy {wrong[0]:.4g}, which is not from 0 to 1. "
            "Divide percentages by 100; a run that gave NaN has no accuracy."
        )
    return array.astype("float64")
