"""AroundBackbone: the base of functional models that are built around a backbone."""

import keras

from keras_transfer import _keras


@keras.saving.register_keras_serializable(package="keras_transfer")
class AroundBackbone(keras.Model):
    """A functional model in which what its outputs do not need never trains.

    The flags of its layers and weights belong to its config (`flags_config`), since
    keras-hub backbones forget theirs in a `.keras` file, and with them the optimizer
    loses its state.

    Args:
        inputs: Symbolic inputs.
        outputs: Symbolic outputs.
        unused: Weights on which the outputs do not depend, such as BERT's pooler under
            a mean of tokens. Keras would warn of each that it has no gradient, and
            keep slots for it.
        name: Name of the model.
    """

    def __init__(
        self,
        inputs: object,
        outputs: object,
        unused: list[keras.Variable],
        name: str | None,
    ):
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        known = {id(weight) for weight in unused}
        layers = [
            layer
            for layer in _keras.flat_layers(self)
            if layer.weights and all(id(each) in known for each in layer.weights)
        ]
        # By layer, out of Keras's sight: an adapter that comes later is idle there too.
        self._unused = lambda: {
            *known,
            *(id(weight) for layer in layers for weight in layer.weights),
        }

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables that train: none that the outputs do not depend on."""
        return self._without_idle(super().trainable_variables)

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights that train: none that the outputs do not depend on."""
        return self._without_idle(super().trainable_weights)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All variables but `trainable_variables`."""
        return self._others(self.variables, self.trainable_variables)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All weights but `trainable_weights`."""
        return self._others(self.weights, self.trainable_weights)

    def _without_idle(self, variables: list) -> list[keras.Variable]:
        # Keras asks before __init__ has ended, too.
        unused = getattr(self, "_unused", set)()
        return [variable for variable in variables if id(variable) not in unused]

    def _others(self, variables: list, known: list) -> list[keras.Variable]:
        known = {id(variable) for variable in known}
        return [variable for variable in variables if id(variable) not in known]


def flags_config(model: keras.Model) -> dict:
    """Return what `restore_flags` takes: which layers and which weights train."""
    return {
        "trainable_layers": list(_keras.flags(model)),
        "trainable_weights": [x.trainable for x in model.weights],
    }


def restore_flags(
    model: keras.Model,
    trainable_layers: list[bool] | None,
    trainable_weights: list[bool] | None,
) -> None:
    """Set the flags of `flags_config`, layer by layer, then by weight; None sets none.

    It is to be called in from_config, since Keras builds the optimizer over what trains
    right after.

    Raises:
        ValueError: If the model has another number of layers or weights.
    """
    if trainable_layers is None:
        return
    found = _keras.flags(model)
    layers, weights = len(trainable_layers), len(trainable_weights)
    if len(found) != layers or len(model.weights) != weights:
        raise ValueError(
            f"The config of '{model.name}' has trainable flags of {layers} "
            f"layers and {weights} weights, but the model has {len(found)} and "
            f"{len(model.weights)}. It was saved with another version of the "
            "backbone. Remove 'trainable_layers' and 'trainable_weights' from the "
            "config to have all train."
        )
    _keras.set_flags(model, trainable_layers, trainable_weights)
