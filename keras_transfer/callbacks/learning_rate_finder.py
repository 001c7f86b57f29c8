"""The learning rate range test: it finds a learning rate for a model and its data."""

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

# The test ends when the smoothed loss is above its lowest value by RISE times the
# lowest value, or by RISE * SHARE times the first loss if this is more. Without the
# second term, noise would end a test whose loss is near 0.
RISE = 3.0
SHARE = 0.1
# Attributes that `fit` or this module sets on a model, and that are restored after it.
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
    """Train `model` at rising learning rates, restore it, and return the losses.

    In this range test, batch `i` trains at the learning rate
    `lowest * (highest / lowest) ** (i / (steps - 1))`. The loss is flat at first, falls
    where the rate is useful, and rises where the rate is too high. The test ends when
    the loss is not finite, or when the smoothed loss is more than 3 m above its lowest
    value so far. Here m is the lowest value, or a tenth of the first loss if this is
    more. The test calls `fit` with a copy of the compiled optimizer, so it uses the
    settings of your training: frozen layers stay frozen, and the factors of
    `discriminative` multiply the learning rate. A learning rate schedule is ignored,
    and `steps_per_execution` is 1 during the test.

    After the test, the model is unchanged, even after an error or an interrupt. Its
    weights, statistics, seeds, metrics, optimizer, flags, `history` and compiled train
    function are bit for bit as before. The global random states of Python, NumPy,
    Keras and eager TensorFlow are restored too. Two things cannot be restored: the
    state inside `data`, such as the next order of `Dataset.shuffle`, and the state of
    TensorFlow's own random kernels (`tf.random.normal`, which Keras does not use). If
    the optimizer has made updates, its slots are in memory twice during the test.

    Args:
        model: A built and compiled model with one optimizer.
        data: The training data, which is repeated as often as needed: a tuple of arrays
            `(x, y)` or `(x, y, sample_weight)`, a batched `tf.data.Dataset`, or a
            `keras.utils.PyDataset`. Arrays are shuffled with a fixed seed.
        lowest: Float above 0, the learning rate of the first step. Defaults to 1e-7.
        highest: Float above `lowest`, the learning rate of the last step. Defaults to
            10.0.
        steps: Int of at least 10, the number of batches and of rates. Defaults to 100.
        batch_size: Int, examples per batch, for arrays only. Defaults to None, which
            means 32.
        smoothing: Float in [0, 1), the share of the past in the exponential average
            `a[i] = smoothing * a[i - 1] + (1 - smoothing) * loss[i]`. The average is
            divided by `1 - smoothing ** (i + 1)`. Defaults to 0.9.

    Returns:
        A `LearningRateCurve` with `rates`, `losses`, `suggestion` and `plot()`. Print
        the curve to see the suggestion and the reason for it.

    Raises:
        TypeError: If `data` is an iterator or of a type that is not listed.
        ValueError: If `model` is not built, not compiled, completely frozen or has
            several optimizers, if `data` is empty or not batched, if an argument is out
            of range, or if a loss is not finite with the current weights of the model.

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
        _keras.remake_functions(model, "train")  # its graph contains the optimizer
        with warnings.catch_warnings():
            # `_Sweep.curve` raises a clearer error if the dataset is empty.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            with contextlib.suppress(StopIteration):  # of Keras on JAX
                model.fit(**settings, callbacks=[sweep], shuffle=False, verbose=0)
        values = _keras.snapshot(model.trainable_variables)
    # Some kernels of ReLU turn NaN into 0, so the loss can be finite although a weight
    # is NaN.
    trained = sweep.last is not None
    if trained and (not math.isfinite(sweep.last) or has_broken(values)):
        _check_data(model, settings, len(sweep.losses) + 1)
    return sweep.curve()


class _Sweep(keras.callbacks.Callback):
    """Set the learning rate before each batch, and store the smoothed loss after it."""

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
        self.model.reset_metrics()  # otherwise the loss is the mean over the epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if "loss" not in (logs or {}):
            raise ValueError(
                f"The train step of the model reports {sorted(logs or {})} and no "
                "'loss', so the test cannot compare learning rates. Return 'loss' "
                "from train_step."
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
        if self.last is None:  # the data is empty, so the next epoch would be too
            self.model.stop_training = True

    def curve(self) -> LearningRateCurve:
        """Return the curve of all steps so far."""
        if self.last is None:
            raise ValueError(
                "`data` is empty: it gave no batch to train on. Pass data with at "
                "least one batch."
            )
        if not self.losses:
            raise ValueError(
                f"The loss of the first batch is {self.last}, before any update. Check "
                "`data` for values that are not finite and for labels out of range."
            )
        return LearningRateCurve(
            self.rates[: len(self.losses)],
            np.array(self.losses, "float64"),
            self.ended,
        )


def _check_data(model: keras.Model, settings: dict, batches: int) -> None:
    """Check that the loss of the first batches is finite with the current weights.

    Raises:
        ValueError: If the loss is not finite. In this case the data is the cause, not
            the learning rate.
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
                    f"Batch {number} of `data` has values that are NaN or infinite. "
                    "Training on it makes weights NaN at any learning rate. Remove "
                    "these examples, or replace the values."
                )
        if not isinstance(given["x"], keras.utils.PyDataset):
            given["steps"] = batches
    with _unchanged(model):
        loss = model.evaluate(**given, verbose=0, return_dict=True).get("loss", 0.0)
    if not math.isfinite(loss):
        first = "batch" if batches == 1 else f"{batches} batches"
        raise ValueError(
            f"The loss of the first {first} is {loss} with the current weights of the "
            "model, so the learning rate is not the cause. Check `data` for values "
            "that are not finite and for labels out of range."
        )


def _endless(data: Any) -> Iterator:
    if isinstance(data, keras.utils.PyDataset):
        yield from map(data.__getitem__, range(data.num_batches or 0))
    else:
        yield from data


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Restore everything that `fit` changes in `model`.

    The caller replaces the optimizer, so the original optimizer keeps its state. `fit`
    does not change trainable flags.
    """
    attributes = {name: getattr(model, name, ABSENT) for name in ATTRIBUTES}
    variables = [*model.variables, *model.metrics_variables]
    with _keras.random_state_kept():
        before = _keras.snapshot(variables)
        try:
            yield
        finally:
            model.reset_metrics()  # for the metrics that `fit` has created
            _keras.restore(variables, before)
            for name, value in attributes.items():
                if value is not ABSENT:
                    setattr(model, name, value)
                elif hasattr(model, name):
                    delattr(model, name)


def _copy(
    optimizer: keras.Optimizer, model: keras.Model, rate: float
) -> keras.Optimizer:
    """Return an optimizer in the state of `optimizer`, with a rate that can be set."""
    with _keras.scope(model):
        copy = _like(optimizer, rate)
        if not optimizer.built:
            copy.build(model.trainable_variables)  # otherwise fit() would trace twice
        else:
            copy.build(_keras.trained_by(optimizer))
            # With a schedule, the optimizer has no variable for the learning rate.
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
