"""sequence_output: one feature vector for each token, from a text backbone."""

from __future__ import annotations

import keras

from keras_transfer.backbones.features import chosen_output
from keras_transfer.backbones.features import symbolic_inputs
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.backbones.used_weights import unused


def sequence_output(
    backbone: keras.Model | FrozenBackbone,
) -> tuple[object, keras.KerasTensor, Unused]:
    """Return the symbolic inputs of a backbone, its tokens, and its unused weights.

    Returns:
        The structure of input tensors, the tensor `(batch, tokens, features)`, and the
        weights of the backbone on which it does not depend.

    Raises:
        TypeError: If the backbone is not a model, or is a Task that has a backbone.
        ValueError: If the backbone is not built, or has no such output.
    """
    network = unwrap(backbone)
    inputs = symbolic_inputs(network)
    outputs = backbone(inputs)
    key = chosen_output(outputs, None, network, backbone.name)
    outputs = keras.tree.flatten(outputs if key is None else outputs[key])[0]
    if len(outputs.shape) != 3:
        raise ValueError(
            f"The output of '{backbone.name}' has the shape {outputs.shape}, but one "
            "vector for each token is needed: (batch, tokens, features)."
        )
    return inputs, outputs, unused(network, key)
