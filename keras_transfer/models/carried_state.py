"""CarriedState: the states of LSTMs from one batch to the next."""

import keras
from keras import ops


class CarriedState:
    """The last states of LSTMs, which the next batch of the same streams begins with.

    Training and evaluation have separate states, so an evaluation in the middle of a
    training does not disturb it. The states are variables, but not weights: they belong
    to the position in the data, so they are neither saved nor copied.

    Args:
        batch_size: Int, the number of streams.
        units: List of ints, the units of each LSTM.
    """

    def __init__(self, batch_size: int, units: list[int]):
        self._units = units
        self.variables = [
            keras.Variable(
                ops.zeros((batch_size, width)),
                trainable=False,
                dtype="float32",
                autocast=False,
                name="carried_state",
            )
            for _ in ("training", "evaluation")
            for width in units
            for _ in ("hidden", "cell")
        ]

    def read(self, restart: object, training: bool) -> list:
        """Return a pair of states for each LSTM, with zeros in rows that restart."""
        kept = ops.cast(ops.logical_not(ops.cast(restart, "bool")), "float32")[:, None]
        # Not a product, because a state that became NaN must end at a restart.
        return [
            [ops.where(kept > 0, x, ops.zeros_like(x)) for x in map(ops.copy, pair)]
            for pair in self._pairs(training)
        ]

    def write(self, states: list, training: bool) -> None:
        """Keep the states of each LSTM, without a gradient."""
        for pair, state in zip(self._pairs(training), states, strict=True):
            for variable, value in zip(pair, state, strict=True):
                variable.assign(ops.cast(ops.stop_gradient(value), "float32"))

    def _pairs(self, training: bool) -> list:
        count = 2 * len(self._units)
        chosen = self.variables[:count] if training else self.variables[count:]
        return [chosen[place : place + 2] for place in range(0, count, 2)]
