"""The report function, which describes a fine-tuned model and its training."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer.analysis.directions import direction_in
from keras_transfer.analysis.movement import Lookup
from keras_transfer.analysis.movement import lookup
from keras_transfer.analysis.recorded_start import start_of
from keras_transfer.analysis.report.costs import costs
from keras_transfer.analysis.report.evaluation import evaluate
from keras_transfer.analysis.report.evaluation import NotFinite
from keras_transfer.analysis.report.facts import group_facts
from keras_transfer.analysis.report.findings import findings
from keras_transfer.analysis.report.pilot import pilot_facts
from keras_transfer.analysis.report.report_object import Report
from keras_transfer.analysis.report.shown_examples import described
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.optimizers.discriminative import as_groups

NO_START = (
    "no start was recorded: pass reference=, or call "
    "keras_transfer.analysis.record_start(model) before training"
)


def report(
    model: keras.Model | LayerGroups,
    history: keras.callbacks.History | dict | None = None,
    reference: keras.Model | list | None = None,
    data: Any = None,
    *,
    class_names: Sequence | Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """Return a report of a model: its layer groups, training cost and evaluation.

    The report begins with its findings, which are at most eight sentences about what is
    notable, such as "Class 7 is never predicted, but 12 examples have it." The findings
    cover losses that are not finite or did not fall, validation values that get worse
    when a phase begins or until the last epoch, overfitting, groups that did not move,
    and classes that are never predicted or often confused. A finding must be larger
    than the noise, such as twice the standard error of an accuracy. The report numbers
    epochs from 1, as Keras prints them; the keys of `to_dict()` number them from 0.

    For each layer group, the report shows:

    - the number of parameters and of trainable parameters,
    - how far the weights `w` moved from their start `w0`, as
      `||w - w0|| / ||w0||` over all floating weights except the statistics of
      BatchNorm (`||w - w0||` if `w0` is zero),
    - how many of these statistics changed,
    - the number of optimizer bytes for the group, on each replica.

    From `history`, the report shows the epochs, seconds and metrics of each phase. If
    `fine_tune` chose its strategy by a pilot, the report shows what the pilot tried,
    and a finding says if fine-tuning hurt. If `kt.callbacks.Energy` measured the
    training, the report shows its energy, and with `kt.analysis.Forgetting`, what the
    model forgot. From `data`, it shows metrics and the worst
    predictions.

    A value that was not recorded is shown as "not recorded" and never as 0.
    `GradualUnfreezing` and `fine_tune` record the start and the phases. Before a plain
    `fit`, call `kt.analysis.record_start(model)`.

    The report does not change the model. Weights, flags, statistics, seeds, optimizer,
    metrics, compiled functions and global random states stay exactly the same. Only
    state inside `data` can change, such as the next order of `Dataset.shuffle`.

    Args:
        model: A built Keras model, or a `LayerGroups` to use custom layer groups.
        history: The History that `fit` or `fine_tune` returns, or a dict of lists with
            one value for each epoch. The optional keys "phase", "seconds" and
            "trainable_parameters" are used. Defaults to `None`, not recorded.
        reference: The start to compare with, as a model with the same weights or a list
            of arrays as `get_weights()` returns. Defaults to `None`, the start from
            `record_start`.
        data: Examples to evaluate the model on: arrays `(x, y)`, a finite, batched
            `tf.data.Dataset`, or a finite `keras.utils.PyDataset`. The compiled loss
            decides whether labels are classes, several labels at once, or numbers.
            Without a compiled loss, the labels decide. Classes are numbered from 0 or
            one-hot. Outputs are logits or probabilities. If each token or pixel has a
            label, each one is evaluated. Examples, tokens and pixels are left out if
            the model masks them, the loss ignores their label, or their sample weight
            is 0. Other sample weights have no effect. For several outputs, pass labels
            as a list, or as a dictionary with the output names that `compile` accepts.
            Each output with labels is evaluated. Defaults to `None`, no evaluation.
        class_names: List of class names in the order of the outputs. For several
            outputs, a list or dictionary of such lists. If you pass class names, labels
            can be these names. Defaults to `None`, which uses the names of the dataset,
            then the names from the data of `fine_tune`, and otherwise numbers.

    Returns:
        A `Report`. Use `print(report)`, `report.to_dict()`, or `report.save(path)` with
        the suffix `.html`, `.md`, `.json` or `.txt`.

    Raises:
        TypeError: If `model` is not a Keras model, `history` is not a History or a dict
            of lists, `reference` is not a model or a list, or `data` is an iterator or
            of an unknown kind.
        ValueError: If the model is not built, the history has no epochs, `reference`
            has other shapes, `data` is empty, infinite or not batched, or labels or
            names do not fit the outputs.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        x, y = np.random.rand(32, 4), np.arange(32) % 2
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
        )
        model.compile(
            "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        unfreezing = kt.callbacks.GradualUnfreezing(model)
        history = model.fit(x, y, epochs=2, callbacks=[unfreezing], verbose=0)
        report = kt.report(model, history, data=(x, y))
        print(report)
        report.save("report.html")
        ```

    Reference:
        Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993. Li,
        Grandvalet and Davoine 2018, Explicit Inductive Bias for Transfer Learning with
        Convolutional Networks, arXiv:1802.01483 (the distance from the start).
    """
    groups = as_groups(model)
    model = groups.model
    start, said = _start(groups, reference)
    content, reasons = group_facts(groups, start)
    if start is None:
        reasons["groups.moved"] = NO_START
    content |= {"start": said, "phases": None, "epochs": None, "curves": None}
    content |= {"not_finite": None, "pilot": pilot_facts(history)}
    for key in ("energy", "forgetting"):
        content[key] = getattr(history, key, None)
    if history is None:
        reasons["phases"] = "no history was given: pass the History of fit()"
    else:
        found, missing = costs(history)
        content |= found
        reasons |= missing
    content["evaluation"], examples, broken = None, [], {}
    if data is None:
        reasons["evaluation"] = "no data was given: pass data=(x, y)"
    else:
        try:
            content["evaluation"], examples = evaluate(model, data, class_names)
        except NotFinite as error:
            reasons["evaluation"] = broken[""] = str(error)
    evaluations = [content["evaluation"]]
    if "by_output" in (content["evaluation"] or {}):
        parts = content["evaluation"]["by_output"]
        for name, each in parts.items():
            if isinstance(each, str):
                reasons[f"evaluation.{name}"] = broken[name] = each
                parts[name] = None
        evaluations = parts.values()
    worst = [row for each in evaluations if each for row in each["worst"]]
    for row, example in zip(worst, examples, strict=True):
        row["example"] = described(example)
    content["not_recorded"] = reasons
    ways = {name: direction_in(model, name) for name in content["curves"] or ()}
    return Report({"findings": findings(content, ways, broken)} | content, examples)


def _start(groups: LayerGroups, reference: Any) -> tuple[Lookup | None, str | None]:
    """Return a function to the start value of a weight, and the source of the start."""
    if reference is not None:
        return lookup(groups, reference), "the reference"
    record = start_of(groups.model)
    if record is None:
        return None, None
    if record.name == groups.model.name:
        return record.get, "the start recorded before training"
    return record.get, f"the start of {record.name!r}, recorded before training"
