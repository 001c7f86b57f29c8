"""VariableRates: an optimizer with a rate factor and a clock for each variable."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras


class VariableRates:
    """Optimizer mixin with a factor, a clock and a decay flag for each variable.

    The step and the decoupled weight decay of variable `i` are multiplied by
    `factors[i]` and by a common factor. Bias corrections use `clock[i]`, the number of
    updates of variable `i`. Clipping uses the gradients summed over the replicas, so
    the result is the same as on one device. A subclass sets `decay_mask` and
    `initial_factors` before `build`.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the parent's slots, a factor and a clock for each of `variables`."""
        if self.built:
            return
        super().build(variables)
        if _keras.replicas_here() > 1:
            _keras.fix_loss_scale()
        count = (len(variables),)
        settings = dict(aggregation="only_first_replica")
        # An initializer, because this may run in the first trace of fit(), which Keras
        # discards. An assign() there would have no effect.
        factors = keras.initializers.Constant(self.initial_factors)
        self._factors = self.add_variable(
            count, factors, "float32", name="factors", **settings
        )
        self._common_factor = self.add_variable(
            (), "ones", "float32", name="phase_factor", **settings
        )
        self._clock = self.add_variable(count, "zeros", "int", name="clock", **settings)
        # State of a callback. Files saved with GradualUnfreezing contain these names.
        self._counts = self.add_variable((4,), "zeros", "int", name="phase", **settings)
        self._score = self.add_variable((), "zeros", "float32", name="best", **settings)
        if self.use_ema and _keras.on_jax():  # where a step cannot read all variables
            averages = _keras.moving_averages(self)
            for variable, average in zip(variables, averages, strict=True):
                _keras.assign_copy(average, variable)

    def set_common_factor(self, factor: float) -> None:
        """Multiply all rates by `factor`. The learning rate itself does not change."""
        self._common_factor.assign(factor)

    def factors_now(self) -> dict[int, float]:
        """Return a dict of variable id to the factor of its learning rate."""
        factors = _keras.value(self._factors) * _keras.value(self._common_factor)
        pairs = zip(_keras.trained_by(self), factors.tolist(), strict=True)
        return {id(variable): factor for variable, factor in pairs}

    @property
    def extra_state(self) -> tuple[int, int, int, int, float]:
        """Four counts and a score of a callback, which the optimizer saves."""
        return (*_keras.value(self._counts).tolist(), _keras.value(self._score).item())

    def set_extra_state(self, state: tuple[int, int, int, int, float]) -> None:
        """Store the values that `extra_state` returns."""
        *counts, score = state
        self._counts.assign(counts)
        self._score.assign(score)

    @property
    def iterations(self) -> Any:
        """The updates so far. In an update step, the updates of its variable."""
        index = self.__dict__.get("_at")
        if index is None:
            return super().iterations
        return self._clock[index] // (self.gradient_accumulation_steps or 1)

    def apply(self, grads: Sequence, trainable_variables: Any = None) -> None:
        """Update `trainable_variables`, and count the update for each of them."""
        variables = trainable_variables or _keras.trained_by(self)
        super().apply(grads, trainable_variables)
        if len(grads):
            self._clock.assign_add(self._mask(variables, "int64"))

    def stateless_apply(
        self, optimizer_variables: Sequence, grads: Sequence, trainable_variables: Any
    ) -> tuple[list, list]:
        """Return the updated values of the variables that learn, and of the state.

        Keras on JAX calls this in a step, with the values of the variables that learn
        now. Its own method needs the values of all variables of the optimizer.
        """
        every = _keras.trained_by(self)
        learning = [x for x in every if x.trainable]
        if len(learning) != len(trainable_variables):
            raise ValueError(
                f"The step trains {len(trainable_variables)} variables, but of those "
                f"for which {self.name!r} was built, {len(learning)} are trainable. "
                "Call compile() again with a new optimizer."
            )
        if self.ema_overwrite_frequency and len(learning) < len(every):
            raise ValueError(
                "ema_overwrite_frequency replaces all weights, but on JAX a step "
                "cannot do so while some are frozen. Use the value None, which "
                "replaces them at the end of `fit`."
            )
        pairs = list(zip(self.variables, optimizer_variables, strict=True))
        pairs += zip(learning, trainable_variables, strict=True)
        with keras.StatelessScope(pairs) as scope:
            self.apply(grads, learning)
        return tuple(
            [scope.get_current_value(each) for each in variables]
            for variables in (learning, self.variables)
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Apply weight decay and the parent's step at the rate of `variable`."""
        index = _keras.variable_index(self, variable)
        factor = self._factors[index] * self._common_factor
        rate = ops.cast(learning_rate, "float32") * factor
        if self.weight_decay is not None and self.decay_mask[index]:
            weight_decay = ops.cast(self.weight_decay, variable.dtype)
            decay = variable * weight_decay * ops.cast(rate, variable.dtype)
            self.assign_sub(variable, decay)
        self.__dict__["_at"] = index
        try:
            self.scaled_step(gradient, variable, learning_rate, rate, factor)
        finally:
            self.__dict__["_at"] = None

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Apply the parent's step at `rate`, which is `plain * factor`."""
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Assign the moving averages to the variables that were updated.

        Keras pairs `var_list` with the averages by position and does not compare their
        lengths. With frozen layers, variables would get averages of other layers.
        """
        if not self.use_ema or not _keras.has_value(self._clock):
            return  # on JAX, a step that failed has left no values
        averages = _keras.moving_averages(self)
        updates = _keras.value(self._clock)
        for variable, average, count in zip(_keras.trained_by(self), averages, updates):
            if count:  # other variables may have been set by the user
                _keras.assign_copy(variable, average)

    def _apply_weight_decay(self, variables: Sequence) -> None:
        """Do nothing, because `update_step` applies decay at each variable's rate."""

    def _clip_gradients(self, grads: Sequence) -> list:
        grads = _keras.dense(grads)
        replicas = _keras.replicas_in_step()
        clips = self.clipnorm or self.global_clipnorm or self.clipvalue
        if replicas == 1 or not clips:
            return super()._clip_gradients(grads)
        grads = super()._clip_gradients(_keras.sum_over_replicas(grads))
        return [each / replicas for each in grads]

    def _backend_apply_gradients(self, grads: Sequence, variables: Sequence) -> None:
        self.__dict__["_moving"] = self._mask(variables, bool)
        super()._backend_apply_gradients(grads, variables)

    def _update_model_variables_moving_average(self, variables: Sequence) -> None:
        if not self.use_ema:
            return
        first = ops.equal(self.iterations, 0)
        averages = _keras.moving_averages(self)
        moving = self.__dict__["_moving"]
        for variable, average, moves in zip(variables, averages, moving, strict=True):
            if not moves and not _keras.has_value(variable):
                continue  # its average is its value from `build`
            keep = ops.where(first, 0.0, self.ema_momentum if moves else 1.0)
            keep = ops.cast(keep, variable.dtype)
            average.assign(keep * average + (1 - keep) * variable)

    def _mask(self, variables: Sequence, dtype: Any) -> np.ndarray:
        mask = np.zeros(len(_keras.trained_by(self)), dtype)
        mask[[_keras.variable_index(self, each) for each in variables]] = 1
        return mask


class AdafactorRates(VariableRates):
    """VariableRates for Adafactor, which caps the rate: the step is scaled instead."""

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Apply the parent's step at `plain`, and scale it by `factor`."""
        before = ops.copy(ops.convert_to_tensor(variable))
        keras.optimizers.Adafactor.update_step(self, gradient, variable, plain)
        step = ops.convert_to_tensor(variable) - before
        self.assign_add(variable, ops.cast(factor - 1, variable.dtype) * step)


class NadamRates(VariableRates):
    """VariableRates for Nadam, with a product of momentums for each variable."""

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the slots, and a product of momentums for each of `variables`."""
        if self.built:
            return
        super().build(variables)
        self._products = self.add_variable(
            (len(variables),),
            "ones",
            "float32",
            aggregation="only_first_replica",
            name="momentum_products",
        )

    def _backend_update_step(
        self, grads: Sequence, variables: Sequence, learning_rate: Any
    ) -> None:
        steps = self._clock // (self.gradient_accumulation_steps or 1) + 1
        momentum = self.beta_1 * (1 - 0.5 * 0.96 ** ops.cast(steps, "float32"))
        moves = self._mask(variables, bool)
        self._products.assign(self._products * ops.where(moves, momentum, 1.0))
        # Skip Nadam's override, which updates the shared product.
        super(keras.optimizers.Nadam, self)._backend_update_step(
            grads, variables, learning_rate
        )

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Apply the parent's step with the product of `variable`."""
        product = self._products[self.__dict__["_at"]]
        with _keras.momentum_product(self, product):
            super().scaled_step(gradient, variable, plain, rate, factor)
