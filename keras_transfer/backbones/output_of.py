"""The part of a backbone that leads to one of its outputs."""

from difflib import get_close_matches

import keras

from keras_transfer import _keras
from keras_transfer.backbones.used_weights import calls_behind


@keras.saving.register_keras_serializable(package="keras_transfer")
class BackbonePart(keras.Model):
    """The part of a backbone that leads to one of its outputs.

    A functional model that `layer_groups` treats as a backbone without a head.
    `kt.backbones.features(backbone, output=...)` makes it.
    """


def part_of(network: keras.Model, output: str) -> BackbonePart:
    """Return the part of a functional network that leads to the output of this name.

    Args:
        network: A functional model.
        output: Key of an output of the network, or name of one of its layers.

    Returns:
        A model with the same layers, and with the inputs that the output depends on.

    Raises:
        TypeError: If `output` is not a string.
        ValueError: If no output or layer has this name, if the layer is called twice
            or returns several tensors, or if the output has no fixed number of
            features.
    """
    tensor = _find(network, output)
    if tensor.shape[-1] is None:
        raise ValueError(
            f"The output {output!r} of '{network.name}' has the shape {tensor.shape}, "
            "because it compares the rows of a batch with each other. It has no fixed "
            f"number of features. Pass one of {choices(network)}."
        )
    needed = {operation for operation, _ in calls_behind([tensor])}
    inputs = _select(network.input, needed)
    return BackbonePart(inputs, tensor, name=f"{network.name}_{output}")


def choices(network: keras.Model) -> list[str]:
    """Return the names of usable outputs of a network, or of the layers before them."""
    names = []
    for name, tensor in _named_outputs(network).items():
        if tensor.shape[-1] is not None:
            names.append(name)
        else:
            inputs = _keras.source(tensor)[2]
            names += [_keras.source(tensor)[0].name for tensor in inputs]
    return list(dict.fromkeys(names))


def _find(network: keras.Model, output: str) -> keras.KerasTensor:
    if not isinstance(output, str):
        raise TypeError(
            f"output={output!r} is not a string. Pass the name of an output, one of "
            f"{choices(network)}, or the name of a layer."
        )
    outputs = _named_outputs(network)
    if output in outputs:
        return outputs[output]
    layers = {layer.name: layer for layer in network.layers}
    if output not in layers:
        near = get_close_matches(output, [*outputs, *layers], n=3, cutoff=0)
        raise ValueError(
            f"'{network.name}' has no output and no layer {output!r}. Pass one of its "
            f"outputs, {list(outputs)}, or the name of a layer. The most similar names "
            f"are {near}."
        )
    tensors = [
        tensor
        for operation, call in calls_behind(network.outputs)
        if operation is layers[output]
        for tensor in _keras.results(operation, call)
    ]
    if len(tensors) != 1:
        raise ValueError(
            f"The layer {output!r} of '{network.name}' returns {len(tensors)} tensors, "
            "so its name does not select a single tensor. Make a keras.Model with only "
            "the tensor that you want as output."
        )
    return tensors[0]


def _named_outputs(network: keras.Model) -> dict[str, keras.KerasTensor]:
    """Return the outputs by key, or by the name of their layer without a dictionary."""
    outputs = network.output
    if isinstance(outputs, dict):
        return {name: x for name, x in outputs.items() if hasattr(x, "shape")}
    return {_keras.source(x)[0].name: x for x in network.outputs}


def _select(inputs: object, needed: set) -> object:
    """Return the needed inputs in the same structure."""

    def is_needed(tensor: keras.KerasTensor) -> bool:
        return _keras.source(tensor)[0] in needed

    if isinstance(inputs, dict):
        return {name: x for name, x in inputs.items() if is_needed(x)}
    if isinstance(inputs, list | tuple):
        return [x for x in inputs if is_needed(x)]
    return inputs
