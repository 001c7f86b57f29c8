"""RunProgress: the completed share of the running `fit`, for use in a graph."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import whole_number


class RunProgress:
    """The completed share p of the steps of a `fit`, from 0 to 1.

    p uses the optimizer's count of steps, so p is correct after a resume and inside an
    execution of several steps. `start_epoch` sets two variables: an offset of this
    count, and the total. They belong to the running `fit`, so they are not saved.

    A step on JAX sees only the variables that the model hands in, and not those of the
    optimizer. So there a variable of `in_model` counts the steps, and the last value
    that was computed is kept in `in_metrics`. On TensorFlow both lists are empty.

    Args:
        total_steps: Int, updates from p = 0 to p = 1, or None for those of the running
            `fit`.
    """

    def __init__(self, total_steps: int | None):
        if total_steps is not None:
            why = "it counts the updates of a training. Pass None to take them from fit"
            total_steps = whole_number("total_steps", total_steps, why=why)
        self.total_steps = total_steps
        settings = dict(dtype="int", trainable=False, aggregation="only_first_replica")
        self._offset = keras.Variable(0, **settings)
        self._total = keras.Variable(total_steps or 0, **settings)
        self._has_total = total_steps is not None
        self.in_model, self.in_metrics = [], []
        if _keras.on_jax():
            self._count = keras.Variable(0, dtype="int", trainable=False)
            self._shown = keras.Variable(0.0, trainable=False, dtype="float32")
            self.in_model = [self._offset, self._total, self._count]
            self.in_metrics = [self._shown]

    def iterations(self, optimizer: keras.Optimizer | None) -> Any:
        """Return the count of the optimizer's updates, for use in a graph."""
        if optimizer is None:
            return 0
        if not self.in_model:
            return ops.convert_to_tensor(optimizer.iterations)
        accumulated = _keras.inner_optimizer(optimizer).gradient_accumulation_steps
        return ops.convert_to_tensor(self._count) // (accumulated or 1)

    def start_steps(self, optimizer: keras.Optimizer) -> None:
        """Begin to count at the updates of the optimizer, where it cannot be read."""
        if self.in_model:
            _keras.assign_copy(self._count, _keras.steps_taken(optimizer))

    def end_step(self, training: bool, value: Callable) -> None:
        """Count a step, and keep the result of `value` for the logs."""
        if self.in_model:
            if training:
                self._count.assign_add(1)
            self._shown.assign(value())

    def shown(self, value: Callable) -> Any:
        """Return the result of `value` for the logs, where it can be computed."""
        return ops.convert_to_tensor(self._shown) if self.in_metrics else value()

    def start_epoch(self, model: keras.Model) -> None:
        """Read the state of the running `fit` of `model`, at the start of an epoch.

        Raises:
            ValueError: If the number of steps is unknown or too small.
        """
        run = _keras.running_epoch(model)
        if run is None:
            return
        iterations = int(_keras.value(model.optimizer.iterations))
        if run.steps is None:
            self._check_given(model)
            if run.number == 0:
                self._offset.assign(-iterations)
            return
        # With gradient accumulation, only complete updates count.
        inner = _keras.inner_optimizer(model.optimizer)
        accumulated = inner.gradient_accumulation_steps or 1
        if self.total_steps is None:
            self._total.assign(max(run.epochs * run.steps // accumulated, 1))
            self._has_total = True
        elif self.total_steps < run.steps // accumulated:
            raise ValueError(
                f"total_steps is {self.total_steps}, but one epoch has "
                f"{run.steps // accumulated} updates, so the strength would reach its "
                "last value within the first epoch. Pass epochs times steps per epoch, "
                "or None to take the number from `fit`."
            )
        self._offset.assign(run.number * run.steps // accumulated - iterations)

    def _check_given(self, model: keras.Model) -> None:
        if self.total_steps is None:
            raise ValueError(
                "The strength is None, so it rises over all steps of `fit`, but the "
                "dataset has an unknown number of batches. Pass steps_per_epoch= to "
                f"fit, or {_remedy(model)}."
            )

    def check_total(self, model: keras.Model) -> None:
        """Check that the total number of steps is known.

        Raises:
            ValueError: If `fit` is not running and `total_steps` was not given.
        """
        if not self._has_total:
            raise ValueError(
                f"The strength of {type(model).__name__} is None, so it rises over the "
                "steps of `fit`, but `fit` is not running. To train step by step, pass "
                f"{_remedy(model)}."
            )

    def value(self, optimizer: keras.Optimizer | None) -> object:
        """Return p as a float32 scalar of the graph, or 0 without an optimizer."""
        if optimizer is None:
            return ops.zeros((), "float32")
        done = self.iterations(optimizer) + ops.convert_to_tensor(self._offset)
        total = ops.maximum(ops.convert_to_tensor(self._total), 1)
        share = ops.cast(done, "float32") / ops.cast(total, "float32")
        return ops.clip(share, 0.0, 1.0)


def _remedy(model: keras.Model) -> str:
    name = type(model).__name__
    takes = f"total_steps= to {name}, or " if "total_steps" in model.arguments else ""
    return f"{takes}strength=kt.optimizers.GaninRampUp(total_steps) to {name}"
