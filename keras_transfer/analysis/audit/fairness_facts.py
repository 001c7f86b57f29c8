"""What an audit knows about one attribute: groups, measures, differences, shares."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from keras_transfer.analysis.audit.fairness_groups import Attribute
from keras_transfer.analysis.audit.fairness_intervals import difference_of
from keras_transfer.analysis.audit.fairness_intervals import extremes
from keras_transfer.analysis.audit.fairness_intervals import interval
from keras_transfer.analysis.audit.fairness_intervals import ratio_of
from keras_transfer.analysis.audit.fairness_intervals import resample
from keras_transfer.analysis.audit.fairness_measures import by_group
from keras_transfer.analysis.audit.fairness_measures import columns_of
from keras_transfer.analysis.audit.fairness_measures import from_means
from keras_transfer.analysis.audit.fairness_measures import OF_LABELS
from keras_transfer.analysis.audit.fairness_measures import WITHOUT_RATIO
from keras_transfer.analysis.audit.fairness_rows import AuditRows
from keras_transfer.analysis.audit.fairness_shares import amplification
from keras_transfer.analysis.audit.fairness_shares import label_shares
from keras_transfer.analysis.audit.fairness_shares import share_facts
from keras_transfer.analysis.audit.fairness_shares import shares_of

MODEL, BASELINE = "model", "baseline"


class Found:
    """The values and the bootstrap draws of each measure, of all models and classes.

    Args:
        attribute: The groups.
        models: Dict from "model" and perhaps "baseline" to labels and predictions.
        positives: The classes that are counted as positive, or None for numbers.
    """

    def __init__(
        self,
        attribute: Attribute,
        models: Mapping[str, AuditRows],
        positives: Sequence[int | None],
    ) -> None:
        keys = [(name, positive) for name in models for positive in positives]
        columns = [columns_of(models[name], positive) for name, positive in keys]
        ends = np.cumsum([each.shape[1] for each in columns])[:-1]
        means = resample(
            np.concatenate(columns, axis=1), attribute.index, len(attribute.groups)
        )
        parts = np.split(means, ends, axis=-1)
        self.draws, self.values = {}, {}
        for (name, positive), part in zip(keys, parts, strict=True):
            self.values[name, positive] = by_group(models[name], attribute, positive)
            self.draws[name, positive] = from_means(part, positive)

    def of(
        self, name: str, positive: int | None, measure: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values `(groups,)` and draws `(groups, draws)`."""
        key = name, positive
        return self.values[key][measure], self.draws[key][measure]


def attribute_facts(
    attribute: Attribute,
    models: Mapping[str, AuditRows],
    positives: Sequence[int | None],
    smallest: int,
    training: tuple[np.ndarray, np.ndarray] | None,
) -> dict:
    """Return the facts of one attribute, as a dict that JSON can store.

    Args:
        attribute: The groups.
        models: Dict from "model" and perhaps "baseline" to labels and predictions.
        positives: Numbers of the classes to count as positive, or [None] for numbers.
        smallest: Least number of examples of a group for the largest differences.
        training: Class numbers and group numbers of training examples, or None.
    """
    sizes = np.bincount(attribute.index, minlength=len(attribute.groups))
    found = Found(attribute, models, positives)
    measures = [
        _measure(found, attribute, name, positive, sizes >= smallest)
        for positive in positives
        for name in found.values[MODEL, positive]
        if name != "accuracy" or positive == positives[0]
    ]
    facts = {
        "name": attribute.name,
        "intersection_of": list(attribute.parts),
        "groups": [
            {"name": name, "examples": int(size), "small": bool(size < smallest)}
            for name, size in zip(attribute.groups, sizes, strict=True)
        ],
        "measures": measures,
        "shares": None,
        "amplification": None,
    }
    if positives[0] is not None:
        facts |= _shares(found, attribute, models, positives, training)
    return facts


def _measure(
    found: Found,
    attribute: Attribute,
    name: str,
    positive: int | None,
    large: np.ndarray,
) -> dict:
    facts = {"measure": name, "class": None if name == "accuracy" else positive}
    gaps = {}
    for model in (MODEL, BASELINE):
        facts[model] = None
        if (model, positive) not in found.values or (
            name in OF_LABELS and model == BASELINE
        ):
            continue
        values, draws = found.of(model, positive, name)
        facts[model] = {"values": share_facts(values, draws), "largest": None}
        pair = extremes(values, large)
        if pair is None:
            continue
        gaps[model] = difference_of(values, draws, pair)
        facts[model]["largest"] = {
            "highest": attribute.groups[pair[0]],
            "lowest": attribute.groups[pair[1]],
            "difference": interval(*gaps[model]),
            "ratio": None if name in WITHOUT_RATIO else ratio_of(values, draws, pair),
        }
    facts["change"] = None
    if len(gaps) == 2:
        (value, draws), (before, earlier) = gaps[MODEL], gaps[BASELINE]
        facts["change"] = interval(value - before, draws - earlier)
    return facts


def _shares(
    found: Found,
    attribute: Attribute,
    models: Mapping[str, AuditRows],
    positives: Sequence[int],
    training: tuple[np.ndarray, np.ndarray] | None,
) -> dict:
    """Return shares of the groups in each class, and the bias amplification."""
    count = len(attribute.groups)
    sizes = np.bincount(attribute.index, minlength=count)
    rows, by_class = [], []
    for positive in positives:
        shares = {}
        if training is not None:
            known = label_shares(training[0] == positive, training[1], count)
            shares["training"] = known, known[:, None]
        sources = {"labels": (MODEL, "label_rate")}
        sources |= {name: (name, "positive_rate") for name in models}
        for key, (name, measure) in sources.items():
            values, draws = found.of(name, positive, measure)
            shares[key] = shares_of(values, sizes), shares_of(draws, sizes)
        row = {"class": positive, "training": None, BASELINE: None}
        row |= {key: share_facts(*each) for key, each in shares.items()}
        if training is not None:
            row["training"] = [_plain(each) for each in known]
        rows.append(row)
        by_class.append(shares)
    amplified = {
        reference: _amplified(reference, by_class, [*models])
        for reference in ("training", "labels")
    }
    return {"shares": rows, "amplification": amplified}


def _amplified(
    reference: str, by_class: Sequence[Mapping[str, tuple]], models: Sequence[str]
) -> dict | None:
    """Return the bias amplification of each model against one reference."""
    # A class without reference labels has no share that could be amplified.
    stated = [
        each
        for each in by_class
        if reference in each and np.isfinite(each[reference][0]).all()
    ]
    if not stated:
        return None
    counted = [each[reference][0] > 1 / len(each[reference][0]) for each in stated]
    found, facts = {}, {BASELINE: None, "change": None}
    for name in models:
        value, draws = (
            amplification(
                [each[reference][side] for each in stated],
                [each[name][side] for each in stated],
                counted,
            )
            for side in (0, 1)
        )
        found[name] = float(value), draws
        facts[name] = interval(*found[name])
    if len(found) == 2:
        (value, draws), (before, earlier) = found[MODEL], found[BASELINE]
        facts["change"] = interval(value - before, draws - earlier)
    return facts


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
