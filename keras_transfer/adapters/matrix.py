"""A layer's weight as a matrix of inputs and outputs, and vectors over both."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_transfer.backbones.layer_paths import weights_of


class Unfit(ValueError):
    """Raised for a layer whose form or size does not fit the adapter's part."""


def kernel_axes(host: keras.Layer) -> tuple[str, str, str]:
    """Return the letters of the kernel's axes: all, contracted ones, and new ones.

    Raises:
        Unfit: If an axis is neither contracted nor new, so it is not a matrix.
    """
    source, rest = host.equation.replace(" ", "").split(",")
    kernel, target = rest.split("->")
    into = "".join(x for x in kernel if x in source and x not in target)
    out = "".join(x for x in kernel if x in target and x not in source)
    if len(into) + len(out) < len(kernel) or not into or not out:
        raise Unfit(
            f"The EinsumDense {host.name!r} computes {host.equation!r}. An axis of its "
            "kernel is neither contracted nor new, so the kernel is not a matrix. "
            "Leave the layer out of the targets."
        )
    return kernel, into, out


def axis_sizes(host: keras.Layer) -> dict[str, int]:
    """Return a dict from the letter of each axis of the kernel to its size."""
    kernel = host.equation.replace(" ", "").split(",")[1].split("->")[0]
    return dict(zip(kernel, kernel_shape(host), strict=True))


def kernel_shape(host: keras.Layer) -> tuple[int, ...]:
    """Return the shape of the kernel, also of a kernel that is packed in few bits."""
    shape = getattr(host, "original_kernel_shape", None)
    return tuple(weights_of(host)["kernel"].shape if shape is None else shape)


def sizes(host: keras.Layer) -> tuple[int, int]:
    """Return the numbers of input and output features of a layer with a kernel.

    For an EinsumDense, the inputs are the product of the contracted axes, and the
    outputs are the product of the new axes. A projection to 12 heads of 64 has 768
    outputs.

    Raises:
        Unfit: If the kernel of an EinsumDense is not a matrix.
    """
    if isinstance(host, keras.layers.Dense):
        return host.input_spec.axes[-1], host.units
    if isinstance(host, keras.layers.EinsumDense):
        size, into, out = _einsum(host)[2:]
        return _count(size, into), _count(size, out)
    channel = -1 if host.data_format == "channels_last" else 1
    return host.input_spec.axes[channel], host.filters


def as_matrix(host: keras.Layer, kernel: object) -> object:
    """Return `kernel`, a tensor or array, in the shape (inputs, outputs).

    For a convolution, the inputs are all values in the window of one filter.
    """
    xp = np if isinstance(kernel, np.ndarray) else ops
    if isinstance(host, keras.layers.EinsumDense):
        letters, _, _, into, out = _einsum(host)
        kernel = _transposed(xp, kernel, letters, into + out)
        return xp.reshape(kernel, (-1, sizes(host)[1]))
    return xp.reshape(kernel, (-1, kernel.shape[-1]))


def as_kernel(host: keras.Layer, matrix: object) -> object:
    """Return `matrix` in the shape of the kernel: the inverse of `as_matrix`."""
    xp = np if isinstance(matrix, np.ndarray) else ops
    if isinstance(host, keras.layers.EinsumDense):
        letters, _, size, into, out = _einsum(host)
        matrix = xp.reshape(matrix, [size[x] for x in into + out])
        return _transposed(xp, matrix, into + out, letters)
    return xp.reshape(matrix, kernel_shape(host))


def beside_inputs(host: keras.Layer, vector: object) -> object:
    """Return a vector over the inputs in a shape that broadcasts with the inputs."""
    if isinstance(host, keras.layers.EinsumDense):
        _, terms, size, into, _ = _einsum(host)
        return _beside(terms[0], into, size, vector)
    return _channels(host, vector)


def beside_outputs(host: keras.Layer, vector: object) -> object:
    """Return a vector over the outputs in a shape that broadcasts with the outputs."""
    if isinstance(host, keras.layers.EinsumDense):
        _, terms, size, _, out = _einsum(host)
        return _beside(terms[1], out, size, vector)
    return _channels(host, vector)


def bias_of(host: keras.Layer, dtype: object) -> object:
    """Return the bias in a shape that broadcasts with the outputs, or 0."""
    if getattr(host, "bias", None) is None:
        return 0.0
    bias = ops.cast(host.bias, dtype)
    if isinstance(host, keras.layers.EinsumDense):
        return bias  # Keras already gives it this shape
    return _channels(host, bias)


def scaled_bias(host: keras.Layer, bias: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return the array `bias`, multiplied by a factor for each output.

    Raises:
        ValueError: If several outputs with their own factors share one bias.
    """
    if not isinstance(host, keras.layers.EinsumDense):
        return bias * factors
    scaled = bias * beside_outputs(host, factors)
    if scaled.size != bias.size:
        raise ValueError(
            f"Outputs of the EinsumDense {host.name!r} share a bias (bias_axes="
            f"{host.bias_axes!r}), and each output has its own factor. So the adapter "
            "cannot be merged. Keep it, or remove it with kt.adapters.detach(model)."
        )
    return scaled.reshape(bias.shape)


def _channels(host: keras.Layer, vector: object) -> object:
    if getattr(host, "data_format", "channels_last") == "channels_last":
        return vector
    return ops.reshape(vector, (-1, *[1] * host.rank))


def _einsum(host: keras.Layer) -> tuple[str, tuple[str, str], dict, str, str]:
    """Return an equation's parts: (kernel, (inputs, outputs), sizes, contracted, new).

    `sizes` is a dict from letter to size. The other parts are strings of letters.
    """
    letters, into, out = kernel_axes(host)
    source, rest = host.equation.replace(" ", "").split(",")
    target = rest.split("->")[1]
    # Write one dot for each axis of the ellipsis.
    dots = "." * (host.input_spec.ndim - len(source.replace("...", "")))
    terms = source.replace("...", dots), target.replace("...", dots)
    return letters, terms, axis_sizes(host), into, out


def _beside(term: str, chosen: str, size: dict, vector: object) -> object:
    xp = np if isinstance(vector, np.ndarray) else ops
    vector = xp.reshape(vector, [size[x] for x in chosen])
    vector = _transposed(xp, vector, chosen, [x for x in term if x in chosen])
    first = min(term.index(x) for x in chosen)
    return xp.reshape(vector, [size[x] if x in chosen else 1 for x in term[first:]])


def _transposed(xp: object, array: object, have: str, want: str) -> object:
    if list(have) == list(want):
        return array
    return xp.transpose(array, [have.index(x) for x in want])


def _count(size: dict, letters: str) -> int:
    return int(np.prod([size[x] for x in letters]))
