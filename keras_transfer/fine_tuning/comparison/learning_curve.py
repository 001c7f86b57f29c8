"""learning_curve: what more labels would bring."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.transferability.builders import Build
from keras_transfer.analysis.transferability.builders import Builder
from keras_transfer.analysis.transferability.builders import FIRST_SEED
from keras_transfer.analysis.transferability.builders import seeds_of_runs
from keras_transfer.data.examples import rows_of
from keras_transfer.fine_tuning.comparison.batches import Batches
from keras_transfer.fine_tuning.comparison.batches import check_test
from keras_transfer.fine_tuning.comparison.curve import curve_of
from keras_transfer.fine_tuning.comparison.curve import LearningCurve
from keras_transfer.fine_tuning.comparison.negative_transfer import SCRATCH
from keras_transfer.fine_tuning.comparison.one_run import check_fits
from keras_transfer.fine_tuning.comparison.one_run import Runs
from keras_transfer.fine_tuning.comparison.overlap import overlap_notes
from keras_transfer.fine_tuning.comparison.results import identity_of
from keras_transfer.fine_tuning.comparison.results import Results
from keras_transfer.fine_tuning.comparison.subsets import as_arrays
from keras_transfer.fine_tuning.comparison.subsets import checked_sizes
from keras_transfer.fine_tuning.comparison.subsets import nested_order
from keras_transfer.fine_tuning.inputs import checked_inputs
from keras_transfer.fine_tuning.strategies import STRATEGIES
from keras_transfer.losses.compiled_loss import read_loss


def learning_curve(
    build: Build,
    data: Any,
    *,
    test: Any,
    sizes: Sequence[int] | None = None,
    strategy: str = "lp-ft",
    seeds: int = 3,
    epochs: int = 5,
    directory: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> LearningCurve:
    """Train on subsets of the labels, and tell what more labels would bring.

    For each seed the subsets are nested, and each has the classes in the same shares.
    Each run trains for `epochs` epochs, so with fewer labels it makes fewer steps. A
    power law `loss = a + b n⁻ᶜ` is fitted to the means by size, where the loss is 1
    less the accuracy, or the loss itself. Its forecasts for two and four times as many
    labels have intervals from the variation over seeds. With fewer than four sizes, or
    with one seed, there is no forecast, and the curve says so. It also says so if the
    interval contains no change at all.

    A forecast is for labels of the same kind. It assumes that the law continues, which
    is a good description in the literature, but not certain.

    Args:
        build: Function of one bool, `pretrained`, that returns a new model, as in
            `kt.compare`.
        data: The training data: arrays, or a dataset, which is read into memory.
        test: The test data, as in `kt.compare`.
        sizes: Numbers of labels. Defaults to `None`: all labels, and a half, a fourth,
            an eighth and a sixteenth of them, as far as this is 8 and two of each class
            or more.
        strategy: `"scratch"`, or a strategy of `kt.fine_tune`. Defaults to `"lp-ft"`.
        seeds: Integer, the number of runs for each size. Defaults to 3.
        epochs: Integer, the epochs of each run. Defaults to 5.
        directory: As in `kt.compare`. Defaults to `None`, which keeps nothing.
        verbose: As in `kt.compare`. Defaults to `"auto"`.

    Returns:
        A `kt.fine_tuning.LearningCurve`. Print it, or call its `plot` or `save`.

    Raises:
        TypeError: If `build` is not a function, or the type of the data is unknown.
        ValueError: If sizes are beyond the data or below the number of classes, or as
            in `kt.compare`.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np


        def build(pretrained):
            backbone = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
            model = kt.models.TransferClassifier(backbone, num_classes=2)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
            return model


        x, y = np.random.rand(60, 6), np.arange(60) % 2
        curve = kt.learning_curve(
            build,
            (x[:40], y[:40]),
            test=(x[40:], y[40:]),
            sizes=(20, 40),
            strategy="probe",
            seeds=2,
            epochs=1,
            verbose=0,
        )
        print(curve)
        assert curve.forecasts == []  # two sizes are too few for a power law
        ```

    Reference:
        Hestness et al. 2017, Deep Learning Scaling is Predictable, Empirically,
        arXiv:1712.00409. Hoiem et al. 2021, Learning Curves for Analysis of Deep
        Networks, arXiv:2010.11029.
    """
    one_of("strategy", strategy, (SCRATCH, *STRATEGIES))
    seeds = whole_number("seeds", seeds)
    epochs = whole_number("epochs", epochs)
    builder = Builder(build)
    check_test(test)
    model = builder.check(FIRST_SEED, scratch=strategy == SCRATCH)
    checked_inputs(model, data, test, None)
    notes = overlap_notes(data, test)
    data = as_arrays(data)
    inputs = checked_inputs(model, data, test, None)
    batches = Batches(inputs)
    classes = _classes(model, inputs.labels)
    count = len(keras.tree.flatten(inputs.labels)[0])
    num_classes = 1 if classes is None else len(np.unique(classes))
    sizes = checked_sizes(sizes, count, num_classes)
    settings = {"epochs": epochs, "strategy": strategy}
    settings |= identity_of(model, inputs, batches)
    results = Results(directory, settings)
    if verbose and notes:
        print(f"learning_curve: {notes[0]}")
    check_fits(model, [strategy], data, epochs)
    del model
    found = {size: [] for size in sizes}
    runs = Runs("learning_curve", builder, batches, results, epochs, verbose)
    for seed in seeds_of_runs(seeds):
        order = nested_order(classes, count, seed)
        for size in sizes:
            part = rows_of(data, np.sort(order[:size]))
            found[size].append(runs.run(f"{size} labels", strategy, seed, part))
    return curve_of(found, strategy, notes)


def _classes(model: keras.Model, labels: Any) -> np.ndarray | None:
    """Return the class of each example, or None if labels are not classes."""
    said = read_loss(_keras.compile_arguments(model)["loss"])
    if said.is_classifier is not True or keras.tree.is_nested(labels):
        return None
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()
        return labels.argmax(1) if one_hot else None
    return np.unique(labels, return_inverse=True)[1].reshape(-1)
