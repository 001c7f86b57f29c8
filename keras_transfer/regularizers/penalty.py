"""Penalty: the base of the recipes, which finds the weights of a model to penalize."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.training_flags import pinned
from keras_transfer.regularizers.attachments import attached


class Penalty:
    """Base of the penalties: attached to a model, they act in each `fit` of it."""

    @property
    def name(self) -> str:
        """The name under which a model keeps the penalty."""
        return type(self).__name__

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{self.name}({given})"

    def get_config(self) -> dict:
        """Return the arguments."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict) -> Penalty:
        """Return the penalty of `get_config`."""
        return cls(**config)

    def check_covers(self, model: keras.Model, covered: set[int]) -> None:
        """Check that the penalty covers the weights of `model` that it has to."""


def check_model(model: object, name: str, *, again: bool = False) -> None:
    """Check that the penalty `name` can be attached to `model`.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the model is not built, was created in another distribution
            strategy, or has this penalty and `again` is False.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{model!r} is not a Keras model, so it has no loss for {name} to add to. "
            "Pass the model that you compile."
        )
    if not model.built or not model.weights:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to keep. "
            "Call it once on a batch, or give a Sequential a `keras.Input`."
        )
    if name in attached(model) and not again:
        raise ValueError(
            f"The model {model.name!r} has {attached(model)[name].recipe!r} already. "
            "Call kt.regularizers.detach(model) first, to anchor it at the present "
            "weights."
        )
    if not _keras.in_strategy_of(model):
        raise ValueError(
            f"The model {model.name!r} and the penalty would be in different "
            "tf.distribute strategies. Attach inside the `with strategy.scope():` in "
            "which the model was created."
        )


def able_weights(model: keras.Model) -> dict[int, keras.Variable]:
    """Return the weights that can train now or in a later phase, by position.

    These are the floating weights that follow a layer's trainable flag. Statistics, the
    weights below an adapter, and weights that no output uses are left out.
    """
    learnable = {
        id(variable)
        for layer in _keras.flat_layers(model)
        for variable in _keras.learnable(layer)
    }
    idle = getattr(model, "idle_weights", list)()
    fixed = pinned(model) | {id(variable) for variable in idle}
    return {
        place: variable
        for place, variable in enumerate(model.weights)
        if id(variable) in learnable - fixed
        and keras.backend.is_float_dtype(variable.dtype)
    }
