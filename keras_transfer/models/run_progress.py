"""RunProgress: how far the running `fit` is, readable in the graph of a step."""

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import whole_number


class RunProgress:
    """The share p of the steps of a `fit` that is done, from 0 to 1.

    The count of steps is the optimizer's own, so that p is right after a resume and
    within an execution of several steps. What is added to it, and the total, are
    variables that `start_epoch` sets; they are of the running fit, and so not saved.

    Args:
        total_steps: Updates from p = 0 to p = 1, or None for those of the running fit.
    """

    def __init__(self, total_steps: int | None):
        if total_steps is not None:
            why = "the updates of a training, or None to take them from `fit`"
            total_steps = whole_number("total_steps", total_steps, why=why)
        self.total_steps = total_steps
        settings = dict(
            dtype="int64", trainable=False, aggregation="only_first_replica"
        )
        self._offset = keras.Variable(0, **settings)
        self._total = keras.Variable(total_steps or 0, **settings)
        self._has_total = total_steps is not None

    def start_epoch(self, model: keras.Model) -> None:
        """Take over what the running fit of `model` says; call it as an epoch begins.

        Raises:
            ValueError: If the number of steps is unknown, or too small.
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
        # Of several batches an update it is the whole updates that count.
        inner = _keras.inner_optimizer(model.optimizer)
        accumulated = inner.gradient_accumulation_steps or 1
        if self.total_steps is None:
            self._total.assign(max(run.epochs * run.steps // accumulated, 1))
            self._has_total = True
        elif self.total_steps < run.steps // accumulated:
            raise ValueError(
                f"total_steps is {self.total_steps}, but one epoch has "
                f"{run.steps // accumulated} updates already: the strength would be "
                "at its end before the first epoch is. Pass epochs x steps, or None to "
                "take it from `fit`."
            )
        self._offset.assign(run.number * run.steps // accumulated - iterations)

    def _check_given(self, model: keras.Model) -> None:
        if self.total_steps is None:
            raise ValueError(
                "The strength is to rise over all steps of this `fit`, but the dataset "
                "does not know its number of batches. Pass steps_per_epoch= to fit, or "
                f"{_remedy(model)}."
            )

    def check_total(self, model: keras.Model) -> None:
        """Check that there is a total to count toward.

        Raises:
            ValueError: If `fit` is not running and no total was given.
        """
        if not self._has_total:
            raise ValueError(
                f"The strength of {type(model).__name__} is None: it rises over the "
                "steps of `fit`, which is not running. To train step by step pass "
                f"{_remedy(model)}."
            )

    def value(self, optimizer: keras.Optimizer | None) -> object:
        """Return p as a float32 scalar of the graph; 0 where nothing has trained."""
        if optimizer is None:
            return ops.zeros((), "float32")
        done = ops.convert_to_tensor(optimizer.iterations) + ops.convert_to_tensor(
            self._offset
        )
        total = ops.maximum(ops.convert_to_tensor(self._total), 1)
        share = ops.cast(done, "float32") / ops.cast(total, "float32")
        return ops.clip(share, 0.0, 1.0)


def _remedy(model: keras.Model) -> str:
    takes = "total_steps= to it, or " if "total_steps" in model.arguments else ""
    return takes + "strength=kt.optimizers.GaninRampUp(total_steps)"
