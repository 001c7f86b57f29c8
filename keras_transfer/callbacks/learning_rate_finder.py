"""The learning rate range test: which rates a model can be trained at."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.callbacks.learning_rate_curve import LearningRateCurve
from keras_transfer.data.examples import fit_arguments
from keras_transfer.optimizers.discriminative import Discriminative

# The sweep ends once the smoothed loss has risen by this many times its lowest value,
# or this many times a share of its first, or noise would end it where it is near 0.
RISE = 3.0
SHARE = 0.1
# What fit() sets on a model, or is set for it here; absent ones are taken away again.
ATTRIBUTES = (
    "optimizer",
    "train_function",
    "steps_per_execution",
    "stop_training",
    "history",
)
ABSENT = object()


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

    Afterwards nothing has happened, after an error or an interrupt too: weights,
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
        A `LearningRateCurve` with `rates`, `losses`, `suggestion` and `plot()`.

    Raises:
        TypeError: If `data` is an iterator or of a kind that is not listed.
        ValueError: If `model` is not built, not compiled, all frozen or has several
            optimizers, `data` is empty or not batched, an argument is out of range, or
            the first loss is not finite.

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
    _check_model(model)
    _check_range(lowest, highest, steps, smoothing)
    settings = fit_arguments(model, data, steps, batch_size)
    sweep = _Sweep(np.geomspace(lowest, highest, steps), smoothing)
    with _unchanged(model):
        model.optimizer = _copy(model.optimizer, model, float(lowest))
        model.steps_per_execution = 1
        _keras.remake_functions(model, "train")  # it has the optimizer in its graph
        model.fit(**settings, callbacks=[sweep], shuffle=False, verbose=0)
    return sweep.curve()


class _Sweep(keras.callbacks.Callback):
    """Sets a rate before each batch and keeps the smoothed loss after it."""

    def __init__(self, rates: np.ndarray, smoothing: float) -> None:
        super().__init__()
        self.rates = rates
        self.smoothing = smoothing
        self.average = 0.0
        self.losses = []
        self.last = None

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
            self.model.stop_training = True
            return
        self.average += (1 - self.smoothing) * (self.last - self.average)
        count = len(self.losses) + 1
        self.losses.append(self.average / (1 - self.smoothing**count))
        best = min(self.losses)
        scale = max(abs(best), SHARE * abs(self.losses[0]))
        if self.losses[-1] - best > RISE * scale or count == len(self.rates):
            self.model.stop_training = True

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
            self.rates[: len(self.losses)], np.array(self.losses, "float64")
        )


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


def _builds(layer: keras.Layer) -> bool:
    """Return whether a layer makes weights when it is built.

    `TextVectorization` never builds the lookup within it, which has none.
    """
    return type(layer).build is not keras.Layer.build


def _check_model(model: keras.Model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={model!r} is not a Keras model.")
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled, so it has no loss and no "
            "optimizer to test. Call model.compile(optimizer, loss) first."
        )
    preprocessor = getattr(model, "preprocessor", None)  # of a Task; without weights
    skipped = _keras.flat_layers(preprocessor) if preprocessor else []
    skipped = {id(layer) for layer in skipped}
    unbuilt = [
        layer.name
        for layer in _keras.flat_layers(model)
        if not layer.built and id(layer) not in skipped and _builds(layer)
    ]
    if unbuilt:
        raise ValueError(
            f"The model {model.name!r} is not built, so {unbuilt[:5]} may have no "
            "weights yet that could be put back. Call it on one batch first, or give "
            "it an Input."
        )
    if not model.trainable_variables:
        raise ValueError(
            f"All of the model {model.name!r} is frozen, so no rate would change its "
            "loss. Make trainable what you will train, and compile again."
        )
    several = getattr(keras.optimizers, "MultiOptimizer", ())
    own = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.Optimizer) and value is not model.optimizer
    ]
    if own or isinstance(model.optimizer, several):
        raise ValueError(
            f"The model {model.name!r} has several optimizers, {own or 'in one'}, so "
            "there is no one rate to find. Different rates for parts of a model come "
            "from one keras_transfer.optimizers.discriminative optimizer."
        )


def _check_range(lowest: float, highest: float, steps: int, smoothing: float) -> None:
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"lowest={lowest} and highest={highest} are not a range of learning rates. "
            "They must be finite, above 0, and `lowest` below `highest`."
        )
    why = "fewer points do not show where the loss falls"
    whole_number("steps", steps, 10, why=why)
    number("smoothing", smoothing, 0, below=1)
