"""Trace the call of a layer to find the weights that its outputs depend on."""

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.backend import compute_output_spec


def weights_read(
    layer: keras.Layer, arguments: tuple[tuple, dict], outputs: Iterable[int]
) -> set[int]:
    """Return the ids of the variables that some outputs or losses of a call depend on.

    The call is traced once in training mode on symbolic tensors, without computing a
    value. With TensorFlow, a variable counts if a path of floating point numbers,
    without a stopped gradient, leads from the variable to the outputs. With other
    backends, every variable that is read counts.

    Args:
        layer: Layer to call.
        arguments: Positional and keyword arguments of the call, with symbolic tensors.
        outputs: Indices of the outputs that matter, in the flattened result.
    """
    variables: set[int] = set()
    training = {"training": True} if layer._call_has_training_arg else {}

    def call(*args: Any, **kwargs: Any) -> Any:
        with _Reads() as reads:
            result = layer(*args, **kwargs | training)
        tensors = keras.tree.flatten(result)
        read_from = [tensors[index] for index in outputs] + reads.losses
        variables.update(reads.leading_to(read_from))
        return result

    # Keras stores the ids of the losses in a scope, and Python may reuse these ids.
    loss_ids = {child: set(child._loss_ids) for child in layer._flatten_layers()}
    compute_output_spec(call, *arguments[0], **arguments[1])
    for child, ids in loss_ids.items():
        child._loss_ids = ids
    return variables


class _Reads(keras.StatelessScope):
    """Record each variable that is read in the scope, with the tensors."""

    def __init__(self) -> None:
        super().__init__(collect_losses=True)
        self.read: dict[int, list] = {}

    def get_current_value(self, variable: keras.Variable) -> Any:
        """Return a new tensor of the variable that can be found in the graph."""
        value = super().get_current_value(variable)
        if value is None:
            value = _tensor(variable._value)
            self.read.setdefault(id(variable), []).append(value)
        return value

    def leading_to(self, outputs: list) -> set[int]:
        """Return the ids of the variables that `outputs` depend on."""
        if keras.backend.backend() != "tensorflow":
            return set(self.read)
        behind = _operations_behind(outputs)
        graph = outputs[0].graph
        return {
            variable
            for variable, tensors in self.read.items()
            # The body of a loop has a separate graph, so its variables count as used.
            if any(x.graph is not graph or x.op in behind for x in tensors)
        }


def _tensor(value: Any) -> Any:
    """Return a new tensor in the current graph."""
    if keras.backend.backend() != "tensorflow" or value is None:
        return value
    import tensorflow as tf

    return tf.identity(value)


def _operations_behind(outputs: list) -> set:
    """Return the operations of a TensorFlow graph that get gradients from `outputs`."""
    seen, waiting = set(), [tensor.op for tensor in outputs]
    while waiting:
        operation = waiting.pop()
        if operation in seen or operation.type == "StopGradient":
            continue
        seen.add(operation)
        waiting += [
            tensor.op
            for tensor in operation.inputs
            if not (tensor.dtype.is_integer or tensor.dtype.is_bool)
        ]
    return seen
