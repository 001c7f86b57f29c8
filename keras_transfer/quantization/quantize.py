"""quantize: pack the kernels below the head of a model in a few bits, in place."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.quantization.hosts import check_finite
from keras_transfer.quantization.hosts import check_model
from keras_transfer.quantization.hosts import check_untrained
from keras_transfer.quantization.hosts import hosts_of
from keras_transfer.quantization.hosts import summary
from keras_transfer.quantization.hosts import weight_of
from keras_transfer.quantization.in_place import install
from keras_transfer.quantization.integers import INTEGERS
from keras_transfer.quantization.integers import quantize_integers
from keras_transfer.quantization.normal_float import pack
from keras_transfer.quantization.normal_float import PackedArray
from keras_transfer.quantization.packed_layers import packed_form
from keras_transfer.quantization.packed_layers import PackedEmbedding
from keras_transfer.quantization.packed_layers import Packing

MODES = ("nf4", *INTEGERS)
# Modes of Keras that are refused -> why.
REFUSED = {
    "float8": "keeps the kernels in float32 and rounds them in each step, which saves "
    "no memory, and Keras's layers then allow no adapter",
    "gptq": "needs a calibration dataset, and Keras's layers then allow no adapter",
    "awq": "needs a calibration dataset, and Keras's layers then allow no adapter",
}
BLOCK_SIZE = 64


def quantize(
    model: keras.Model,
    mode: str = "nf4",
    *,
    block_size: int | None = None,
    double_quantization: bool | None = None,
    verbose: int = 1,
) -> keras.Model:
    """Pack the kernels of a model below its head in 4 or 8 bits a weight, in place.

    Quantize a pretrained model, then attach adapters: `kt.adapters.LoRA` on a model in
    NF4 is QLoRA. The kernels of Dense, EinsumDense and Embedding below the head of
    `kt.layer_groups` change, also an embedding that computes the logits. They are
    frozen for ever. Biases, normalizations, position embeddings, convolutions and the
    head stay as they are.

    NF4 stores each weight as one of 16 levels, times the constant c = max |w| of its
    block of weights. Double quantization stores the constants in 8 bits, with a float32
    scale for 256 of them. A weight then needs 4 + 8 / 64 + 32 / (64 * 256) = 4.127
    bits, instead of 32. The variables of a layer are these bytes, in memory, in a
    `.keras` file and in an export. Each call decodes the kernel in the dtype of the
    layer's computation and drops it. The backward pass decodes it again.

    `"int4"` and `"int8"` call Keras's own quantizers on the same layers. In int8, the
    inputs of a layer are rounded too, so an export can differ by this rounding. With
    `kt.adapters`, such a model is saved and reloaded as it is, while Keras's own LoRA
    rounds the sum of kernel and pair when it saves.

    A reloaded model computes bit for bit the same. A file of the float model, or of an
    adapter that was trained on it, is refused: load the float weights first, and pass
    `check_base=False` to `kt.load_adapter`. `kt.adapters.merge(model,
    dequantize=True)` returns to float kernels.

    Args:
        model: A built model or backbone, in float, without adapters.
        mode: `"nf4"`, `"int4"` or `"int8"`. Defaults to `"nf4"`.
        block_size: Number of weights with one constant, an even whole number. For NF4,
            it has to divide the number of weights of each kernel, and the columns of
            each embedding. int8 has one constant for each output. Defaults to None, for
            64.
        double_quantization: Whether NF4 stores the constants in 8 bits too. Defaults to
            None, for True.
        verbose: 0 prints nothing, 1 prints a line about the model. Defaults to 1.

    Returns:
        The model.

    Raises:
        TypeError: If `model` is not a Keras layer, or `double_quantization` is not a
            bool.
        ValueError: If `mode` is unknown or another mode of Keras, the model is
            not built, is already quantized, has adapters, has trained since it was
            compiled or has no layer to quantize, or if the block size does not divide a
            kernel, or a kernel contains NaN or infinity. The model does not change in
            these cases.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        kt.quantize(model, "nf4")
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        assert model.layers[0].kernel_codes.dtype == "uint8"
        ```

    Reference:
        T. Dettmers et al., 2023, "QLoRA: Efficient Finetuning of Quantized LLMs",
        arXiv:2305.14314.
    """
    if mode in REFUSED:
        raise ValueError(f"mode={mode!r} {REFUSED[mode]}. Use one of {MODES}.")
    one_of("mode", mode, MODES)
    if mode in INTEGERS:
        if double_quantization is not None:
            raise ValueError(
                f"double_quantization={double_quantization!r} has no effect with "
                f"mode={mode!r}, whose constants stay in float32. Leave it out."
            )
        said = quantize_integers(model, mode, block_size)
    else:
        double = True if double_quantization is None else double_quantization
        packing = _packing(BLOCK_SIZE if block_size is None else block_size, double)
        said = pack_model(model, packing)
    if verbose:
        print(said)
    return model


def pack_model(
    model: keras.Layer,
    packing: Packing,
    given: Mapping[int, PackedArray] | None = None,
) -> str:
    """Pack the kernels of a model, and return a line about the model.

    Args:
        model: As in `quantize`.
        packing: How the kernels are packed.
        given: Packed kernels by the id of their layer. Defaults to None, which packs
            the kernels as they are.

    Raises:
        TypeError: As in `quantize`.
        ValueError: As in `quantize`.
    """
    check_model(model)
    hosts, rest = hosts_of(model)
    check_untrained(model, [layer for _, layer in hosts])
    _check_blocks(hosts, packing)
    given = given or {}
    packed = [
        (x, packing, given.get(id(x)) or _packed(path, x, packing)) for path, x in hosts
    ]
    say = summary(model, "NF4", hosts, rest)
    install(model, packed)
    for layer in _keras.flat_layers(model):
        _keras.forget_traces(layer)
    return say()


def fitting_block_size(model: keras.Layer, most: int = 64) -> int:
    """Return the largest divisor of `most` that divides all kernels of a model.

    Raises:
        TypeError: As in `quantize`.
        ValueError: If the model cannot be quantized, or one kernel is odd.
    """
    check_model(model)
    hosts = hosts_of(model)[0]
    block_size = math.gcd(most, *(_row_size(layer) for _, layer in hosts))
    if block_size % 2:
        raise ValueError(
            f"A kernel of {model.name!r} has an odd number of weights, and two weights "
            "share a byte. This model cannot be packed."
        )
    return block_size


def _packing(block_size: object, double_quantization: object) -> Packing:
    block_size = whole_number("block_size", block_size, least=2)
    if block_size % 2:
        raise ValueError(
            f"block_size={block_size} is odd, but two weights share a byte. Choose an "
            "even number, such as 64."
        )
    if not isinstance(double_quantization, bool):
        raise TypeError(
            f"double_quantization={double_quantization!r} is not True or False."
        )
    return Packing(block_size, double_quantization)


def _check_blocks(hosts: list[tuple[str, keras.Layer]], packing: Packing) -> None:
    for path, layer in hosts:
        size, shape = _row_size(layer), tuple(weight_of(layer).shape)
        if size % packing.block_size:
            what = "weights" if size == math.prod(shape) else "columns"
            fitting = math.gcd(size, packing.block_size)
            how = f"Pass block_size={fitting}, or another" if fitting > 1 else "Pass a"
            raise ValueError(
                f"The block size {packing.block_size} does not divide the {size} "
                f"{what} of the layer {path!r}, a kernel of the shape {shape}. "
                f"{how} even divisor of {size}."
            )


def _row_size(layer: keras.Layer) -> int:
    """Return the number of weights that blocks have to divide."""
    shape = tuple(weight_of(layer).shape)
    embedding = issubclass(packed_form(type(layer)), PackedEmbedding)
    return shape[-1] if embedding else math.prod(shape)


def _packed(path: str, layer: keras.Layer, packing: Packing) -> object:
    value = check_finite(path, layer)
    return pack(value, packing.block_size, packing.double_quantization)
