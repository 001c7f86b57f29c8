"""compare: what pretraining and each way to fine-tune are worth on a task."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import different_names
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.transferability.builders import Build
from keras_transfer.analysis.transferability.builders import Builder
from keras_transfer.analysis.transferability.builders import FIRST_SEED
from keras_transfer.analysis.transferability.builders import seeds_of_runs
from keras_transfer.fine_tuning.comparison.batches import Batches
from keras_transfer.fine_tuning.comparison.batches import check_test
from keras_transfer.fine_tuning.comparison.negative_transfer import SCRATCH
from keras_transfer.fine_tuning.comparison.negative_transfer import ZERO_SHOT
from keras_transfer.fine_tuning.comparison.one_run import check_fits
from keras_transfer.fine_tuning.comparison.one_run import Runs
from keras_transfer.fine_tuning.comparison.overlap import overlap_notes
from keras_transfer.fine_tuning.comparison.results import identity_of
from keras_transfer.fine_tuning.comparison.results import Result
from keras_transfer.fine_tuning.comparison.results import Results
from keras_transfer.fine_tuning.comparison.verdict import Verdict
from keras_transfer.fine_tuning.comparison.verdict import verdict_of
from keras_transfer.fine_tuning.inputs import checked_inputs
from keras_transfer.fine_tuning.inputs import output_of
from keras_transfer.fine_tuning.pilot.scores import score_batches
from keras_transfer.fine_tuning.strategies import STRATEGIES as NAMES

STRATEGIES = (SCRATCH, "probe", "lora", "lp-ft", "full")


def compare(
    build: Build,
    data: Any,
    *,
    test: Any,
    strategies: Sequence[str] = STRATEGIES,
    seeds: int = 3,
    epochs: int = 5,
    zero_shot: Callable[[Any], Any] | None = None,
    directory: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> Verdict:
    """Train a model in several ways, and tell what pretraining was worth.

    Every row has the same training examples, the same number of epochs and the same
    test examples. Only the seed differs between the runs of a row: of a new head, the
    order of the examples, and dropout. The rows are

    - `"scratch"`: all weights from `build(pretrained=False)`, at the learning rate of
      the compiled optimizer, with BatchNorm in training mode.
    - a strategy of `kt.fine_tune`: `"probe"`, `"lora"`, `"lp-ft"`, `"gradual"`,
      `"full"` or `"auto"`, from `build(pretrained=True)`.
    - `"zero-shot"`: the outputs of the function `zero_shot`, without training.

    The score is the first compiled metric that is a mean over examples, such as an
    accuracy, or else the loss, without penalties of regularizers. Differences are
    paired by seed and by test example. Their intervals contain both the variation over
    seeds and that of the test examples. The verdict answers whether there is negative
    transfer: whether the best of the pretrained rows is worse than training from
    scratch, or than no training.

    The table shows the cost of each row: the mean seconds of training, the CPU seconds
    of this process, and the energy where it can be measured, as `kt.callbacks.Energy`
    does.

    The rows see the test part once, at the end of a run. The best row is chosen with
    it, so its own accuracy is a little optimistic.

    Args:
        build: Function of one bool, `pretrained`, that returns a new model, built and
            compiled as for `kt.fine_tune`. Each call must load or create everything.
            It loads pretrained weights only if `pretrained`. The head is always new.
        data: The training data, as in `kt.fine_tune`.
        test: The test data, of the same types. A dataset is read once and kept in
            memory.
        strategies: Names of the rows. Defaults to `("scratch", "probe", "lora",
            "lp-ft", "full")`.
        seeds: Integer, the number of runs of each row, with the seeds 1000, 1001 and so
            on, so that no new head starts with the values of a head that was trained
            with a small seed. With one run, there is no verdict. Defaults to 3.
        epochs: Integer, the epochs of each run. Defaults to 5.
        zero_shot: Function from a batch of inputs of `test` to outputs of the shape and
            meaning of the model's outputs, such as logits. Defaults to `None`, no such
            row.
        directory: Folder for the finished runs and for the state of the current one.
            If the process is killed, repeat the call. Defaults to `None`, which keeps
            nothing.
        verbose: 1 or `"auto"` prints a line for each run, 2 also prints the training,
            0 prints nothing. Defaults to `"auto"`.

    Returns:
        A `kt.fine_tuning.Verdict`. Print it, or call its `plot` or `save`.

    Raises:
        TypeError: If `build` is not a function, or the type of the data is unknown.
        ValueError: If `build` ignores `pretrained` or returns a model or weights again,
            if a row is unknown or does not fit the model, if data or settings are not
            valid, or if `directory` belongs to another comparison. This is checked
            before the first training.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        weights = np.random.rand(6, 5)  # of a pretrained network


        def build(pretrained):
            backbone = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
            if pretrained:
                backbone.set_weights([weights, np.zeros(5)])
            model = kt.models.TransferClassifier(backbone, num_classes=2)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
            return model


        x, y = np.random.rand(60, 6), np.arange(60) % 2
        verdict = kt.compare(
            build,
            (x[:40], y[:40]),
            test=(x[40:], y[40:]),
            strategies=("scratch", "probe"),
            seeds=2,
            epochs=1,
            verbose=0,
        )
        print(verdict)
        assert verdict.negative_transfer in ("yes", "no", "undecided")
        ```

    Reference:
        Wang, Dai, Póczos and Carbonell 2019, Characterizing and Avoiding Negative
        Transfer, arXiv:1811.09751. Mosbach, Andriushchenko and Klakow 2021, On the
        Stability of Fine-tuning BERT, arXiv:2006.04884 (why several seeds).
    """
    why = "a zero-shot row is a function, `zero_shot=`"
    names = different_names("strategies", strategies, (SCRATCH, *NAMES), why)
    seeds = whole_number("seeds", seeds)
    epochs = whole_number("epochs", epochs)
    builder = Builder(build)
    check_test(test)
    if zero_shot is not None and not callable(zero_shot):
        raise TypeError(
            f"zero_shot={zero_shot!r} is not a function. Pass a function from a batch "
            "of inputs to outputs."
        )
    model = builder.check(FIRST_SEED, scratch=SCRATCH in names)
    inputs = checked_inputs(model, data, test, None)
    batches = Batches(inputs)
    notes = overlap_notes(data, test)
    settings = {"epochs": epochs, **identity_of(model, inputs, batches)}
    results = Results(directory, settings)
    if verbose and notes:
        print(f"compare: {notes[0]}")
    found = {name: [] for name in names}
    if zero_shot is not None:
        found[ZERO_SHOT] = [_zero_shot(model, zero_shot, batches)] * seeds
    check_fits(model, names, data, epochs)
    del model
    runs = Runs("compare", builder, batches, results, epochs, verbose)
    for seed in seeds_of_runs(seeds):
        for name in names:
            found[name].append(runs.run(name, name, seed, data))
    return verdict_of(found, notes)


def _zero_shot(
    model: keras.Model, function: Callable[[Any], Any], batches: Batches
) -> Result:
    """Return the score of the outputs of a function, by the metrics of a model."""
    expected = output_of(model)
    if expected is None:
        raise ValueError(
            f"The model {model.name!r} has several outputs, or one of unknown shape as "
            "a subclassed model, so `zero_shot` cannot have a row. Leave it out."
        )
    began, cpu_began = time.perf_counter(), time.process_time()
    answered = []
    for x, *rest in batches:
        outputs = np.asarray(keras.ops.convert_to_numpy(function(x)))
        if outputs.shape[1:] != expected[1:]:
            raise ValueError(
                f"`zero_shot` returned outputs of the shape {outputs.shape}, but the "
                f"outputs of the model are {expected}. Return the same kind of outputs."
            )
        answered.append((outputs, *rest))
    seconds = time.perf_counter() - began
    cpu_seconds = time.process_time() - cpu_began
    arguments = _keras.compile_arguments(model)
    inputs = keras.Input(expected[1:], dtype="float32")
    judge = keras.Model(inputs, keras.layers.Identity(dtype="float32")(inputs))
    judge.compile(
        loss=arguments["loss"],
        metrics=arguments["metrics"],
        weighted_metrics=arguments["weighted_metrics"],
    )
    score = score_batches(judge, answered)
    return Result(score, seconds, 0, ZERO_SHOT, cpu_seconds)
