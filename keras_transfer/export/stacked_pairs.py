"""The low-rank pairs of several adapters at one layer, chosen for each example."""

from __future__ import annotations

import string
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.adapters.adapter_part import check_overrides
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.matrix import axis_sizes
from keras_transfer.adapters.matrix import kernel_axes
from keras_transfer.export.growing import filled
from keras_transfer.export.growing import growing
from keras_transfer.export.growing import rows_of


class StackedPairs:
    """Adds to a layer's outputs the low-rank pair of each example's adapter.

    The matrices A are stacked in one variable `(adapters, ..., rank)`. The matrices B,
    times their scaling, are stacked in one variable `(adapters, rank, ...)`. Lower
    ranks are filled up with zeros. For example `i` with adapter `n(i)`

        outputs[i] += (inputs[i] A[n(i)]) B[n(i)]

    The graph fits any number of adapters and any rank.

    Args:
        host: The layer.
        pairs: A list with the pair of each adapter, or None for an adapter that is not
            on this layer.
        where: Path of the layer.

    Raises:
        ValueError: If a part is not a low-rank pair, or the class of the host is not
            supported.
    """

    def __init__(
        self, host: keras.Layer, pairs: Sequence[Part | None], where: str
    ) -> None:
        present = [pair for pair in pairs if pair is not None]
        try:
            factors = [_factors(pair) for pair in present]
            self.sum = _sum_of(host)
        except ValueError as problem:
            raise ValueError(
                f"{problem} The path of the layer is {where!r}. Only low-rank pairs, "
                "such as the pairs of LoRA and LoHa, can be chosen by example. Export "
                "this adapter without adapters=, which merges it into the weights."
            ) from problem
        self.host = host
        rank = max(len(b) for _, b in factors)
        a = np.stack([filled(a, rank, -1) for a, _ in factors])
        b = np.stack([filled(b, rank, 0) for _, b in factors])
        counted = [pair if getattr(pair, "tied", False) else None for pair in pairs]
        rows = {"rows": rows_of(pairs, present), "tied_rows": rows_of(counted, present)}
        self.a = growing(a, f"{where}/adapters_a", free=[-1])
        self.b = growing(b, f"{where}/adapters_b", free=[1])
        # The row of each adapter, or -1 without a pair. The first is for no adapter.
        self.rows, self.tied_rows = (
            growing(each, f"{where}/adapters_{name}") for name, each in rows.items()
        )

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """The variables by the end of their names."""
        names = ("a", "b", "rows", "tied_rows")
        return {name: getattr(self, name) for name in names}

    def __call__(
        self, inputs: tf.Tensor, outputs: tf.Tensor, index: tf.Tensor, reverse: bool
    ) -> tf.Tensor:
        """Return the outputs of the host plus the products of the pairs.

        Args:
            inputs: Inputs of the host.
            outputs: Outputs of the host before its activation.
            index: The number of the adapter of each example, 0 for no adapter.
            reverse: Whether the host is an embedding that computes logits.
        """
        return outputs + self.sum(self, inputs, outputs, index, reverse)

    def row(self, index: tf.Tensor, *, tied: bool = False) -> tuple:
        """Return the row of each example's pair, and whether the pair exists.

        The row of a pair that does not exist is 0.
        """
        row = tf.gather(self.tied_rows if tied else self.rows, index)
        return tf.maximum(row, 0), row >= 0

    def b_of(self, row: tf.Tensor, present: tf.Tensor, dtype: object) -> tf.Tensor:
        """Return B of each example, or zeros if the pair does not exist."""
        b = tf.cast(tf.gather(self.b, row), dtype)
        return tf.where(present[:, None, None], b, tf.zeros_like(b))


def _factors(pair: Part) -> tuple[np.ndarray, np.ndarray]:
    check_overrides(pair, "low_rank_factors")
    return pair.low_rank_factors()


def _sum_of(host: keras.Layer) -> Callable:
    if getattr(host, "groups", 1) != 1:
        raise ValueError(f"The layer {host.name!r} has groups of channels.")
    for kind in type(host).__mro__:
        if kind in SUMS:
            return SUMS[kind]
    raise ValueError(
        f"The layer {host.name!r} is a {type(host).__name__}. Supported layers are "
        f"{[kind.__name__ for kind in SUMS]}."
    )


