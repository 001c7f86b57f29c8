"""InnerStates: a model that also returns what its blocks compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer.backbones.groups import layer_groups


@keras.saving.register_keras_serializable(package="keras_transfer")
class InnerStates(keras.Model):
    """Return the output of a network, the states of blocks, and their attention.

    The states are read while the network runs, so they cost no second pass, and have
    the same dropout as the output. The weights are those of the network.

    Args:
        network: A built model, such as a classifier on a backbone.
        blocks: Names of blocks whose states to return, as in `kt.layer_groups` of its
            backbone, in the order of the result.
        attention: Names of blocks whose attention to return. Each has to contain one
            `keras.layers.MultiHeadAttention`.

    Output shape:
        A dictionary with `"output"`, the list `"states"` of `(batch, positions,
        width)`, and the list `"attention"` of `(batch, positions, positions)`, the mean
        over the heads.
    """

    def __init__(
        self,
        network: keras.Model,
        blocks: Sequence[str],
        attention: Sequence[str] = (),
    ):
        super().__init__(name=f"{network.name}_states")
        self.network = network
        found = {
            layer.name: layer
            for layer in reversed(_keras.flat_layers(network))
            if layer.weights
        }
        backbone = getattr(network, "backbone", network)
        known = [name for name in layer_groups(backbone).names if name in found]
        why = f"these are the blocks of {network.name!r}"
        for name in (*blocks, *attention):
            one_of("a block", name, known, why)
        places = [found[name] for name in blocks]
        readers = [_attention_in(found[name]) for name in attention]
        # A lambda hides the layers from Keras, which tracks them in the network.
        self._read = lambda: (places, readers)
        self.blocks, self.attention = list(blocks), list(attention)
        self.built = True

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "blocks": list(self.blocks),
            "attention": list(self.attention),
        }

    @classmethod
    def from_config(cls, config: dict) -> InnerStates:
        """Return the model of `get_config`."""
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(network, config["blocks"], config["attention"])

    def call(self, inputs: Any, training: bool | None = None) -> dict:
        """Return the dictionary."""
        places, readers = self._read()
        states, scores = {}, {}

        def run(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
            if any(layer is each for each in readers):
                kwargs["return_attention_scores"] = True
                outputs, attention = call(*args, **kwargs)
                scores[id(layer)] = keras.ops.mean(attention, axis=1)
                return outputs
            outputs = call(*args, **kwargs)
            states[id(layer)] = keras.tree.flatten(outputs)[0]
            return outputs

        with _keras.calls_through([*places, *readers], run):
            output = self.network(inputs, training=training)
        return {
            "output": output,
            "states": [states[id(layer)] for layer in places],
            "attention": [scores[id(layer)] for layer in readers],
        }


def _attention_in(block: keras.Layer) -> keras.Layer:
    found = [
        layer
        for layer in _keras.flat_layers(block)
        if isinstance(layer, keras.layers.MultiHeadAttention)
    ]
    if len(found) != 1:
        raise ValueError(
            f"The block {block.name!r} has {len(found)} MultiHeadAttention layers, but "
            "its attention can be read from one. Leave out this block."
        )
    return found[0]
