"""quantize: pack the kernels below the head of a model in a few bits, in place."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.layer_paths import owners
from keras_transfer.quantization.in_place import install
from keras_transfer.quantization.normal_float import pack
from keras_transfer.quantization.normal_float import PackedArray
from keras_transfer.quantization.packed_layers import packed_form
from keras_transfer.quantization.packed_layers import PackedEmbedding
from keras_transfer.quantization.packed_layers import PackedLayer
from keras_transfer.quantization.packed_layers import Packing

MODES = ("nf4",)
KERAS_MODES = ("int8", "int4", "float8", "gptq", "awq")


def quantize(
    model: keras.Model,
    mode: str = "nf4",
    *,
    block_size: int = 64,
    double_quantization: bool = True,
    verbose: int = 1,
) -> keras.Model:
    """Pack the kernels of a model below its head in 4 bits a weight, in place.

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

    A reloaded model computes bit for bit the same. A file of the float model, or of an
    adapter that was trained on it, is refused: load the float weights first, and pass
    `check_base=False` to `kt.load_adapter`. `kt.adapters.merge(model,
    dequantize=True)` returns to float kernels.

    Args:
        model: A built model or backbone, in float, without adapters.
        mode: `"nf4"`. Defaults to `"nf4"`.
        block_size: Number of weights with one constant, an even whole number. It has
            to divide the number of weights of each kernel, and the columns of each
            embedding. Defaults to 64.
        double_quantization: Whether to store the constants in 8 bits too. Defaults to
            True.
        verbose: 0 prints nothing, 1 prints a line about the model. Defaults to 1.

    Returns:
        The model.

    Raises:
        TypeError: If `model` is not a Keras layer, or `double_quantization` is not a
            bool.
        ValueError: If `mode` is unknown or a mode of Keras, such as `"int8"`, the model
            is not built, is already quantized, has adapters, has trained since it was
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
    if mode in KERAS_MODES:
        raise ValueError(
            f"mode={mode!r} is a quantizer of Keras, which chooses and saves layers in "
            f"its own way. Call model.quantize({mode!r}) instead, and then attach "
            "kt.adapters.LoRA, which keeps its pair apart from the kernel. "
            "Keras's own enable_lora would round the sum when it saves the model."
        )
    one_of("mode", mode, MODES)
    packing = _packing(block_size, double_quantization)
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
    _check_model(model)
    hosts, rest = _hosts(model)
    _check_untrained(model, [layer for _, layer in hosts])
    _check_blocks(hosts, packing)
    given = given or {}
    packed = [
        (x, packing, given.get(id(x)) or _packed(path, x, packing)) for path, x in hosts
    ]
    before = sum(math.prod(_weight(layer).shape) for _, layer in hosts)
    install(model, packed)
    for layer in _keras.flat_layers(model):
        _keras.forget_traces(layer)
    return _summary(model, [layer for _, layer in hosts], before, rest)


def fitting_block_size(model: keras.Layer, most: int = 64) -> int:
    """Return the largest divisor of `most` that divides all kernels of a model.

    Raises:
        TypeError: As in `quantize`.
        ValueError: If the model cannot be quantized, or one kernel is odd.
    """
    _check_model(model)
    hosts = _hosts(model)[0]
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


def _check_model(model: object) -> None:
    if not isinstance(model, keras.Layer):
        raise TypeError(f"{model!r} is not a Keras model or layer. Pass a Keras model.")
    if not model.built or not model.weights:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to quantize. "
            "Call it once on a batch, or give a Sequential a `keras.Input`."
        )
    for layer in _keras.flat_layers(model):
        # A layer with adapters, or with packed weights, raises its own error.
        if isinstance(getattr(type(layer), "quantize", None), property):
            layer.quantize("nf4")
        if layer.quantization_mode is not None:
            raise ValueError(
                f"The layer {layer.name!r} is already quantized "
                f"({layer.quantization_mode}). Load the float model and quantize it "
                "once."
            )
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"The layer {layer.name!r} has Keras's own LoRA (enable_lora), which "
                "trains next to a float kernel. Load the model again without it, "
                "quantize, and attach kt.adapters.LoRA."
            )
    if not _keras.in_strategy_of(model):
        raise ValueError(
            f"The model {model.name!r} and its packed weights would be in different "
            "tf.distribute strategies. Quantize inside the `with strategy.scope():` in "
            "which the model was created."
        )


