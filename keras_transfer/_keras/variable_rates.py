"""VariableRates: an optimizer with a factor and a clock for each variable."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer._keras.layers import value
from keras_transfer._keras.optimizer import trained_by
from keras_transfer._keras.replicas import mend_loss_scale
from keras_transfer._keras.replicas import replicas_here


class VariableRates:
    """Mixin for an optimizer: per variable a factor, a clock, a choice of decay.

    The step and the decoupled weight decay of variable `i` are multiplied by
    `factors[i]` and the factor of the phase. Bias corrections see `clock[i]`, the
    number of updates that variable has had. Clipping acts on the gradients summed over
    the replicas, as on one device. A subclass sets `decay_mask` and `initial_factors`
    before `build`.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        if replicas_here() > 1:
            mend_loss_scale()
        count = (len(variables),)
        settings = dict(aggregation="only_first_replica")
        # Not by assign(): the first trace of fit(), where this runs, is thrown away.
        factors = keras.initializers.Constant(self.initial_factors)
        self._factors = self.add_variable(
            count, factors, "float32", name="factors", **settings
        )
        self._phase_factor = self.add_variable(
            (), "ones", "float32", name="phase_factor", **settings
        )
        self._clock = self.add_variable(count, "zeros", "int", name="clock", **settings)
        # A phase that can end early: its number, first epoch, epochs without gain, and
        # the number of phases of its schedule.
        self._phase = self.add_variable((4,), "zeros", "int", name="phase", **settings)
        self._best = self.add_variable((), "zeros", "float32", name="best", **settings)

    def set_phase_factor(self, factor: float) -> None:
        """Multiply all rates by `factor`, beside the learning rate."""
        self._phase_factor.assign(factor)

    def factors_now(self) -> dict[int, float]:
        """Return what the rate of each variable is multiplied by, by its id."""
        factors = value(self._factors) * value(self._phase_factor)
        pairs = zip(trained_by(self), factors.tolist(), strict=True)
        return {id(variable): factor for variable, factor in pairs}

    @property
    def phase_state(self) -> tuple[int, int, int, int, float]:
        """Phase, its first epoch, epochs without gain, number of phases, best value."""
        return (*value(self._phase).tolist(), value(self._best).item())

    def set_phase_state(self, counts: Sequence[int], best: float) -> None:
        """Keep the state of a phase where a backup of the optimizer holds it."""
        self._phase.assign(counts)
        self._best.assign(best)

    @property
    def iterations(self) -> Any:
        """Updates so far; inside an update step, those of the variable at hand."""
        index = self.__dict__.get("_at")
        if index is None:
            return super().iterations
        return self._clock[index] // (self.gradient_accumulation_steps or 1)

    def apply(self, grads: Sequence, trainable_variables: Any = None) -> None:
        variables = trainable_variables or trained_by(self)
        super().apply(grads, trainable_variables)
        if len(grads):
            self._clock.assign_add(self._mask(variables, "int64"))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        factor = self._factors[index] * self._phase_factor
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
        """Make the parent's step at `rate`, which is `plain * factor`."""
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        # Keras pairs var_list with the averages by position, without comparing
        # their lengths: a frozen subset would get other layers' averages.
        if not self.use_ema:
            return
        averages = self._model_variables_moving_average
        updates = value(self._clock)
        for variable, average, count in zip(trained_by(self), averages, updates):
            if count:  # of the others somebody may have set the value since
                variable.assign(average)

    def _apply_weight_decay(self, variables: Sequence) -> None:
        """Do nothing: update_step decays at the variable's own rate."""

    def _clip_gradients(self, grads: Sequence) -> list:
        if keras.backend.backend() != "tensorflow":
            return super()._clip_gradients(grads)
        import tensorflow as tf

        # Adam squares the rows of a sparse gradient before it adds up repeated ones.
        grads = [tf.convert_to_tensor(each) for each in grads]
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync if context else 1
        clips = self.clipnorm or self.global_clipnorm or self.clipvalue
        if replicas == 1 or not clips:
            return super()._clip_gradients(grads)
        grads = context.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        return [each / replicas for each in super()._clip_gradients(grads)]

    def _backend_apply_gradients(self, grads: Sequence, variables: Sequence) -> None:
        self.__dict__["_moving"] = self._mask(variables, bool)
        super()._backend_apply_gradients(grads, variables)

    def _update_model_variables_moving_average(self, variables: Sequence) -> None:
        if not self.use_ema:
            return
        first = ops.equal(self.iterations, 0)
        averages = self._model_variables_moving_average
        moving = self.__dict__["_moving"]
        for variable, average, moves in zip(variables, averages, moving, strict=True):
            keep = ops.where(first, 0.0, self.ema_momentum if moves else 1.0)
            keep = ops.cast(keep, variable.dtype)
            average.assign(keep * average + (1 - keep) * variable)

    def _mask(self, variables: Sequence, dtype: Any) -> np.ndarray:
        mask = np.zeros(len(trained_by(self)), dtype)
        mask[[self._get_variable_index(each) for each in variables]] = 1
        return mask


class AdafactorRates(VariableRates):
    """VariableRates where the parent caps the rate, so that the step is scaled."""

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Make the parent's step at `plain` and stretch it by `factor`."""
        before = ops.copy(ops.convert_to_tensor(variable))
        keras.optimizers.Adafactor.update_step(self, gradient, variable, plain)
        step = ops.convert_to_tensor(variable) - before
        self.assign_add(variable, ops.cast(factor - 1, variable.dtype) * step)


class NadamRates(VariableRates):
    """VariableRates where the product of momentum schedules is each variable's own."""

    def build(self, variables: Sequence[keras.Variable]) -> None:
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
        # Past Nadam's own override, which advances the shared product.
        super(keras.optimizers.Nadam, self)._backend_update_step(
            grads, variables, learning_rate
        )

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Make the parent's step with the product of `variable`."""
        shared = self._u_product
        self.__dict__["_u_product"] = self._products[self.__dict__["_at"]]
        try:
            super().scaled_step(gradient, variable, plain, rate, factor)
        finally:
            self.__dict__["_u_product"] = shared
