"""Decode NF4 weights in the graph, and multiply with them without keeping them."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.quantization.normal_float import BYTE_LEVELS
from keras_transfer.quantization.normal_float import GROUP
from keras_transfer.quantization.normal_float import LEVELS

# The two weights of each byte. One lookup for two weights is faster than shifts and two
# lookups.
PAIRS = np.stack([LEVELS[np.arange(256) >> 4], LEVELS[np.arange(256) & 15]], axis=-1)


def decoded(
    packed: Mapping[str, object],
    shape: Sequence[int],
    dtype: object,
    after: object = None,
) -> object:
    """Return a packed weight as a tensor.

    Args:
        packed: The tensors of a `PackedArray` by name.
        shape: Shape of the weight.
        dtype: Dtype of the result. The block constants are decoded in float32.
        after: Tensor that is needed before the weight is decoded. Otherwise a compiler
            finds that the forward and backward passes decode the same weight, and keeps
            it in between. Defaults to None.
    """
    codes = packed["codes"]
    if after is not None:
        codes = codes + _zero(after)
    constants = ops.cast(block_constants(packed), dtype)
    values = _pairs(codes, dtype) * constants[:, None, None]
    return ops.reshape(values, shape)


def decoded_rows(
    packed: Mapping[str, object], shape: Sequence[int], rows: object, dtype: object
) -> object:
    """Return only some rows of a packed matrix, `(*rows.shape, columns)`.

    Args:
        packed: The tensors of a `PackedArray` by name, with whole blocks in each row.
        shape: Shape of the matrix.
        rows: Whole numbers.
        dtype: Dtype of the result.
    """
    count, columns = shape
    codes = ops.take(ops.reshape(packed["codes"], (count, -1)), rows, axis=0)
    constants = ops.reshape(block_constants(packed), (count, -1))
    constants = ops.cast(ops.take(constants, rows, axis=0), dtype)
    blocks = constants.shape[-1]
    start = ops.shape(rows)
    values = ops.reshape(_pairs(codes, dtype), (*start, blocks, columns // blocks))
    return ops.reshape(values * constants[..., None], (*start, columns))


def block_constants(packed: Mapping[str, object]) -> object:
    """Return the float32 constant of each block."""
    constants = packed["constants"]
    if "scales" not in packed:
        return constants
    scales = ops.repeat(packed["scales"], GROUP)[: math.prod(constants.shape)]
    levels = _keras.lookup(BYTE_LEVELS, constants)
    return levels * scales + packed["offset"]


def apply_frozen(
    inputs: object,
    weight: Callable[[object], object],
    forward: Callable[[object, object], object],
    backward: Callable[[object, object], object],
) -> object:
    """Return `forward(inputs, weight(inputs))` without keeping the weight.

    The backward pass computes `weight(upstream)` again, where `upstream` is the
    gradient of the result. So each weight is decoded when it is needed. Otherwise a
    graph decodes the weights of all layers when it starts. The weight itself has no
    gradient.

    Args:
        inputs: Tensor.
        weight: Function that returns the weight, see `after` in `decoded`.
        forward: Function of inputs and weight.
        backward: Function of upstream and weight that returns the gradient of the
            inputs. `forward` is linear in the inputs, so it does not need them.
    """

    @ops.custom_gradient
    def compute(inputs: object) -> tuple:
        def gradient(*args: object, upstream: object = None) -> object:
            if upstream is None:  # TensorFlow passes it by position, JAX by name
                (upstream,) = args
            return backward(upstream, weight(upstream))

        return forward(inputs, weight(inputs)), gradient

    return compute(inputs)


def _pairs(codes: object, dtype: object) -> object:
    """Return the values of bytes, with a last axis of two weights."""
    return _keras.lookup(PAIRS, codes, dtype)


def _zero(after: object) -> object:
    """Return a 0 that a compiler cannot compute before `after`.

    No number is greater than infinity, but compilers do not use this.
    """
    return ops.cast(ops.any(after[..., :1] > float("inf")), "uint8")
