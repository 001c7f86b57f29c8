"""Keras's private side of functional graphs: where a symbolic tensor comes from."""

from typing import Any
from typing import NamedTuple

import keras
from keras.src import backend
from keras.src.backend.common.masking import get_keras_mask
from keras.src.models.functional import Functional


def source(tensor: keras.KerasTensor) -> tuple[Any, int, list[keras.KerasTensor]]:
    """Return the operation that made a symbolic tensor, its call, and its inputs."""
    operation, call, _ = tensor._keras_history
    return operation, call, list(operation._inbound_nodes[call].input_tensors)


def output_index(tensor: keras.KerasTensor) -> int:
    """Return the place of a symbolic tensor among the outputs of its call."""
    return tensor._keras_history.tensor_index


def call_arguments(operation: Any, call: int) -> tuple[tuple, dict]:
    """Return the arguments, positional and by name, of a symbolic call."""
    arguments = operation._inbound_nodes[call].arguments
    return tuple(arguments.args), dict(arguments.kwargs)


def results(operation: Any, call: int) -> list[keras.KerasTensor]:
    """Return what a symbolic call returned."""
    return list(operation._inbound_nodes[call].output_tensors)


def functional(layer: keras.Layer) -> keras.Model | None:
    """Return the functional model that calling `layer` runs; None if it has none."""
    if isinstance(layer, keras.Sequential):
        layer = layer._functional
    if not isinstance(layer, Functional) or type(layer).call is not Functional.call:
        return None
    return layer


def has_mask(tensor: keras.KerasTensor) -> bool:
    """Return whether a symbolic tensor carries a Keras mask."""
    return getattr(tensor, "_keras_mask", None) is not None


class BesideOutputs(NamedTuple):
    """What calling a model gives next to its outputs: losses, masks on the outputs."""

    losses: bool
    masks: bool


def beside_outputs(model: keras.Model, inputs: Any) -> BesideOutputs:
    """Return what a call of `model` on symbolic inputs gives next to its outputs.

    The symbolic outputs do not tell: those of a nested model carry no mask, and a layer
    adds its losses as it runs. So it is traced once, with nothing computed or kept.
    """
    found = []

    def run(inputs: Any) -> Any:
        with keras.StatelessScope(collect_losses=True) as scope:
            outputs = model(inputs, training=True)
        masks = [get_keras_mask(each) for each in keras.tree.flatten(outputs)]
        masked = any(each is not None for each in masks)
        found.append(BesideOutputs(bool(scope.losses), masked))
        return outputs

    backend.compute_output_spec(run, inputs)
    return found[-1]


def sees_mask(layer: keras.Layer) -> bool:
    """Return whether a symbolic call of `layer` was given a masked tensor."""
    nodes = layer._inbound_nodes
    return any(has_mask(tensor) for node in nodes for tensor in node.input_tensors)
