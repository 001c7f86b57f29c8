"""A network of JAX in a graph of TensorFlow."""

import contextlib
import logging
import re
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras

from keras_transfer._keras.layers import longest_text

# Machines that serve a SavedModel. TensorFlow chooses one when it loads the file.
PLATFORMS = ("cpu", "cuda")
MOST = 4  # inputs for which all partitions are tried


def call_in_tensorflow(network: Callable, inputs: Any, copy_of: Callable) -> Any:
    """Return the outputs of a network of JAX for inputs of a graph of TensorFlow.

    Args:
        network: The network, a Keras model.
        inputs: Structure of symbolic tensors of TensorFlow. Axes may be unknown.
        copy_of: Function from a variable of Keras to the `tf.Variable` of its value.

    Raises:
        ValueError: If JAX cannot trace the network for unknown axes.
    """
    from jax.experimental import jax2tf

    if not network.built:
        raise ValueError(
            f"The model {network.name!r} is not built, so it has no weights to export. "
            "Call it on a batch of examples first."
        )
    shapes, limits, variables = _traced(network, inputs)

    def call(values: list, inputs: Any) -> Any:
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return network(inputs, training=False)

    converted = jax2tf.convert(
        call,
        polymorphic_shapes=[None, shapes],
        polymorphic_constraints=limits,
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    return converted([copy_of(each) for each in variables], inputs)


def _traced(network: Callable, inputs: Any) -> tuple[Any, list[str], list]:
    """Return shapes and limits for which JAX traces a network, and what it reads.

    Unknown axes are independent of each other if the network allows this.
    """
    reason, tried = None, []
    for groups in _partitions(len(keras.tree.flatten(inputs))):
        shapes = _shapes(inputs, groups)
        if shapes in tried:
            continue
        tried.append(shapes)
        limits = _limits(network, shapes)
        try:
            with _quiet():
                variables = _variables_read(network, inputs, shapes, limits)
            return shapes, limits, variables
        except Exception as error:  # JAX and layers raise many types for such shapes
            reason = reason or error
    raise ValueError(
        f"JAX cannot trace the model for inputs of any size: {reason}\nGive the "
        "inputs of the model fixed shapes, or export it with "
        "KERAS_BACKEND=tensorflow."
    ) from reason


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, do not log a traceback for shapes that do not fit."""
    logger = logging.getLogger("absl")  # which Keras uses for attention
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _partitions(count: int) -> list[tuple[int, ...]]:
    """Return the group of each input, in every way, with the most groups first.

    The unknown axes of inputs in one group are equal, such as those of tokens and their
    mask. With more than `MOST` inputs, all are separate or all are together.
    """
    if count > MOST:
        return [tuple(range(count)), (0,) * count]
    found = [()]
    for _ in range(count):
        found = [(*g, n) for g in found for n in range(max(g, default=-1) + 2)]
    return sorted(found, key=lambda groups: -len(set(groups)))


def _shapes(inputs: Any, groups: tuple[int, ...]) -> Any:
    """Return the shapes of inputs for JAX, with a name for each unknown axis."""

    def name(number: int, axis: int) -> str:
        return "batch" if axis == 0 else f"axis{axis}_{groups[number]}"

    shapes = [
        [str(length or name(number, axis)) for axis, length in enumerate(each.shape)]
        for number, each in enumerate(keras.tree.flatten(inputs))
    ]
    texts = [f"({', '.join(shape)})" for shape in shapes]
    return keras.tree.pack_sequence_as(inputs, texts)


def _limits(network: Callable, shapes: Any) -> list[str]:
    """Return the largest length of texts that the network has positions for."""
    longest = longest_text(network)
    if longest is None:
        return []
    axes = set(re.findall(r"axis1\w*", " ".join(keras.tree.flatten(shapes))))
    return [f"{axis} <= {longest}" for axis in sorted(axes)]


def _variables_read(
    network: Callable, inputs: Any, shapes: Any, limits: list[str]
) -> list:
    """Return the variables that a network reads."""
    import jax

    variables = network.variables
    values = [jax.ShapeDtypeStruct(x.shape, x.value.dtype) for x in variables]
    specs = keras.tree.map_structure(
        lambda x: jax.ShapeDtypeStruct([each or 1 for each in x.shape], x.dtype.name),
        inputs,
    )
    read = set()

    def call(values: list, inputs: Any) -> Any:
        with _Reading(zip(variables, values, strict=True)) as scope:
            outputs = network(inputs, training=False)
        read.update(scope.read)
        return outputs

    specs = jax.export.symbolic_args_specs(specs, shapes, constraints=limits)
    jax.eval_shape(call, values, specs)
    return [each for each in variables if id(each) in read]


class _Reading(keras.StatelessScope):
    """Notes which variables are read."""

    def __init__(self, state_mapping: Any) -> None:
        super().__init__(state_mapping)
        self.read = set()

    def get_current_value(self, variable: keras.Variable) -> Any:
        self.read.add(id(variable))
        return super().get_current_value(variable)
