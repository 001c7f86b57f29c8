"""fairness: what a model predicts for each group, next to a baseline."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.analysis.audit.fairness_audit import FairnessAudit
from keras_transfer.analysis.audit.fairness_baseline import baseline_rows
from keras_transfer.analysis.audit.fairness_baseline import needs_probe
from keras_transfer.analysis.audit.fairness_baseline import prepared
from keras_transfer.analysis.audit.fairness_facts import attribute_facts
from keras_transfer.analysis.audit.fairness_facts import BASELINE
from keras_transfer.analysis.audit.fairness_facts import MODEL
from keras_transfer.analysis.audit.fairness_groups import Attribute
from keras_transfer.analysis.audit.fairness_groups import numbered_as
from keras_transfer.analysis.audit.fairness_groups import read_groups
from keras_transfer.analysis.audit.fairness_intervals import DRAWS
from keras_transfer.analysis.audit.fairness_intervals import LEVEL
from keras_transfer.analysis.audit.fairness_intervals import SEED
from keras_transfer.analysis.audit.fairness_rows import AuditRows
from keras_transfer.analysis.audit.fairness_rows import check_order
from keras_transfer.analysis.audit.fairness_rows import class_number
from keras_transfer.analysis.audit.fairness_rows import CLASSES
from keras_transfer.analysis.audit.fairness_rows import read_rows
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.labels import listed
from keras_transfer.data.named_labels import is_named
from keras_transfer.data.named_labels import number_names

MOST = 20  # largest number of classes that are audited one by one


def fairness(
    model: keras.Model,
    data: Any,
    groups: Any,
    *,
    baseline: keras.Model | None = None,
    train: tuple | None = None,
    positive: int | str | None = None,
    smallest: int = 30,
) -> FairnessAudit:
    """Measure what a model predicts for each group of examples, next to a baseline.

    For each group: the share of positive labels and of positive predictions, the
    accuracy, the rates of false positives and false negatives, and the precision. For a
    regression: the means of labels, predictions and errors, the mean absolute error and
    the root mean squared error. fairlearn's `MetricFrame` computes them. For each
    measure, the result has the groups with the highest and the lowest value, their
    difference and their ratio (lowest / highest). These measures are the usual ones of
    demographic parity, equalized odds and predictive parity. They can exclude each
    other if groups have different shares of positive labels. The function measures. It
    does not decide whether a difference is justified, or harmful.

    With a `baseline`, such as the model before fine-tuning, the same measures of the
    baseline, and how much larger each largest difference is with the model. So what
    fine-tuning amplified is seen.

    The shares show which groups the examples of a class belong to: among the training
    labels, the labels of `data`, and the predictions. Their bias amplification is

        mean over classes c of  sum over groups g with b*(c, g) > 1 / groups
            of  b(c, g) - b*(c, g)

    where `b*(c, g)` is the share of group g among the reference labels of class c, and
    `b(c, g)` the share among the predictions. Above 0, a model exaggerates the groups
    that already dominate a class. One reference are the labels of `data`, and another
    the training labels, if `train` has groups. The second one, that of the paper,
    assumes that `data` has the same mix of groups as the training data: another mix
    changes the shares too.

    Intervals are 95 % percentile intervals of a bootstrap with a fixed seed. It draws
    1,000 times, with replacement within each group, and the same examples for both
    models. The interval of a largest difference is that of its two groups. These were
    chosen because they are far apart, so with many groups it is too far from 0. An
    interval does not contain what a new training would change. Draws in which a value
    is not defined do not count, and for a value that no draw changes, such as a rate of
    0, there is no interval.

    The models do not change.

    Args:
        model: A Keras model with one output, for classes or for one number. The
            compiled loss decides which, as in `kt.report`; otherwise the labels.
        data: Held-out examples: arrays `(x, y)`, a batched `tf.data.Dataset` with a
            fixed order, or a `keras.utils.PyDataset`.
        groups: Array with the group of each example, in the order of `data`. For
            several attributes, a dict or DataFrame of arrays. Then their intersection
            is measured too, unless it has more than 50 groups.
        baseline: A model for the same labels. Or a backbone: then a logistic probe (for
            numbers, a ridge regression) on its `kt.backbones.features` predicts. The
            probe is fitted on `train`, and otherwise by cross-fitting on `data` in five
            folds, so it never predicts an example that it was fitted on. If only the
            model has a preprocessor, the baseline gets what it returns. Defaults to
            None, no baseline.
        train: Training examples as arrays: `(x, y, groups)` with the attributes of
            `groups`, for the shares in the training labels, and `(x, y)` for the probe
            of a backbone only. Defaults to None.
        positive: Number or name of the class that counts as positive. Defaults to None:
            class 1 of two classes, and otherwise each class against the others.
        smallest: Integer of 2 or more. A group with fewer examples is marked as small,
            and left out of the largest differences. Defaults to 30.

    Returns:
        A `kt.analysis.FairnessAudit`. Print it, or call its `plot` and `save`.

    Raises:
        ImportError: If fairlearn is not installed (the extra `audit`).
        TypeError: If a model is not a Keras model, or `data` or `groups` are of an
            unknown kind.
        ValueError: If groups are missing, of another number or all the same; if labels
            are of one class; if labels or outputs are NaN; if an argument has no
            effect; or if the baseline predicts other labels.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        x = np.random.rand(80, 4).astype("float32")
        y, sex = np.arange(80) % 2, np.repeat(["women", "men"], 40)
        base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model = keras.Sequential([base, keras.layers.Dense(2)])
        audit = kt.analysis.fairness(model, (x, y), sex, baseline=base)
        print(audit)
        rates = audit.values("positive_rate", "group")
        assert set(rates) == {"women", "men"}
        ```

    Reference:
        Hardt, Price and Srebro 2016, Equality of Opportunity in Supervised Learning,
        arXiv:1610.02413. Zhao, Wang, Yatskar, Ordonez and Chang 2017, Men Also Like
        Shopping: Reducing Gender Bias Amplification using Corpus-level Constraints,
        arXiv:1707.09457. Weerts et al. 2023, Fairlearn: Assessing and Improving
        Fairness of AI Systems, arXiv:2303.16626.
    """
    whole_number("smallest", smallest, 2, why="one example has no spread")
    if baseline is model:
        raise ValueError(
            "baseline is the model itself, so there is nothing to compare. Pass a copy "
            "from before fine-tuning, such as a new backbone from the same preset."
        )
    check_order(data)
    rows = read_rows(model, data)
    attributes = read_groups(groups, len(rows.true))
    positives = _positives(positive, rows)
    known, training = _training(train, rows, attributes)
    models, said = {MODEL: rows}, None
    probed = isinstance(baseline, keras.Model) and needs_probe(baseline, rows)
    if train is not None and training is None and not probed:
        raise ValueError(
            "`train` has no effect: it has no groups, and there is no backbone as "
            "`baseline` to fit a probe for. Pass train=(x, y, groups), or leave it out."
        )
    if baseline is not None:
        read, known = (prepared(each, model, baseline) for each in (data, known))
        models[BASELINE], said = baseline_rows(baseline, read, rows, known)
    content = {
        "model": model.name,
        "baseline": said,
        "kind": rows.kind,
        "examples": len(rows.true),
        "classes": [*rows.classes],
        "positive": [each for each in positives if each is not None],
        "smallest": int(smallest),
        "bootstrap": {"draws": DRAWS, "seed": SEED, "level": LEVEL},
        "attributes": [
            attribute_facts(
                each,
                models,
                positives,
                smallest,
                _of(training, each.name),
            )
            for each in attributes
        ],
    }
    return FairnessAudit(content)


def _positives(positive: Any, rows: AuditRows) -> list[int | None]:
    if positive is not None:
        return [class_number(positive, rows)]
    if rows.kind != CLASSES:
        return [None]
    if len(rows.classes) == 2:
        return [1]
    if len(rows.classes) > MOST:
        raise ValueError(
            f"There are {len(rows.classes)} classes, too many to audit one by one. "
            f"Choose one: positive={rows.classes[0]!r}."
        )
    return [*range(len(rows.classes))]


def _training(
    train: Any, rows: AuditRows, attributes: list[Attribute]
) -> tuple[tuple | None, tuple | None]:
    """Return `(x, labels)` for a probe, and labels with group numbers by attribute."""
    if train is None:
        return None, None
    if not isinstance(train, tuple) or len(train) not in (2, 3):
        raise TypeError(
            f"`train` is a {type(train).__name__}. Pass arrays, (x, y, groups) or "
            "(x, y)."
        )
    labels = _labels(train[1], rows)
    count_rows((train[0], labels), "train")
    known = (train[0], labels)
    if len(train) == 2:
        return known, None
    if rows.kind != CLASSES:
        raise ValueError(
            "`train` has groups, which have no effect for numbers: only classes have "
            "shares. Pass train=(x, y), or leave it out."
        )
    others = read_groups(train[2], len(labels), "train groups")
    names, found = ([each.name for each in group] for group in (attributes, others))
    # A rare intersection can be missing in one part.
    plain = [each.name for each in attributes if not each.parts]
    if plain != [each.name for each in others if not each.parts]:
        raise ValueError(
            f"The groups of `train` have the attributes {found}, but `groups` has "
            f"{names}. Pass the same attributes in the same order."
        )
    parts = {each.name: each for each in others}
    index = {
        each.name: numbered_as(each, parts[each.name], "groups of `train`")
        for each in attributes
        if each.name in parts
    }
    return known, (labels, index)


def _of(training: tuple | None, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return labels and group numbers of one attribute, if `train` has it."""
    if training is None or name not in training[1]:
        return None
    return training[0], training[1][name]


def _labels(y: Any, rows: AuditRows) -> np.ndarray:
    """Return training labels as class numbers or numbers, in the form of `rows`."""
    y = map_arrays(lambda array: array, y)
    if rows.kind == CLASSES and is_named(y):
        return number_names(y, rows.classes)
    if y.ndim == 2 and y.shape[1] > 1 and rows.kind == CLASSES:
        y = y.argmax(1)
    y = y.reshape(-1)
    if y.dtype.kind not in "biuf" or not np.isfinite(y.astype("float64")).all():
        raise ValueError("The labels of `train` are not finite numbers. Correct them.")
    if rows.kind != CLASSES:
        return y.astype("float64")
    wrong = y[(y % 1 != 0) | (y < 0) | (y >= len(rows.classes))] if y.size else y
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {y.size} labels of `train` are not a class of the model: "
            f"{listed(np.unique(wrong))}. Number the classes as in `data`."
        )
    return y.astype("int64")
