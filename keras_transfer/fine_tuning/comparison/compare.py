"""compare: what pretraining and each way to fine-tune are worth on a task."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import rows_of
from keras_transfer.fine_tuning.comparison.builders import Build
from keras_transfer.fine_tuning.comparison.builders import Builder
from keras_transfer.fine_tuning.comparison.negative_transfer import SCRATCH
from keras_transfer.fine_tuning.comparison.negative_transfer import ZERO_SHOT
from keras_transfer.fine_tuning.comparison.overlap import count_common
from keras_transfer.fine_tuning.comparison.results import Result
from keras_transfer.fine_tuning.comparison.results import Results
from keras_transfer.fine_tuning.comparison.verdict import Verdict
from keras_transfer.fine_tuning.comparison.verdict import verdict_of
from keras_transfer.fine_tuning.fine_tune import fine_tune
from keras_transfer.fine_tuning.inputs import checked_inputs
from keras_transfer.fine_tuning.inputs import Inputs
from keras_transfer.fine_tuning.pilot.scores import score_batches
from keras_transfer.fine_tuning.planned_run import BUDGET
from keras_transfer.fine_tuning.planned_run import planned_run
from keras_transfer.fine_tuning.run import Call
from keras_transfer.fine_tuning.run_folder import identity
from keras_transfer.fine_tuning.strategies import STRATEGIES as NAMES
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import discriminative

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
    accuracy, or else the loss. Differences are paired by seed and by test example.
    Their intervals contain both the variation over seeds and that of the test
    examples. The verdict answers whether there is negative transfer: whether the best
    of the pretrained rows is worse than training from scratch, or than no training.

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
        seeds: Integer, the number of runs of each row, with the seeds 0, 1 and so on.
            With one, there is no verdict. Defaults to 3.
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
    names = _checked(strategies)
    seeds = whole_number("seeds", seeds)
    epochs = whole_number("epochs", epochs)
    builder = Builder(build)
    model = builder.check(0, scratch=SCRATCH in names)
    inputs = checked_inputs(model, data, test, None)
    batches = _Batches(inputs)
    notes = _overlap(data, test)
    settings = {"epochs": epochs, "test": len(batches)}
    results = Results(directory, settings | identity(model, inputs.data, inputs.labels))
    if verbose and notes:
        print(f"compare: {notes[0]}")
    found = {name: [] for name in names}
    if zero_shot is not None:
        found[ZERO_SHOT] = [_zero_shot(model, zero_shot, batches)] * seeds
    settings = dict(batch_size=None, callbacks=None, class_weight=None)
    settings |= dict(validation_freq=1, verbose=0)
    _check_fits(names, Call(model, data, None, epochs, None, (), settings))
    del model
    for seed in range(seeds):
        for name in names:
            result = results.get(name, seed)
            if result is None:
                folder = results.folder_of(name, seed)
                quiet = 0 if verbose in (0, 1, "auto") else 1
                settings = dict(epochs=epochs, directory=folder, verbose=quiet)
                result = _run(builder, name, seed, data, batches, settings)
                results.add(name, seed, result)
            if verbose:
                value = result.score.summary()["estimate"]
                print(
                    f"compare: {name}, seed {seed}: {result.score.metric} {value:.3f}, "
                    f"{result.seconds:.1f} s"
                )
            found[name].append(result)
    return verdict_of(found, notes)


def _checked(strategies: Any) -> tuple[str, ...]:
    known = (SCRATCH, *NAMES)
    names = (strategies,) if isinstance(strategies, str) else tuple(strategies)
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(
            f"strategies={strategies!r} must be different names of {known}. A "
            "zero-shot row is a function, `zero_shot=`."
        )
    return names


class _Batches:
    """The test part in batches, always the same."""

    def __init__(self, inputs: Inputs) -> None:
        self._data, self._made = inputs.validation_data, inputs.made
        self._arrays = kind_of(self._data, x_alone=True) == ARRAYS
        if not self._arrays:
            self._data = list(batches_of(self._data))

    def __iter__(self) -> Iterator[tuple]:
        if not self._arrays:
            yield from (x if isinstance(x, tuple) else (x,) for x in self._data)
            return
        for start in range(0, len(self), BATCH_SIZE):
            batch = rows_of(self._data, slice(start, start + BATCH_SIZE))
            yield (batch,) if self._made else batch

    def __len__(self) -> int:
        if self._arrays:
            return count_rows(self._data)
        return sum(len(keras.tree.flatten(batch)[0]) for batch in self._data)


def _overlap(data: Any, test: Any) -> list[str]:
    """Return a note if test examples are training examples."""
    common = count_common(_inputs_of(data), _inputs_of(test))
    if not common:
        return []
    return [
        f"{common} test example(s) are also in the training data, so the scores are "
        "too high. Remove them from one of the two."
    ]


def _inputs_of(data: Any) -> Iterator[Any]:
    if isinstance(data, tuple):
        yield data[0]
    elif kind_of(data, x_alone=True) == ARRAYS:
        yield data
    else:
        for batch in batches_of(data):
            yield batch[0] if isinstance(batch, tuple) else batch


def _zero_shot(
    model: keras.Model, function: Callable[[Any], Any], batches: _Batches
) -> Result:
    """Return the score of the outputs of a function, by the metrics of a model."""
    began = time.perf_counter()
    answered = []
    for x, *rest in batches:
        outputs = np.asarray(keras.ops.convert_to_numpy(function(x)))
        expected = model.output_shape
        if outputs.shape[1:] != tuple(expected[1:]):
            raise ValueError(
                f"`zero_shot` returned outputs of the shape {outputs.shape}, but the "
                f"outputs of the model are {expected}. Return the same kind of outputs."
            )
        answered.append((outputs, *rest))
    seconds = time.perf_counter() - began
    arguments = _keras.compile_arguments(model)
    inputs = keras.Input(model.output_shape[1:])
    judge = keras.Model(inputs, keras.layers.Identity()(inputs))
    judge.compile(
        loss=arguments["loss"],
        metrics=arguments["metrics"],
        weighted_metrics=arguments["weighted_metrics"],
    )
    return Result(score_batches(judge, answered), seconds, 0, ZERO_SHOT)


def _check_fits(names: Sequence[str], call: Call) -> None:
    """Raise the error of a strategy that does not fit the model, without training."""
    # LoRA comes last, because it stays attached.
    for name in sorted(names, key=lambda name: name == "lora"):
        strategy = "full" if name == SCRATCH else name
        budget = 0.0 if name == "auto" else BUDGET
        try:
            with planned_run(call, strategy, "auto", budget):
                pass
        except ValueError as error:
            raise ValueError(
                f"The row {name!r} is not possible: {error} Or leave {name!r} out of "
                "`strategies`."
            ) from error


def _run(
    builder: Builder,
    name: str,
    seed: int,
    data: Any,
    batches: _Batches,
    settings: dict,
) -> Result:
    """Train a new model, and return its result."""
    model = builder(name != SCRATCH, seed)
    began = time.perf_counter()
    if name == SCRATCH:
        _set_equal_rates(model)
        settings = settings | {"strategy": "full", "batch_norm": "train"}
    else:
        settings = settings | {"strategy": name}
    history = fine_tune(model, data, **settings)
    seconds = time.perf_counter() - began
    chosen = SCRATCH if name == SCRATCH else history.strategy
    parameters = history.history["trainable_parameters"][-1]
    result = Result(score_batches(model, batches), seconds, int(parameters), chosen)
    del model, history
    gc.collect()
    return result


def _set_equal_rates(model: keras.Model) -> None:
    """Train all groups at the learning rate itself, because all are new."""
    optimizer = _keras.inner_optimizer(model.optimizer)
    if not isinstance(optimizer, Discriminative):
        with _keras.scope(model):
            groups = layer_groups(model)
            optimizer = discriminative(optimizer, groups, layer_decay=1.0)
        _keras.replace_optimizer(model, optimizer)
