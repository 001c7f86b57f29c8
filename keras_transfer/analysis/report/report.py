"""report: what a fine-tuned model is made of, how far it moved, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer.analysis.movement import Lookup
from keras_transfer.analysis.movement import lookup
from keras_transfer.analysis.recorded_start import start_of
from keras_transfer.analysis.report.costs import costs
from keras_transfer.analysis.report.evaluation import evaluate
from keras_transfer.analysis.report.evaluation import NotFinite
from keras_transfer.analysis.report.facts import group_facts
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
    """Return what `model` is made of, how far it moved, what it cost, what it knows.

    Per layer group: parameters, how many of them train, how far the weights `w` are
    from their start `w0`, as `||w - w0|| / ||w0||` over all floating weights but the
    statistics of BatchNorm (just `||w - w0||` where `w0` is zero), how many of those
    statistics moved, and the bytes that the optimizer holds for the group, on each
    replica. From the history: epochs, seconds and metrics of each phase. From data:
    what the model gets right, and where it is most wrong.

    What was not recorded reads "not recorded" and never 0. `GradualUnfreezing` and
    `fine_tune` record the start and the phases; before a plain `fit` call
    `kt.analysis.record_start(model)`.

    Reading changes nothing: weights, flags, statistics, seeds, optimizer, metrics,
    compiled functions and the global random states are bit for bit as before. What
    cannot be put back is inside `data`, such as the next order of `Dataset.shuffle`.

    Args:
        model: A built model, or its `LayerGroups` where the groups are your own.
        history: What `fit` or `fine_tune` returned, or a dict of lists with one value
            an epoch. Its "phase", "seconds" and "trainable_parameters" are used where
            they are. Default None: not recorded.
        reference: The start to compare with: a model of the same weights, or a list
            of arrays as `get_weights()` gives. Default None: what `record_start` kept.
        data: Examples to judge the model by: arrays `(x, y)`, a batched
            `tf.data.Dataset` or a `keras.utils.PyDataset`, with an end. The compiled
            loss decides between classes, several labels at once, and numbers; without
            one, the labels do. Classes are numbered from 0, or one-hot. Outputs may
            be logits or probabilities. Where there is a label for each token or pixel,
            each is judged; what the model masks, the loss ignores, or has a sample
            weight of 0 is left out. Of other sample weights no use is made. Of several
            outputs, labels are a list, or a dictionary by the names that `compile`
            takes, and each output with labels is judged. Default None: not recorded.
        class_names: Names of the classes in the order of the outputs; a list or
            dictionary of such for several outputs. Labels may then be these names.
            Default None: those of the dataset, those that the data of `fine_tune` had,
            or else numbers.

    Returns:
        A `Report`: `print` it, `save` it as `.html`, `.md`, `.json` or `.txt`, or take
        its `to_dict()`.

    Raises:
        TypeError: If `model` is no Keras model, `history` no History or dict of
            lists, `reference` no model or list, or `data` an iterator or unknown.
        ValueError: If the model is not built, the history has no epochs, `reference`
            has other shapes, or `data` is empty, endless or not batched, or has labels
            or names that do not fit the outputs.

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
    if history is None:
        reasons["phases"] = "no history was given: pass what fit() returned"
    else:
        found, missing = costs(history)
        content |= found
        reasons |= missing
    content["evaluation"], examples = None, []
    if data is None:
        reasons["evaluation"] = "no data was given: pass data=(x, y)"
    else:
        try:
            content["evaluation"], examples = evaluate(model, data, class_names)
        except NotFinite as error:
            reasons["evaluation"] = str(error)
    evaluations = [content["evaluation"]]
    if "by_output" in (content["evaluation"] or {}):
        parts = content["evaluation"]["by_output"]
        for name, each in parts.items():
            if isinstance(each, str):
                reasons[f"evaluation.{name}"], parts[name] = each, None
        evaluations = parts.values()
    worst = [row for each in evaluations if each for row in each["worst"]]
    for row, example in zip(worst, examples, strict=True):
        row["example"] = described(example)
    return Report(content | {"not_recorded": reasons}, examples)


def _start(groups: LayerGroups, reference: Any) -> tuple[Lookup | None, str | None]:
    """Return where the weights started, and what says so."""
    if reference is not None:
        return lookup(groups, reference), "the reference"
    record = start_of(groups.model)
    if record is None:
        return None, None
    if record.name == groups.model.name:
        return record.get, "what was recorded before training"
    return record.get, f"what was recorded of {record.name!r} before training"
