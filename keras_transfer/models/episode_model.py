"""EpisodeModel: the base class of models that train another model on episodes."""

from __future__ import annotations

import copy
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.models.episode_batch import check_replicas
from keras_transfer.models.episode_batch import is_plain
from keras_transfer.models.never_trained import NeverTrained


@keras.saving.register_keras_serializable(package="keras_transfer")
class EpisodeModel(NeverTrained, keras.Model):
    """A model that trains the weights of another model on episodes, with one loss.

    The config contains the trainable flags of the layers and weights, which a
    subclassed model loses in a `.keras` file. A subclass defines `call`.

    Args:
        model: A built model with one output, and at least one weight to train.
        name: Name of this model.
    """

    def __init__(self, model: keras.Model, name: str | None):
        _check_model(model)
        # Without autocast, the targets of the support set stay as they are.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.model = model
        self._check_trains()
        self.built = True  # all weights are those of the model

    def learned(self, variables: list[keras.Variable]) -> list[keras.Variable]:
        """Return the trainable variables of the model."""
        model = getattr(self, "model", None)
        return list(model.trainable_variables) if model and self.trainable else []

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any
    ) -> None:
        """Configure the training, as for every model.

        Args:
            optimizer: Of the learned weights, as in `keras.Model.compile`. The steps on
                a support set are plain gradient descent.
            loss: One loss, of the steps and of the query sets.
            **kwargs: Other arguments of `keras.Model.compile`, but no `loss_weights`.

        Raises:
            ValueError: If there is no loss, or several, or `loss_weights`.
        """
        if loss is None or isinstance(loss, dict | list | tuple):
            raise ValueError(
                f"loss={loss!r}, but the steps on a support set follow one loss. Pass "
                'one, such as compile("adam", loss="mse").'
            )
        if kwargs.get("loss_weights") is not None:
            raise ValueError(
                f"loss_weights={kwargs['loss_weights']!r} has no use for one loss. "
                "Change inner_rate, or the learning rate of the optimizer."
            )
        super().compile(optimizer, loss, **kwargs)

    def compile_from_config(self, config: dict) -> None:
        """Compile a loaded model as it was compiled when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train on episodes, as every model trains on a dataset.

        Args:
            x: The result of `kt.data.episodes`, or another form of episodes.
            *args: As in `keras.Model.fit`: the targets of the queries.
            **kwargs: As in `keras.Model.fit`. `batch_size` counts episodes.

        Raises:
            ValueError: If the data are plain examples, the model has no weight to
                train, or a batch has fewer episodes than replicas.
        """
        # Before the step runs: on JAX it first runs as if it were not training.
        if is_plain(x):
            raise self._plain_examples()
        self._check_trains()
        check_replicas(self, x)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the loss and the metrics of the query sets, after the steps.

        Args:
            x: Episodes, as in `fit`, or plain examples, which are asked without a step.
            *args: As in `keras.Model.evaluate`.
            **kwargs: As in `keras.Model.evaluate`.

        Raises:
            ValueError: If a batch has fewer episodes than replicas.
        """
        check_replicas(self, x)
        return super().evaluate(x, *args, **kwargs)

    def get_config(self) -> dict:
        """Return the model, its trainable flags, and the name."""
        model = keras.saving.serialize_keras_object(self.model)
        model.pop("compile_config", None)
        return {
            "model": model,
            "name": self.name,
            "trainable_layers": list(_keras.flags(self.model)),
            "trainable_weights": [each.trainable for each in self.model.weights],
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> EpisodeModel:
        """Return the model from its config, with the same trainable flags."""
        config = copy.deepcopy(config)  # Keras changes what it reads
        flags = [config.pop(f"trainable_{x}") for x in ("layers", "weights")]
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects
        )
        _keras.set_flags(model, *flags)
        return cls(model, **config)

    def _check_compiled(self) -> None:
        if not self.compiled:
            raise ValueError(
                f"{self.name!r} is not compiled, so the loss of the steps on a support "
                'set is not known. Call compile("adam", loss) first.'
            )

    def _check_trains(self) -> None:
        if not self.model.trainable_variables:
            raise ValueError(
                f"{self.model.name!r} has no weight to train: it has no weights, or "
                "all are frozen. Pass a model with trainable weights, or set "
                "layer.trainable = True."
            )

    def _plain_examples(self) -> ValueError:
        return ValueError(
            f"A {type(self).__name__} trains on episodes, but `fit` got plain "
            "examples. Pass kt.data.episodes(x, y, way, shot, query), or a dictionary "
            'with "support", "support_y" and "query". For one task, call '
            "adapt(x, y)."
        )


def _check_model(model: object) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model is a {type(model).__name__}, not a Keras model. Pass a keras.Model."
        )
    if not model.built:
        raise ValueError(
            f"{model.name!r} is not built, so it has no weights yet. Give it a "
            "keras.Input, or call it once on examples."
        )
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) > 1:
        raise ValueError(
            f"{model.name!r} has {len(outputs)} outputs, but the steps on a support "
            "set follow the loss of one output. Pass a model with one output, such as "
            "keras.Model(model.input, model.outputs[0])."
        )
