"""BackboneModel: the base class of functional models with a backbone."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.backbones.addresses import addressed
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.models.never_trained import NeverTrained


@keras.saving.register_keras_serializable(package="keras_transfer")
class BackboneModel(NeverTrained, keras.Model):
    """A functional model that never trains weights that its outputs do not use.

    The config contains the trainable flags of layers and weights (`flags_config`).
    keras-hub backbones lose these flags in a `.keras` file, and then the optimizer
    loses its state. The config also contains the unused (idle) weights. Otherwise a
    later version that finds more idle weights could not load the optimizer slots. A
    subclass defines `get_config`.

    Args:
        inputs: Symbolic inputs.
        outputs: Symbolic outputs.
        unused: Weights on which the outputs do not depend, such as BERT's pooler if the
            outputs use the mean of the tokens. If such a weight were trainable, Keras
            would warn that it has no gradient, and the optimizer would keep slots.
        name: Name of the model.
    """

    def __init__(
        self,
        inputs: object,
        outputs: object,
        unused: Unused,
        name: str | None,
    ):
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self._of_layers = lambda: unused.of_layers  # a lambda hides them from Keras
        self._keep_idle(unused.weights)

    def _keep_idle(self, weights: list[keras.Variable]) -> None:
        ids = {id(weight) for weight in weights}
        idle_layers = [
            layer
            for layer in _keras.flat_layers(self)
            if layer.weights and all(id(weight) in ids for weight in layer.weights)
        ]
        # By layer, so that an adapter added to such a layer later is idle too. The
        # lambda hides the layers from Keras.
        self._unused = lambda: {
            *ids,
            *(id(weight) for layer in idle_layers for weight in layer.weights),
        }

    def learned(self, variables: list[keras.Variable]) -> list[keras.Variable]:
        """Return the variables without those that the outputs do not use."""
        unused = getattr(self, "_unused", set)()
        return [variable for variable in variables if id(variable) not in unused]

    def idle_weights(self) -> list[keras.Variable]:
        """Return the weights that the outputs do not use, in the model's order."""
        unused = self._unused()
        return [weight for weight in self.weights if id(weight) in unused]

    def flags_config(self) -> dict:
        """Return the trainable flags and the idle weights, for `get_config`.

        The result also has the class names, if `fine_tune` has read them, and the
        quantization of layers, which layers that the model creates itself do not save.
        """
        names, quantized = class_names_of(self), _quantized(self)
        idle = {id(weight) for weight in self.idle_weights()}
        weights = enumerate(self.weights)
        return {
            "trainable_layers": list(_keras.flags(self)),
            "trainable_weights": [weight.trainable for weight in self.weights],
            "idle_weights": [place for place, each in weights if id(each) in idle],
            **({"class_names": list(names)} if names else {}),
            **({"quantized": quantized} if quantized else {}),
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> BackboneModel:
        """Return the model from its config, with the same trainable flags.

        Raises:
            ValueError: If the model has a different number of layers or weights.
        """
        config = {
            name: keras.saving.deserialize_keras_object(value, custom_objects)
            if isinstance(value, dict) and "class_name" in value
            else value
            for name, value in config.items()
        }
        flags = [config.pop(f"trainable_{x}", None) for x in ("layers", "weights")]
        idle = config.pop("idle_weights", None)
        names = config.pop("class_names", None)
        quantized = config.pop("quantized", {})
        model = cls(**config)
        _quantize_again(model, quantized)
        remember_class_names(model, names)
        # Keras builds the optimizer right after this, over the trainable variables.
        if flags[0] is not None:
            _restore_flags(model, *flags)
            weights = model.weights
            known = [weights[place] for place in idle or ()]
            model._keep_idle(model._of_layers() if idle is None else known)
        return model


def _quantized(model: keras.Model) -> dict[str, dict]:
    """Return the dtype policies of the quantized layers, by address."""
    return {
        address: keras.saving.serialize_keras_object(layer.dtype_policy)
        for address, layer in addressed(model).items()
        if layer.quantization_mode is not None
        and all(isinstance(below, Part) for below in _keras.sublayers(layer))
    }


def _quantize_again(model: keras.Model, quantized: dict[str, dict]) -> None:
    """Quantize the layers that were quantized when saved. Keras loads values later."""
    places = addressed(model)
    for address, policy in quantized.items():
        layer = places.get(address)
        if layer is not None and layer.quantization_mode is None:
            layer.dtype_policy = keras.saving.deserialize_keras_object(policy)


def _restore_flags(
    model: BackboneModel, trainable_layers: list[bool], trainable_weights: list[bool]
) -> None:
    """Set the flags from `flags_config`, first of layers, then of weights."""
    saved = len(trainable_layers), len(trainable_weights)
    present = len(_keras.flags(model)), len(model.weights)
    if saved != present:
        raise ValueError(
            f"The config of '{model.name}' has trainable flags for {saved[0]} layers "
            f"and {saved[1]} weights, but the model has {present[0]} layers and "
            f"{present[1]} weights. It was saved with another version of the backbone. "
            "Remove 'trainable_layers' and 'trainable_weights' from the config. All "
            "layers are then trainable."
        )
    _keras.set_flags(model, trainable_layers, trainable_weights)
