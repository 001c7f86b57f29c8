"""DomainAdaptation: the base class of domain adaptation methods with a strength."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import check_strength
from keras_transfer.layers.gradient_reversal import is_schedule
from keras_transfer.layers.gradient_reversal import Schedule
from keras_transfer.models.run_progress import RunProgress
from keras_transfer.models.two_domain_model import TwoDomainModel
from keras_transfer.models.two_streams import is_two_streams

Strength = float | keras.Variable | Schedule | None
SLOPE = 10.0  # gamma of Ganin et al., of a strength of None


@keras.saving.register_keras_serializable(package="keras_transfer")
class DomainAdaptation(TwoDomainModel):
    """A model of two domains, with a strength that can rise during `fit`.

    A subclass reads `strength_now` in its `compare` or `penalties`.

    Args:
        feature_extractor: As in `TwoDomainModel`.
        label_head: As in `TwoDomainModel`.
        strength: How strongly training aligns the domains: a number, a variable or a
            schedule. Defaults to None, which rises from 0 to `full_strength` along
            Ganin's schedule over the steps of the running `fit`.
        total_steps: Int, updates over which a strength of None rises. Defaults to None,
            which takes the steps of the running `fit`.
        name: Name of the model.
    """

    arguments = (*TwoDomainModel.arguments, "strength", "total_steps")
    full_strength = 1.0  # the last value of a strength of None
    # Whether the strength follows the lead of an adversary. A model that an earlier
    # version saved continues without it.
    follows_lead = False

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        strength: Strength = None,
        total_steps: int | None = None,
        name: str | None = None,
    ):
        strength = _read_strength(strength, total_steps)
        super().__init__(feature_extractor, label_head, name=name)
        self.strength = strength
        progress = RunProgress(total_steps)
        # A lambda hides it from Keras, because the state of a `fit` is not saved.
        self._progress = lambda: progress

    @property
    def total_steps(self) -> int | None:
        """Updates over which a strength of None rises. None means all of `fit`."""
        return self._progress().total_steps

    def strength_now(self) -> object:
        """Return the strength of the current step, a float32 scalar of the graph."""
        optimizer = getattr(self, "optimizer", None)
        strength = self.strength
        if strength is None:
            p = self._progress().value(optimizer)
            # Equals 2 / (1 + exp(-SLOPE p)) - 1, but stays precise for a small p.
            return self.full_strength * ops.tanh(0.5 * SLOPE * p)
        if is_schedule(strength):
            strength = strength(self._progress().iterations(optimizer))
        return ops.cast(ops.convert_to_tensor(strength), "float32")

    def strength_by_lead(self, loss: object, at_chance: float) -> object:
        """Return the strength, lowered as an adversary loses its lead.

        An adversary is trained to distinguish the domains. Features that change faster
        than it learns raise its loss above that of chance, which does not bring the
        domains closer, and destroys what the label head needs. So the strength is

            s max(0, 1 - loss / loss at chance)

        Args:
            loss: Scalar, the loss of the adversary on this replica.
            at_chance: Float, its loss if the domains cannot be distinguished.
        """
        if not self.follows_lead:
            return self.strength_now()
        loss = ops.cast(_keras.mean_over_replicas(loss), "float32")
        lead = ops.clip(1.0 - loss / at_chance, 0.0, 1.0)
        return self.strength_now() * ops.stop_gradient(lead)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> object:
        """Check that the strength is known, and return the outputs."""
        if training and self.strength is None and is_two_streams(inputs):
            self._progress().check_total(self)
        return super().call(inputs, training=training, mask=mask)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics, and the strength if the input has two domains."""
        metrics = super().compute_metrics(x, y, y_pred, sample_weight)
        if is_two_streams(x):
            metrics["strength"] = self._progress().shown(self.strength_now)
        return metrics

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the loss of the labels, plus the method's losses for two domains."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if is_two_streams(x):
            self._progress().end_step(training, self.strength_now)
        return loss

    def train_on_batch(self, *args: object, **kwargs: object) -> object:
        """Train on one batch like any model."""
        self._progress().start_steps(self.optimizer)
        return super().train_on_batch(*args, **kwargs)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """The variables that are not trained, with the count of steps on JAX."""
        return [*super().non_trainable_variables, *self._progress().in_model]

    @property
    def metrics_variables(self) -> list[keras.Variable]:
        """The variables of the metrics, with the strength in the logs on JAX."""
        return [*super().metrics_variables, *self._progress().in_metrics]

    def reset_metrics(self) -> None:
        """Reset the metrics, and update the progress, because an epoch may start."""
        super().reset_metrics()
        if getattr(self, "optimizer", None) is not None:
            self._progress().start_steps(self.optimizer)
        if self.strength is None:
            self._progress().start_epoch(self)
        else:
            check_strength(float(_keras.value(self.strength_now())))

    def get_config(self) -> dict:
        """Return the `arguments` and the trainable flags."""
        config, strength = super().get_config(), self.strength
        if isinstance(strength, keras.Variable):
            config["strength"] = {"variable": float(_keras.value(strength))}
        elif is_schedule(strength):
            config["strength"] = keras.saving.serialize_keras_object(strength)
        if type(self).follows_lead:
            config["follows_lead"] = self.follows_lead
        return config

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> DomainAdaptation:
        """Return the model from its config. An earlier version has no lead in it."""
        config = dict(config)
        follows_lead = config.pop("follows_lead", False)
        model = super().from_config(config, custom_objects)
        model.follows_lead = follows_lead
        return model


def _read_strength(strength: Strength | dict, total_steps: int | None) -> Strength:
    """Return the checked strength from an argument or a config.

    Raises:
        TypeError: If the strength has the wrong type.
        ValueError: If the strength is out of range, or if `total_steps` has no effect.
    """
    if isinstance(strength, dict):  # from get_config
        strength = keras.Variable(strength["variable"], trainable=False)
    if strength is None:
        return None
    check_strength(strength)
    if total_steps is not None:
        raise ValueError(
            f"total_steps={total_steps} has no effect on the strength {strength!r}, "
            "because only strength=None rises over these steps. Leave out one of the "
            "two arguments."
        )
    if isinstance(strength, keras.Variable):
        # Otherwise training would lower the loss by a strength of 0.
        strength.trainable = False
    return strength
