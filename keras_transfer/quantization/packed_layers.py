"""PackedLayer: layers that compute with a weight in NF4, for each kind of layer."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.backbones.addresses import addressed_weights
from keras_transfer.quantization.decode import apply_frozen
from keras_transfer.quantization.decode import decoded
from keras_transfer.quantization.decode import decoded_rows
from keras_transfer.quantization.normal_float import packed_shapes
from keras_transfer.quantization.normal_float import PackedArray
from keras_transfer.quantization.normal_float import unpack

_as_float = contextvars.ContextVar("_as_float", default=False)
_places = contextvars.ContextVar("_places", default=False)


@dataclasses.dataclass(frozen=True, eq=False)
class FloatWeight:
    """Stands for the float weight of a packed layer where only its place matters."""

    layer: keras.Layer
    name: str
    shape: tuple[int, ...]


@contextlib.contextmanager
def places_of_weights() -> Iterator[None]:
    """Return a context in which a packed weight is a `FloatWeight`, not decoded."""
    token = _places.set(True)
    try:
        yield
    finally:
        _places.reset(token)


@dataclasses.dataclass(frozen=True)
class Packing:
    """How a layer's weight is packed, JSON-plain.

    Args:
        block_size: Number of weights with one constant.
        double_quantization: Whether the constants are quantized too.
    """

    block_size: int
    double_quantization: bool


class PackedLayer:
    """Mixin before a Keras layer class: the weight is packed, frozen and decoded.

    The variables of the packed weight replace the float variable. They are uint8 codes
    and the constants of the blocks, so they are saved, exported and counted as such. A
    call decodes the weight in the compute dtype and drops it, and the backward pass
    decodes it again.
    """

    # The weight that is packed: its name in the layer.
    packed_weight = "kernel"
    # The names of the variables, after the name of the weight.
    suffixes = ("codes", "constants", "scales", "offset")

    def create_packed(
        self, packing: Packing, packed: PackedArray | None = None
    ) -> None:
        """Replace the float variable of a built layer with packed variables.

        Args:
            packing: How the weight is packed.
            packed: The packed weight. Defaults to None, for zeros.
        """
        name = self.packed_weight
        shape = tuple(getattr(self, f"_{name}").shape)
        shapes = packed_shapes(math.prod(shape), **dataclasses.asdict(packing))
        # Not tracked by Keras.
        self.__dict__["packing"], self.__dict__["packed_shape"] = packing, shape
        specs = {f"{name}_{key}": spec for key, spec in shapes.items()}
        _keras.replace_weight(self, f"_{name}", specs)
        if packed is not None:
            self.set_packed(packed)

    def set_packed(self, packed: PackedArray) -> None:
        """Assign the arrays of a packed weight of the same packing."""
        for key, value in packed.arrays().items():
            getattr(self, f"{self.packed_weight}_{key}").assign(value)

    def packed_variables(self) -> dict[str, keras.Variable]:
        """Return the variables of the packed weight by their name in `PackedArray`."""
        names = {key: f"{self.packed_weight}_{key}" for key in self.suffixes}
        return {k: getattr(self, x) for k, x in names.items() if hasattr(self, x)}

    def packed_tensors(self) -> dict[str, object]:
        """Return the packed weight as tensors."""
        own = self.packed_variables().items()
        return {key: ops.convert_to_tensor(variable) for key, variable in own}

    def unpacked(self) -> np.ndarray:
        """Return the decoded weight as a float32 array."""
        own = self.packed_variables().items()
        packed = PackedArray(**{key: _keras.value(v) for key, v in own})
        return unpack(packed).reshape(self.packed_shape)

    def weight_in(self, dtype: object) -> Callable[[object], object]:
        """Return a function of `after` that decodes the weight, see `decoded`.

        The packed tensors are read now, because the backward pass has other scopes.
        """
        packed = self.packed_tensors()
        return lambda after: decoded(packed, self.packed_shape, dtype, after)

    @property
    def quantization_mode(self) -> str | None:
        """`"nf4"`, so Keras calls `quantized_call`. None in `as_float`."""
        return None if _as_float.get() else "nf4"

    @property
    def original_kernel_shape(self) -> tuple[int, ...]:
        """The shape of the weight before it was packed."""
        return self.packed_shape

    def enable_lora(self, *args: object, **kwargs: object) -> None:
        """Refuse, because Keras's own LoRA adds its product to a float kernel."""
        raise ValueError(
            f"{self.name!r} is quantized ({self.quantization_mode}), and Keras's own "
            "LoRA needs a float kernel. Use kt.adapters.LoRA(...).attach(model)."
        )

    def save_own_variables(self, store: dict) -> None:
        """Store each weight of the layer under its name."""
        for name, variable in addressed_weights(self).items():
            store[name] = variable

    def load_own_variables(self, store: dict) -> None:
        """Load the weights of the layer."""
        own, names = addressed_weights(self), set(store.keys())
        if names != set(own):
            raise ValueError(
                f"The file has the weights {sorted(names)} for {self.name!r}, but the "
                f"layer is quantized ({self.quantization_mode}) and has {sorted(own)}. "
                "Load a file of the float model before kt.quantize, or load a file of "
                "the model that was quantized with the same settings."
            )
        for name, variable in own.items():
            value = store[name]
            if tuple(value.shape) != tuple(variable.shape):
                raise ValueError(
                    f"The file has {name!r} of the shape {tuple(value.shape)} for "
                    f"{self.name!r}, but the layer has {tuple(variable.shape)}, with "
                    f"block_size={self.packing.block_size}. Quantize the model with "
                    "the block size of the file."
                )
            variable.assign(value)


class PackedDense(PackedLayer):
    """The packed form of a Dense."""

    def quantized_call(self, inputs: object, training: bool | None = None) -> object:
        """Return the outputs."""
        outputs = self.product(ops.cast(inputs, self.compute_dtype))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    def product(self, inputs: object) -> object:
        """Return the product of the inputs with the kernel, in their dtype."""
        return apply_frozen(
            inputs,
            self.weight_in(inputs.dtype),
            ops.matmul,
            lambda upstream, kernel: ops.matmul(upstream, ops.transpose(kernel)),
        )

    @property
    def kernel(self) -> object:
        """The decoded kernel."""
        if _places.get():
            return FloatWeight(self, self.packed_weight, self.packed_shape)
        return self.weight_in(self.variable_dtype)(None)


class PackedEinsumDense(PackedDense):
    """The packed form of an EinsumDense."""

    def product(self, inputs: object) -> object:
        """Return the product of the inputs with the kernel, in their dtype."""
        source, kernel, target = terms(self.equation)
        return apply_frozen(
            inputs,
            self.weight_in(inputs.dtype),
            functools.partial(ops.einsum, self.equation),
            functools.partial(ops.einsum, f"{target},{kernel}->{source}"),
        )


class PackedEmbedding(PackedLayer):
    """The packed form of an Embedding. A call decodes only the rows of its words."""

    packed_weight = "embeddings"

    def quantized_call(self, inputs: object) -> object:
        """Return the rows of the words."""
        if keras.backend.standardize_dtype(inputs.dtype) not in ("int32", "int64"):
            inputs = ops.cast(inputs, "int32")
        packed, shape = self.packed_tensors(), self.packed_shape
        return decoded_rows(packed, shape, inputs, self.compute_dtype)

    @property
    def embeddings(self) -> object:
        """The decoded rows of all words."""
        if _places.get():
            return FloatWeight(self, self.packed_weight, self.packed_shape)
        return self.weight_in(self.variable_dtype)(None)


class PackedReversibleEmbedding(PackedEmbedding):
    """The packed form of a ReversibleEmbedding, also for tied logits."""

    def quantized_call(self, inputs: object, reverse: bool = False) -> object:
        """Return the rows of the words, or the logits of hidden states."""
        if not reverse:
            outputs = super().quantized_call(inputs)
            mask = keras.layers.Embedding.compute_mask(self, inputs)
            return _keras.with_mask(outputs, mask)
        dtype = self.reverse_dtype or self.compute_dtype
        inputs = ops.cast(inputs, dtype)
        if self.tie_weights:
            logits = apply_frozen(
                inputs,
                self.weight_in(dtype),
                lambda inputs, rows: ops.matmul(inputs, ops.transpose(rows)),
                ops.matmul,
            )
        else:
            logits = ops.matmul(inputs, ops.cast(self.reverse_embeddings, dtype))
        if self.logit_soft_cap is not None:
            cap = self.logit_soft_cap
            logits = ops.multiply(ops.tanh(ops.divide(logits, cap)), cap)
        return logits


# Keras layer class -> its packed form. The first entry that matches counts.
PACKED = {
    keras.layers.Dense: PackedDense,
    keras.layers.EinsumDense: PackedEinsumDense,
    keras.layers.ReversibleEmbedding: PackedReversibleEmbedding,
    keras.layers.Embedding: PackedEmbedding,
}


def packed_form(kind: type) -> type[PackedLayer] | None:
    """Return the packed form for layers of class `kind`, or None if there is none.

    A subclass that overrides `call` computes in another way, so it has none.
    """
    for base, packed in PACKED.items():
        if issubclass(kind, base) and kind.call is base.call:
            return packed
    return None


@contextlib.contextmanager
def as_float() -> Iterator[None]:
    """Within the block, packed layers do not say that they are quantized.

    A backbone of keras-hub writes a dtype policy for each quantized layer into its
    config, and Keras has no such policy for NF4.
    """
    token = _as_float.set(True)
    try:
        yield
    finally:
        _as_float.reset(token)


def float_shapes(layer: keras.Layer) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of `layer`, as they were in float, by name."""
    own = addressed_weights(layer)
    if not isinstance(layer, PackedLayer):
        return {name: tuple(variable.shape) for name, variable in own.items()}
    packed = {id(variable) for variable in layer.packed_variables().values()}
    shapes = {k: tuple(v.shape) for k, v in own.items() if id(v) not in packed}
    return shapes | {layer.packed_weight: layer.packed_shape}


def hidden_weights(model: keras.Layer) -> int:
    """Return how many more weights the packed variables hold than they have items."""
    packed = [x for x in _keras.flat_layers(model) if isinstance(x, PackedLayer)]
    return sum(
        math.prod(layer.packed_shape)
        - sum(math.prod(v.shape) for v in layer.packed_variables().values())
        for layer in packed
    )


def terms(equation: str) -> tuple[str, str, str]:
    """Return the terms of an einsum equation: inputs, kernel and outputs."""
    source, rest = equation.replace(" ", "").split(",")
    return (source, *rest.split("->"))