def _hosts(
    model: keras.Layer,
) -> tuple[list[tuple[str, keras.Layer]], list[str]]:
    """Return the layers to quantize by path, and the paths of others of their kinds."""
    head = set()
    if (groups := layer_groups(model))[-1].name == "head":
        head = {id(layer) for layer in groups[-1].layers}
    hosts, rest = [], []
    for path, layer in located(model).items():
        if packed_form(type(layer)) is None or id(layer) in head:
            continue
        shared = layer.built and len(owners(model, [_weight(layer)])) > 1
        place = path or layer.name
        if shared or not layer.built:
            rest.append(place)
        else:
            hosts.append((place, layer))
    if not hosts:
        raise ValueError(
            f"The model {model.name!r} has no Dense, EinsumDense or Embedding below "
            "its head, so there is nothing to quantize. Pass the model that contains "
            "the backbone, or the backbone itself."
        )
    return hosts, rest


def _check_untrained(model: keras.Layer, hosts: list[keras.Layer]) -> None:
    """Check that no optimizer has slots for a weight that is packed."""
    weights = {id(_weight(layer)): layer for layer in hosts}
    for each in _keras.flat_layers(model):
        optimizer = getattr(each, "optimizer", None)
        if optimizer is None or not optimizer.built:
            continue
        inner = _keras.inner_optimizer(optimizer)
        trains = [weights[id(v)] for v in _keras.trained_by(inner) if id(v) in weights]
        if trains:
            raise ValueError(
                f"The {type(inner).__name__} of {each.name!r} trains the kernel of "
                f"{trains[0].name!r} and {len(trains) - 1} other layers, and packed "
                "weights are frozen for ever. Call model.compile() again with a new "
                "optimizer, and then quantize."
            )


def _check_blocks(hosts: list[tuple[str, keras.Layer]], packing: Packing) -> None:
    for path, layer in hosts:
        size, shape = _row_size(layer), tuple(_weight(layer).shape)
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
    shape = tuple(_weight(layer).shape)
    embedding = issubclass(packed_form(type(layer)), PackedEmbedding)
    return shape[-1] if embedding else math.prod(shape)


def _packed(path: str, layer: keras.Layer, packing: Packing) -> object:
    value = _keras.value(_weight(layer)).astype("float32")
    if not np.isfinite(value).all():
        raise ValueError(
            f"The kernel of the layer {path!r} contains NaN or infinity, so its blocks "
            "have no constants. Load the pretrained weights again."
        )
    return pack(value, packing.block_size, packing.double_quantization)


def _weight(layer: keras.Layer) -> keras.Variable:
    name = packed_form(type(layer)).packed_weight
    return vars(layer)[f"_{name}"]


def _summary(
    model: keras.Layer, hosts: list[PackedLayer], before: int, rest: list[str]
) -> str:
    size = sum(_bytes(v) for x in hosts for v in x.packed_variables().values())
    total = sum(_bytes(v) for v in model.weights)
    left = f"; {rest} are left in float, because others read them" if rest else ""
    return (
        f"NF4 on {len(hosts)} layers of {model.name!r}: {8 * size / before:.3f} bits a "
        f"weight for {before:,} weights, {total / 1e6:,.1f} MB in all{left}"
    )


def _bytes(variable: keras.Variable) -> int:
    return math.prod(variable.shape) * np.dtype(_numpy(variable.dtype)).itemsize


def _numpy(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype
