"""Where each number of a Keras weight is in a Hugging Face tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_transfer.adapters import matrix
from keras_transfer.quantization.packed_layers import FloatWeight

# Names of the weights that a low-rank pair can be added to.
MATRICES = ("kernel", "embeddings")
MATRIX_LAYERS = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)
# Whole numbers up to this one are exact in half precision.
EXACT = 1 << 11


@dataclasses.dataclass(frozen=True)
class Share:
    """A Keras weight that keras-hub makes from a Hugging Face tensor or its slice.

    The variable of a layer in NF4 is a `FloatWeight`.
    """

    layer: keras.Layer
    variable: keras.Variable | FloatWeight
    hook: Callable | None = None

    def read(self, tensor: np.ndarray, *, any_width: bool = False) -> np.ndarray:
        """Return keras-hub's weight of `tensor`, in any shape if `any_width` is set."""
        shape = list(self.variable.shape)
        found = np.asarray(self.hook(tensor, shape) if self.hook else tensor)
        if found.dtype == "float16" and tensor.dtype != "float16":
            # The converter of Mistral also rounds. Here it only says where numbers go.
            flat = tensor.reshape(-1)
            found = flat[self._places(np.arange(tensor.size).reshape(tensor.shape))]
        if list(found.shape) != shape and not any_width:
            raise ValueError(f"{tensor.shape} becomes {found.shape}, not {shape}.")
        return found

    def _places(self, index: np.ndarray) -> np.ndarray:
        """Return what the hook does to whole numbers, by digits that are exact."""
        if index.max(initial=0) < EXACT:
            return self.hook(index, list(self.variable.shape)).astype("int64")
        high, low = np.divmod(index, EXACT)
        return self._places(high) * EXACT + self._places(low)


@dataclasses.dataclass(frozen=True)
class Factors:
    """Where the pair of one Keras layer is in the A and B of a Hugging Face module.

    `A_keras = A.T[inputs]` and `B_keras = B.T[:, outputs]`. `rows_out` says whether
    the module's weight has a row for each output, as in a Linear.
    """

    layer: keras.Layer
    inputs: np.ndarray
    outputs: np.ndarray
    rows_out: bool


def aligned(module: str, shares: list[Share]) -> list[Factors]:
    """Return where the pairs of a module's Keras layers are in its A and B.

    The converter gets the row or column number of each entry instead of the values. So
    its result says which entry becomes each entry of a Keras kernel.

    Raises:
        ValueError: If a low-rank pair cannot be converted.
    """
    for share in shares:
        named = share.variable.name in MATRICES
        if not named or not isinstance(share.layer, MATRIX_LAYERS):
            raise ValueError(
                f"The module {module!r} is the weight {share.variable.name!r} of "
                f"the {type(share.layer).__name__} {share.layer.name!r} in Keras, "
                "which cannot have a low-rank pair. Leave it out of the targets."
            )
    frames = [_frame(share) for share in shares]
    size_in = frames[0].size_in
    size_out = sum(frame.size_out for frame in frames)
    # A Linear has a row for each output. A Conv1D of GPT-2 and an embedding have a
    # row for each input. For a square matrix only one of the two gives a pair.
    for rows_out in (True, False):
        shape = (size_out, size_in) if rows_out else (size_in, size_out)
        rows, columns = np.indices(shape)
        into, out = (columns, rows) if rows_out else (rows, columns)
        found = [
            _aligned(share, frame, into, out, rows_out)
            for share, frame in zip(shares, frames, strict=True)
        ]
        if all(each is not None for each in found):
            return found
    raise ValueError(
        f"keras-hub mixes the inputs and outputs of {module!r} when it makes the "
        f"weights of {[x.layer.name for x in shares]}, so a low-rank pair cannot "
        "be converted. Leave this module out of the targets."
    )


def sizes_of(factors: list[Factors]) -> dict[str, int]:
    """Return the numbers of inputs and outputs of a module."""
    size_out = sum(len(each.outputs) for each in factors)
    return {"inputs": len(factors[0].inputs), "outputs": size_out}


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The row and column of each entry of a kernel in its matrix of two axes."""

    size_in: int
    size_out: int
    at_in: np.ndarray
    at_out: np.ndarray


def _frame(share: Share) -> _Frame:
    layer, shape = share.layer, tuple(share.variable.shape)
    if isinstance(layer, keras.layers.Embedding):
        return _Frame(*shape, *np.indices(shape))
    sizes = matrix.sizes(layer)
    at_in, at_out = (matrix.as_kernel(layer, at) for at in np.indices(sizes))
    return _Frame(*sizes, at_in, at_out)


def _aligned(
    share: Share, frame: _Frame, into: np.ndarray, out: np.ndarray, rows_out: bool
) -> Factors | None:
    try:
        into, out = share.read(into), share.read(out)
    except ValueError:  # this orientation has the wrong shape
        return None
    inputs = _table(frame.at_in, into, frame.size_in)
    outputs = _table(frame.at_out, out, frame.size_out)
    fits = inputs is not None and outputs is not None
    return Factors(share.layer, inputs, outputs, rows_out) if fits else None


def _table(at: np.ndarray, values: np.ndarray, size: int) -> np.ndarray | None:
    """Return t so that t[at] == values, or None if no such table exists."""
    table = np.full(size, -1)
    table[at.ravel()] = values.ravel()
    return table if np.array_equal(table[at], values) else None
