"""Learning rates and movement of layer groups in the logs of `fit`."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.analysis.movement import movement
from keras_transfer.analysis.recorded_start import record_start
from keras_transfer.analysis.recorded_start import start_of
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.optimizers.discriminative import as_groups
from keras_transfer.optimizers.discriminative import Discriminative

# Callbacks that write the logs, so they must come after this callback.
WRITERS = (keras.callbacks.TensorBoard, keras.callbacks.CSVLogger)


@keras.saving.register_keras_serializable(package="keras_transfer")
class LayerGroupLogs(keras.callbacks.Callback):
    """Log the learning rate of each layer group, and how far its weights moved.

    At the end of each epoch, the logs get two values for each group:

    - `learning_rate/<group>`: the learning rate of the next update, times the factor of
      the group and the rate of the phase. If the variables of a group have different
      factors, the largest factor counts. The value is 0 while the group is frozen.
    - `moved/<group>`: `||w - w_0|| / ||w_0||` over its weights, without BatchNorm
      statistics. `w_0` are the weights before the first training with this callback,
      `GradualUnfreezing` or `fine_tune`. If `w_0` is all zeros, the value is
      `||w - w_0||`.

    History, CSVLogger and TensorBoard store the logs. TensorBoard shows them as scalars
    named `epoch_learning_rate/<group>` next to Keras's own scalars. Put this callback
    before CSVLogger and TensorBoard, and after `GradualUnfreezing` or any callback that
    sets the learning rate.

    Args:
        model_or_groups: The model that will be fitted, or its `LayerGroups`. Defaults
            to None, which takes the model of each `fit`.
        rates: Bool, whether to log the learning rates. Defaults to True.
        moved: Bool, whether to log the movement. This takes one pass over all weights
            per epoch, and a copy of the weights in host memory. Defaults to True.

    Raises:
        ValueError: If both `rates` and `moved` are False, if the groups belong to
            another model, or if a callback that writes the logs comes before this one.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
        )
        adam = keras.optimizers.Adam(0.1)
        model.compile(kt.optimizers.discriminative(adam, model, layer_decay=0.5), "mse")
        x, y = np.ones((8, 4)), np.ones((8, 2))
        callbacks = [kt.callbacks.LayerGroupLogs()]
        history = model.fit(x, y, callbacks=callbacks, verbose=0).history
        names = kt.layer_groups(model).names
        assert abs(history[f"learning_rate/{names[0]}"][0] - 0.05) < 1e-6
        assert history[f"moved/{names[0]}"][0] > 0
        ```

    Reference:
        Howard and Ruder 2018, Universal Language Model Fine-tuning for Text
        Classification, arXiv:1801.06146, for the rates. Li, Grandvalet and Davoine
        2018, Explicit Inductive Bias for Transfer Learning with Convolutional
        Networks, arXiv:1802.01483, for the distance to the start.
    """

    def __init__(
        self,
        model_or_groups: keras.Model | LayerGroups | None = None,
        *,
        rates: bool = True,
        moved: bool = True,
    ) -> None:
        super().__init__()
        if not rates and not moved:
            raise ValueError(
                "rates=False and moved=False leave nothing to log. Set one to True."
            )
        self.rates = rates
        self.moved = moved
        self._given = None if model_or_groups is None else as_groups(model_or_groups)

    def get_config(self) -> dict:
        """Return the arguments without the model."""
        return {"rates": self.rates, "moved": self.moved}

    @classmethod
    def from_config(cls, config: dict) -> LayerGroupLogs:
        """Return a callback that is not bound to a model yet."""
        return cls(**config)

    def set_model(self, model: keras.Model) -> None:
        """Check the other callbacks, and record the weights at the start."""
        super().set_model(model)
        self._groups = as_groups(model) if self._given is None else self._given
        grouped = {id(v) for group in self._groups for v in group.variables}
        if grouped != {id(v) for v in model.weights}:
            raise ValueError(
                f"The groups belong to the model {self._groups.model.name!r}, but "
                f"`fit` trains {model.name!r}, which has other weights. Make the "
                "callback with the model that you fit."
            )
        for callback in _keras.running_callbacks():
            if callback is self:
                break
            if isinstance(callback, WRITERS):
                raise ValueError(
                    f"{type(callback).__name__} comes before LayerGroupLogs, so it "
                    "would write the logs without the values of LayerGroupLogs. Put "
                    f"LayerGroupLogs before {type(callback).__name__}."
                )
        if self.moved:
            record_start(model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the values of this epoch to `logs`."""
        if logs is None:
            return
        if self.rates:
            rates = self._rates()
            for group in self._groups:
                found = [rates.get(id(v), 0.0) for v in group.variables]
                logs[f"learning_rate/{group.name}"] = max(found)
        if self.moved:
            start = start_of(self.model).get
            for group in self._groups:
                logs[f"moved/{group.name}"] = movement([group], start).norm

    def _rates(self) -> dict[int, float]:
        """Return a dict of variable id to learning rate, for trainable variables."""
        optimizer = self.model.optimizer
        optimizer = _keras.inner_optimizer(optimizer)
        training = self.model.trainable_variables
        rate = float(_keras.value(optimizer.learning_rate))
        if not isinstance(optimizer, Discriminative):
            return {id(variable): rate for variable in training}
        factors = optimizer.factors_now()
        return {id(v): rate * factors[id(v)] for v in training}
