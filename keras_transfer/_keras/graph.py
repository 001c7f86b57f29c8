"""Private APIs of Keras for functional graphs: the origin of symbolic tensors."""

from typing import Any
from typing import NamedTuple

import keras
from keras.src import backend
from keras.src.backend.common.masking import get_keras_mask
from keras.src.models.functional import Functional

from keras_transfer._keras.layers import longest_text


def source(tensor: keras.KerasTensor) -> tuple[Any, int, list[keras.KerasTensor]]:
    """Return the operation that made a symbolic tensor, its call, and its inputs."""
    operation, call, _ = tensor._keras_history
    return operation, call, list(operation._inbound_nodes[call].input_tensors)


def output_index(tensor: keras.KerasTensor) -> int:
    """Return the index of a symbolic tensor among the outputs of its call."""
    return tensor._keras_history.tensor_index


def call_arguments(operation: Any, call: int) -> tuple[tuple, dict]:
    """Return the positional arguments and the keyword arguments of a symbolic call."""
    arguments = operation._inbound_nodes[call].arguments
    return tuple(arguments.args), dict(arguments.kwargs)


def results(operation: Any, call: int) -> list[keras.KerasTensor]:
    """Return the output tensors of a symbolic call."""
    return list(operation._inbound_nodes[call].output_tensors)


def functional(layer: keras.Layer) -> keras.Model | None:
    """Return the functional model that a call of `layer` runs, or None."""
    if isinstance(layer, keras.Sequential):
        layer = layer._functional
    if not isinstance(layer, Functional) or type(layer).call is not Functional.call:
        return None
    return layer


def has_mask(tensor: keras.KerasTensor) -> bool:
    """Return whether a symbolic tensor has a Keras mask."""
    return getattr(tensor, "_keras_mask", None) is not None


class BesideOutputs(NamedTuple):
    """Whether a call of a model adds losses, and whether its outputs have masks."""

    losses: bool
    masks: bool


def beside_outputs(model: keras.Model, inputs: Any) -> BesideOutputs:
    """Return whether a call of `model` adds losses or masks, for symbolic inputs.

    The symbolic outputs do not show this: outputs of a nested model have no mask, and a
    layer adds its losses when it runs. The call is traced once, without computing or
    keeping a value.
    """
    results = []

    def run(inputs: Any) -> Any:
        with keras.StatelessScope(collect_losses=True) as scope:
            outputs = model(inputs, training=True)
        masks = [get_keras_mask(output) for output in keras.tree.flatten(outputs)]
        masked = any(mask is not None for mask in masks)
        results.append(BesideOutputs(bool(scope.losses), masked))
        return outputs

    backend.compute_output_spec(run, _of_known_length(model, inputs))
    return results[-1]


def _of_known_length(model: keras.Model, inputs: Any) -> Any:
    """Return inputs with the largest length of texts in place of an unknown one.

    JAX cannot compare an unknown length with the number of positions of a network.
    """
    length = longest_text(model)

    def known(x: keras.KerasTensor) -> keras.KerasTensor:
        shape = list(x.shape)
        if length and len(shape) > 1 and shape[1] is None:
            shape[1] = length
        return keras.KerasTensor(shape, x.dtype)

    return keras.tree.map_structure(known, inputs)


def sees_mask(layer: keras.Layer) -> bool:
    """Return whether a symbolic call of `layer` had an input with a mask."""
    nodes = layer._inbound_nodes
    return any(has_mask(tensor) for node in nodes for tensor in node.input_tensors)
