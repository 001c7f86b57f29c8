"""The learning rate range test: which rates a model can be trained at."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.callbacks.learning_rate_checks import check_model
from keras_transfer.callbacks.learning_rate_checks import check_range
from keras_transfer.callbacks.learning_rate_curve import LearningRateCurve
from keras_transfer.data.examples import fit_arguments
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.finite_numbers import check_numbers
from keras_transfer.data.finite_numbers import has_broken
from keras_transfer.optimizers.discriminative import Discriminative

# The sweep ends once the smoothed loss has risen by this many times its lowest value,
# or this many times a share of its first, or noise would end it where it is near 0.
RISE = 3.0
SHARE = 0.1
# What fit() sets on a model, or is set for it here; absent ones are taken away again.
ATTRIBUTES = (
    "optimizer",
    "train_function",
    "test_function",
    "steps_per_execution",
    "stop_training",
    "history",
)
ABSENT = object()
ARRAYS = ("x", "y", "sample_weight")


def find_learning_rate(
    model: keras.Model,
    data: Any,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int | None = None,
    smoothing: float = 0.9,
) -> LearningRateCurve:
    """Train `model` at rising learning rates, put it back, and return the losses.

    The range test: batch `i` is trained at `lowest * (highest / lowest) ** (i /
    (steps - 1))`. The loss stays at first, falls where the rate is useful, and rises
    where it is too high. The sweep ends there: when the smoothed loss has risen from
    its lowest value by 3 times that (or by 3 tenths of the first, if that is more), or
    when the loss is not finite. All goes through `fit` with a copy of the compiled
    optimizer, so with the settings you will train with: what is frozen stays so,
    `discriminative` factors multiply the rate, and a schedule is left out.
    `steps_per_execution` is 1 meanwhile.

    Afterward nothing has happened, after an error or an interrupt too: weights,
    statistics, seeds, metrics, optimizer, flags, `history` and the compiled train
    function are bit for bit as before, as are the global random states of Python,
    NumPy, Keras and of eager TensorFlow. What cannot be put back is inside `data`, such
    as the next order of `Dataset.shuffle`, and inside TensorFlow's own random kernels
    (`tf.random.normal`; nothing of Keras uses them). An optimizer that has made updates
    has its slots in memory twice meanwhile.

    Args:
        model: A built and compiled model with one optimizer.
        data: What to train on, as often as needed: a tuple of arrays `(x, y)` or
            `(x, y, sample_weight)`, which are shuffled with a fixed seed; a batched
            `tf.data.Dataset`; or a `keras.utils.PyDataset`.
        lowest: Float above 0; the first rate, per step. Default 1e-7.
        highest: Float above `lowest`; the last rate, per step. Default 10.
        steps: Int of at least 10; the number of batches, and of rates. Default 100.
        batch_size: Int; examples a batch, for arrays alone. Default None, which is 32.
        smoothing: Float in [0, 1); the share of the past in the exponential average
            `a[i] = smoothing * a[i - 1] + (1 - smoothing) * loss[i]`, which is divided
            by `1 - smoothing ** (i + 1)`. Default 0.9.

    Returns:
        A `LearningRateCurve` with `rates`, `losses`, `suggestion` and `plot()`. Print
        it to see what it suggests, and why.

    Raises:
        TypeError: If `data` is an iterator or of a kind that is not listed.
        ValueError: If `model` is not built, not compiled, all frozen or has several
            optimizers, `data` is empty or not batched, an argument is out of range, or
            a loss is not finite with the weights that the model has.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        x = np.random.default_rng(0).normal(size=(64, 4))
        curve = kt.find_learning_rate(model, (x, x.sum(axis=1)))
        model.optimizer.learning_rate = curve.suggestion
        ```

    Reference:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks,
        arXiv:1506.01186, section 3.3. Howard and Gugger 2020, fastai: A Layered API
        for Deep Learning, arXiv:2002.04688 (`lr_find` and its rule "valley").
    """
    check_model(model)
    check_range(lowest, highest, steps, smoothing)
    settings = fit_arguments(model, data, steps, batch_size)
    check_numbers(model, data)
    sweep = _Sweep(np.geomspace(lowest, highest, steps), smoothing)
    with _unchanged(model):
        model.optimizer = _copy(model.optimizer, model, float(lowest))
        model.steps_per_execution = 1
        _keras.remake_functions(model, "train")  # it has the optimizer in its graph
        with warnings.catch_warnings():
            # Of a dataset that turns out to be empty we tell ourselves.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            model.fit(**settings, callbacks=[sweep], shuffle=False, verbose=0)
        values = _keras.snapshot(model.trainable_variables)
    curve = sweep.curve()
    # A ReLU may make 0 of NaN, so that the loss alone does not tell.
    if not math.isfinite(sweep.last) or has_broken(values):
        _check_data(model, settings, len(curve.rates) + 1)
    return curve


class _Sweep(keras.callbacks.Callback):
    """Sets a rate before each batch and keeps the smoothed loss after it."""

    def __init__(self, rates: np.ndarray, smoothing: float) -> None:
        super().__init__()
        self.rates = rates
        self.smoothing = smoothing
        self.average = 0.0
        self.losses = []
        self.last = None
        self.ended = ""

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.model.optimizer.learning_rate = self.rates[len(self.losses)]
        self.model.reset_metrics()  # or the loss would be the mean of the epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if "loss" not in (logs or {}):
            raise ValueError(
                f"The train step of the model reports {sorted(logs or {})} and no "
                "'loss', so there is nothing to find a rate by. Return it from "
                "train_step."
            )
        self.last = float(logs["loss"])
        if not math.isfinite(self.last):
            self.ended = f"the next loss was {self.last}"
            self.model.stop_training = True
            return
        self.average += (1 - self.smoothing) * (self.last - self.average)
        count = len(self.losses) + 1
        self.losses.append(self.average / (1 - self.smoothing**count))
        best = min(self.losses)
        scale = max(abs(best), SHARE * abs(self.losses[0]))
        if self.losses[-1] - best > RISE * scale:
            self.ended = f"the loss had risen to {self.losses[-1]:.4g}"
        elif count == len(self.rates):
            self.ended = "the whole range"
        self.model.stop_training = bool(self.ended)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.last is None:  # the next epoch would be as empty
            self.model.stop_training = True

    def curve(self) -> LearningRateCurve:
        """Return what was seen."""
        if self.last is None:
            raise ValueError("`data` is empty: it gave no batch to train on.")
        if not self.losses:
            raise ValueError(
                f"The loss of the first batch is {self.last}, before any update. Look "
                "for values in `data` that are not finite, or labels out of range."
            )
        return LearningRateCurve(
            self.rates[: len(self.losses)],
            np.array(self.losses, "float64"),
            self.ended,
        )


def _check_data(model: keras.Model, settings: dict, batches: int) -> None:
    """Check that the loss of some batches is finite with the weights as they are.

    Raises:
        ValueError: If it is not: then it is the data, and no rate, that makes it so.
    """
    given = {key: settings[key] for key in settings if key in ARRAYS}
    if "batch_size" in settings:
        rows = slice(batches * settings["batch_size"])
        given = {key: map_arrays(lambda x: x[rows], x) for key, x in given.items()}
        given["batch_size"] = settings["batch_size"]
    else:
        for number, batch in enumerate(itertools.islice(_endless(given["x"]), batches)):
            if has_broken(batch):
                raise ValueError(
                    f"Batch {number} of `data` has values that are NaN or infinite, "
                    "which made weights of the model so at any rate. Take these "
                    "examples out, or fill the values in."
                )
        if not isinstance(given["x"], keras.utils.PyDataset):
            given["steps"] = batches
    with _unchanged(model):
        loss = model.evaluate(**given, verbose=0, return_dict=True).get("loss", 0.0)
    if not math.isfinite(loss):
        raise ValueError(
            f"The loss of batches in the first {batches} is {loss} with the weights "
            "that the model has, so it is not a learning rate that makes it so. Look "
            "for values in `data` that are not finite, or labels out of range."
        )


def _endless(data: Any) -> Iterator:
    if isinstance(data, keras.utils.PyDataset):
        yield from map(data.__getitem__, range(data.num_batches or 0))
    else:
        yield from data


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Put back all that a `fit` of `model` changes.

    The optimizer is replaced meanwhile, so that its own state stays; `fit` does not
    touch trainable flags.
    """
    attributes = {name: getattr(model, name, ABSENT) for name in ATTRIBUTES}
    variables = [*model.variables, *model.metrics_variables]
    with _keras.random_state_kept():
        before = _keras.snapshot(variables)
        try:
            yield
        finally:
            model.reset_metrics()  # those that `fit` has made
            _keras.restore(variables, before)
            for name, value in attributes.items():
                if value is not ABSENT:
                    setattr(model, name, value)
                elif hasattr(model, name):
                    delattr(model, name)


def _copy(
    optimizer: keras.Optimizer, model: keras.Model, rate: float
) -> keras.Optimizer:
    """Return an optimizer in the state of `optimizer`, with a rate to be assigned."""
    with _keras.scope(model):
        copy = _like(optimizer, rate)
        if not optimizer.built:
            copy.build(model.trainable_variables)  # or fit() would trace twice
        else:
            copy.build(_keras.trained_by(optimizer))
            # With a schedule there is no variable of the rate.
            source, target = (
                [each for each in kind.variables if each.name != "learning_rate"]
                for kind in (optimizer, copy)
            )
            _keras.restore(target, _keras.snapshot(source))
    return copy


def _like(optimizer: keras.Optimizer, rate: float) -> keras.Optimizer:
    config = _keras.settings(optimizer)
    inner = _keras.inner_optimizer(optimizer)
    if inner is not optimizer:
        return type(optimizer)(**config | {"inner_optimizer": _like(inner, rate)})
    if isinstance(optimizer, Discriminative):
        config["layout"] = optimizer.rate_table
    return type(optimizer).from_config(config | {"learning_rate": rate})
