"""Which weights the outputs and losses of a layer depend on, by a trace of its call."""

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.backend import compute_output_spec


def weights_read(
    layer: keras.Layer, arguments: tuple[tuple, dict], outputs: Iterable[int]
) -> set[int]:
    """Return the ids of the variables on which some outputs or losses of a call depend.

    The call is traced once, as in training, on symbolic tensors; nothing is computed.
    Where the backend is TensorFlow a variable counts only if floating point numbers
    lead from it to the outputs and no gradient is stopped; else each that is read.

    Args:
        layer: What is called.
        arguments: Its arguments, positional and by name, with symbolic tensors.
        outputs: Places of the outputs that matter, in the flattened result.
    """
    found: set[int] = set()
    training = {"training": True} if layer._call_has_training_arg else {}

    def call(*args: Any, **kwargs: Any) -> Any:
        with _Reads() as reads:
            result = layer(*args, **kwargs | training)
        tensors = keras.tree.flatten(result)
        read_from = [tensors[each] for each in outputs] + reads.losses
        found.update(reads.leading_to(read_from))
        return result

    # Keras notes the losses that a scope collects, by ids that come again.
    known = {each: set(each._loss_ids) for each in layer._flatten_layers()}
    compute_output_spec(call, *arguments[0], **arguments[1])
    for each, ids in known.items():
        each._loss_ids = ids
    return found


class _Reads(keras.StatelessScope):
    """Note each variable that is read within the scope, and what was read."""

    def __init__(self) -> None:
        super().__init__(collect_losses=True)
        self.read: dict[int, list] = {}

    def get_current_value(self, variable: keras.Variable) -> Any:
        """Return a tensor of the variable's own, so that it can be followed."""
        value = super().get_current_value(variable)
        if value is None:
            value = _tensor(variable._value)
            self.read.setdefault(id(variable), []).append(value)
        return value

    def leading_to(self, outputs: list) -> set[int]:
        """Return the ids of the variables read that `outputs` can be traced to."""
        if keras.backend.backend() != "tensorflow":
            return set(self.read)
        behind = _operations_behind(outputs)
        graph = outputs[0].graph
        return {
            variable
            for variable, tensors in self.read.items()
            # What the body of a loop reads is in a graph of its own.
            if any(each.graph is not graph or each.op in behind for each in tensors)
        }


def _tensor(value: Any) -> Any:
    """Return a new tensor of the graph that is traced."""
    if keras.backend.backend() != "tensorflow" or value is None:
        return value
    import tensorflow as tf

    return tf.identity(value)


def _operations_behind(outputs: list) -> set:
    """Return the operations of a TensorFlow graph whose gradients reach `outputs`."""
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
