"""The layers of a model that can be quantized, and what has to be true of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterable

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.layer_paths import owners
from keras_transfer.quantization.packed_layers import packed_form

# Types that NumPy does not have -> one of the same size.
NUMPY = {"bfloat16": "uint16"}


def check_model(model: object) -> None:
    """Check that a model is a built, float model without adapters.

    Raises:
        TypeError: If it is not a Keras layer.
        ValueError: If it is something else.
    """
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


def hosts_of(
    model: keras.Layer,
) -> tuple[list[tuple[str, keras.Layer]], list[str]]:
    """Return the layers to quantize by path, and the paths of others of their kinds.

    Raises:
        ValueError: If there are none to quantize.
    """
    head = set()
    if (groups := layer_groups(model))[-1].name == "head":
        head = {id(layer) for layer in groups[-1].layers}
    hosts, rest = [], []
    for path, layer in located(model).items():
        if packed_form(type(layer)) is None or id(layer) in head:
            continue
        shared = layer.built and len(owners(model, [weight_of(layer)])) > 1
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


def check_untrained(model: keras.Layer, hosts: list[keras.Layer]) -> None:
    """Check that no optimizer has slots for a weight that is packed.

    Raises:
        ValueError: If one has.
    """
    weights = {id(weight_of(layer)): layer for layer in hosts}
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


def weight_of(layer: keras.Layer) -> keras.Variable:
    """Return the float kernel or the embeddings of a layer."""
    name = packed_form(type(layer)).packed_weight
    return vars(layer)[f"_{name}"]


def check_finite(path: str, layer: keras.Layer) -> np.ndarray:
    """Return the float weight of a layer as a float32 array.

    Raises:
        ValueError: If it contains NaN or infinity.
    """
    value = _keras.value(weight_of(layer)).astype("float32")
    if not np.isfinite(value).all():
        raise ValueError(
            f"The kernel of the layer {path!r} contains NaN or infinity, so its blocks "
            "have no constants. Load the pretrained weights again."
        )
    return value


def summary(
    model: keras.Layer, mode: str, hosts: list[tuple[str, keras.Layer]], rest: list[str]
) -> Callable[[], str]:
    """Return a function that returns a line about the model after it is quantized."""
    layers = [layer for _, layer in hosts]
    weights = [weight_of(layer) for layer in layers]
    count = sum(math.prod(weight.shape) for weight in weights)
    kept = _bytes(v for x in layers for v in x.weights) - _bytes(weights)

    def say() -> str:
        bits = 8 * (_bytes(v for x in layers for v in x.weights) - kept) / count
        left = f"; {rest} are left in float, because others read them" if rest else ""
        return (
            f"{mode} on {len(layers)} layers of {model.name!r}: {bits:.3f} bits a "
            f"weight for {count:,} weights, {_bytes(model.weights) / 1e6:,.1f} MB in "
            f"all{left}"
        )

    return say


def _bytes(variables: Iterable[keras.Variable]) -> int:
    sizes = (
        math.prod(v.shape) * np.dtype(NUMPY.get(v.dtype, v.dtype)).itemsize
        for v in variables
    )
    return sum(sizes)
