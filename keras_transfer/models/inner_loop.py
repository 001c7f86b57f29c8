"""InnerLoop: gradient steps on the support set of an episode, by stateless calls."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.data.labels import listed

BATCH, SUPPORT, FROZEN = "batch", "support", "frozen"
HALF_SCALE = 2.0**8  # gradients of float16 below 6e-8 become 0
STRIDE = 65_537  # between the seeds of two episodes


class State(NamedTuple):
    """The values of a model in an episode.

    Attributes:
        weights: Of the trainable weights.
        seeds: Of the seed generators.
        statistics: Of the BatchNormalization layers.
    """

    weights: list
    seeds: list
    statistics: list


class InnerLoop:
    """Steps of gradient descent on a support set, which change no variable.

    Args:
        model: A built model with one output.
        adapted: The trainable weights that the steps change.
        loss: Function of targets and outputs that returns a scalar.
        rate: The learning rate of the steps.
        first_order: Whether the gradients of the steps are constants.
        batch_norm: The policy of BatchNormalization, as in `MAML`.
    """

    def __init__(
        self,
        model: keras.Model,
        adapted: Sequence[keras.Variable],
        loss: Callable[[Any, Any], Any],
        *,
        rate: float,
        first_order: bool,
        batch_norm: str,
    ):
        self.model = model
        self.weights = list(model.trainable_variables)
        self.seeds = _keras.seeds(model)
        self.statistics = [
            variable
            for layer in _keras.batch_norms(model)
            for variable in (layer.moving_mean, layer.moving_variance)
        ]
        chosen = {id(variable) for variable in adapted}
        self._places = [i for i, v in enumerate(self.weights) if id(v) in chosen]
        self._loss = loss
        self._rate = rate
        self._first_order = first_order
        self._batch_norm = batch_norm
        half = "float16" in {x.compute_dtype for x in _keras.flat_layers(model)}
        self._scale = HALF_SCALE if half else 1.0

    def start(self, number: Any = 0) -> State:
        """Return the values of the variables, with other seeds for each episode."""
        seeds = [
            seed + ops.cast(ops.stack([number * STRIDE, 0]), seed.dtype)
            for seed in _keras.values_now(self.seeds)
        ]
        weights = _keras.values_now(self.weights)
        return State(weights, seeds, _keras.values_now(self.statistics))

    def adapt(self, state: State, x: Any, y: Any, steps: int) -> State:
        """Return the values after steps on a support set.

        Unless the policy is "frozen", the statistics are then those of the support set
        under the new weights.
        """
        for _ in range(steps):
            state = self._step(state, x, y)
        if self._batch_norm == FROZEN or not self.statistics:
            return state
        call = self._call(state, x, training=False, batch_statistics=True)
        return state._replace(statistics=self._state(call.changed).statistics)

    def query(
        self, state: State, x: Any, *, training: bool
    ) -> tuple[_keras.Call, State]:
        """Return a call on the query set, and the values after it."""
        by_batch = self._batch_norm == BATCH
        call = self._call(state, x, training=training, batch_statistics=by_batch)
        return call, self._state(call.changed)

    def _step(self, state: State, x: Any, y: Any) -> State:
        def objective(values: list) -> tuple[Any, list]:
            weights = list(state.weights)
            for place, value in zip(self._places, values, strict=True):
                weights[place] = value
            call = self._call(
                state._replace(weights=weights),
                x,
                training=True,
                batch_statistics=self._batch_norm != FROZEN,
            )
            loss = ops.cast(self._loss(y, call.outputs), "float32")
            seeds = self._state(call.changed).seeds
            return (loss + call.added + call.penalty) * self._scale, seeds

        values = [state.weights[place] for place in self._places]
        _, slopes, seeds = _keras.value_and_gradients(objective, values)
        variables = [self.weights[place] for place in self._places]
        pairs = zip(variables, slopes, strict=True)
        self._check_reached([each for each, slope in pairs if slope is None])
        weights = list(state.weights)
        for place, variable, value, slope in zip(
            self._places, variables, values, slopes, strict=True
        ):
            slope = ops.stop_gradient(slope) if self._first_order else slope
            new = value - ops.cast(self._rate / self._scale, value.dtype) * slope
            if variable.constraint is not None:
                new = variable.constraint(new)
            weights[place] = new
        return state._replace(weights=weights, seeds=seeds)

    def _call(self, state: State, x: Any, **flags: bool) -> _keras.Call:
        variables = [*self.weights, *self.seeds, *self.statistics]
        values = [*state.weights, *state.seeds, *state.statistics]
        pairs = list(zip(variables, values, strict=True))
        call = _keras.call_with(self.model, pairs, x, **flags)
        self._check_reached(call.unread)
        count = len(keras.tree.flatten(call.outputs))
        if count != 1:
            raise ValueError(
                f"{self.model.name!r} has {count} outputs, but the steps on a support "
                "set follow the loss of one output. Pass a model with one output."
            )
        return call

    def _state(self, values: list) -> State:
        first, second = len(self.weights), len(self.weights) + len(self.seeds)
        return State(values[:first], values[first:second], values[second:])

    def _check_reached(self, missing: Sequence[keras.Variable]) -> None:
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self.weights)} trainable weights of "
                f"{self.model.name!r} have no influence on its outputs, so they get no "
                f"gradient: {listed([each.path for each in missing])}. Freeze their "
                "layers with layer.trainable = False before you make the MAML, or "
                "leave them out of the model."
            )