def _product(
    stack: StackedPairs,
    inputs: tf.Tensor,
    index: tf.Tensor,
    equation: tuple[str, str, str, str],
    sizes: tuple[list[int], list[int]],
) -> tf.Tensor:
    """Return `inputs A B` for axes that are named by letters, with the batch first.

    Args:
        stack: The pairs.
        inputs: The tensor that is multiplied by A.
        index: The number of the adapter of each example.
        equation: Four strings of axes: of the inputs, the axes that A contracts, the
            axes that B adds, and the axes of the result.
        sizes: Sizes of the axes that A contracts, and of the axes that B adds.
    """
    source, into, out, target = equation
    batch = source[0]
    rank = _free("".join(equation))
    hidden = "".join(axis for axis in source if axis not in into) + rank
    row, present = stack.row(index)
    a = tf.cast(tf.gather(stack.a, row), inputs.dtype)
    a = tf.reshape(a, [-1, *sizes[0], tf.shape(a)[-1]])
    b = stack.b_of(row, present, inputs.dtype)
    b = tf.reshape(b, [-1, tf.shape(b)[1], *sizes[1]])
    product = tf.einsum(f"{source},{batch}{into}{rank}->{hidden}", inputs, a)
    return tf.einsum(f"{hidden},{batch}{rank}{out}->{target}", product, b)


def _dense(
    stack: StackedPairs,
    inputs: tf.Tensor,
    outputs: tf.Tensor,
    index: tf.Tensor,
    reverse: bool,
) -> tf.Tensor:
    inputs = tf.cast(inputs, outputs.dtype)
    *axes, into, out = string.ascii_letters[: inputs.shape.rank + 1]
    source, target = "".join([*axes, into]), "".join([*axes, out])
    sizes = [inputs.shape[-1]], [stack.host.units]
    return _product(stack, inputs, index, (source, into, out, target), sizes)


def _einsum_dense(
    stack: StackedPairs,
    inputs: tf.Tensor,
    outputs: tf.Tensor,
    index: tf.Tensor,
    reverse: bool,
) -> tf.Tensor:
    inputs = tf.cast(inputs, outputs.dtype)
    equation = stack.host.equation.replace(" ", "")
    _, into, out = kernel_axes(stack.host)
    sizes = axis_sizes(stack.host)
    source, target = equation.split(",")[0], equation.split("->")[1]
    if "..." in source:
        letters = [x for x in string.ascii_letters if x not in equation]
        several = "".join(letters[: inputs.shape.rank - len(source) + 3])
        source, target = (x.replace("...", several) for x in (source, target))
    found = [sizes[axis] for axis in into], [sizes[axis] for axis in out]
    return _product(stack, inputs, index, (source, into, out, target), found)


def _conv(
    stack: StackedPairs,
    inputs: tf.Tensor,
    outputs: tf.Tensor,
    index: tf.Tensor,
    reverse: bool,
) -> tf.Tensor:
    """Return `patch A B` for the patch of inputs at each position."""
    host = stack.host
    inputs = tf.cast(inputs, outputs.dtype)
    first = host.data_format == "channels_first"
    if first:
        inputs = tf.transpose(inputs, [0, 2, 3, 1])
    height, width = host.kernel_size
    down, right = host.strides
    if (height, width) == (1, 1):
        patches = inputs[:, ::down, ::right]
    else:
        patches = tf.image.extract_patches(
            inputs,
            [1, height, width, 1],
            [1, down, right, 1],
            [1, *host.dilation_rate, 1],
            host.padding.upper(),
        )
    equation = ("bhwi", "i", "o", "bohw" if first else "bhwo")
    sizes = [height * width * inputs.shape[-1]], [host.filters]
    return _product(stack, patches, index, equation, sizes)


def _embedding(
    stack: StackedPairs,
    inputs: tf.Tensor,
    outputs: tf.Tensor,
    index: tf.Tensor,
    reverse: bool,
) -> tf.Tensor:
    row, present = stack.row(index, tied=reverse)
    b = stack.b_of(row, present, outputs.dtype)
    batch, *others = string.ascii_letters[: inputs.shape.rank]
    if not reverse:
        words = tf.cast(inputs, tf.int32)
        rows = tf.cast(tf.reshape(row, [-1, *[1] * (words.shape.rank - 1)]), tf.int32)
        places = tf.stack([tf.broadcast_to(rows, tf.shape(words)), words], axis=-1)
        hidden = tf.cast(tf.gather_nd(stack.a, places), outputs.dtype)
        axes = "".join([batch, *others])
        return tf.einsum(f"{axes}Y,{batch}YZ->{axes}Z", hidden, b)
    if not stack.host.tie_weights:
        return tf.zeros_like(outputs)
    a = tf.cast(tf.gather(stack.a, row), outputs.dtype)
    axes = "".join([batch, *others[:-1]])
    inputs = tf.cast(inputs, outputs.dtype)
    hidden = tf.einsum(f"{axes}Z,{batch}YZ->{axes}Y", inputs, b)
    return tf.einsum(f"{axes}Y,{batch}XY->{axes}X", hidden, a)


def _free(taken: str) -> str:
    return next(each for each in string.ascii_letters if each not in taken)


# The function that multiplies the pairs, by the class of the layer.
SUMS: dict[type, Callable] = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum_dense,
    keras.layers.Conv2D: _conv,
    keras.layers.Embedding: _embedding,
}
