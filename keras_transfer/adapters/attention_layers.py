"""The attention layers of a model, as far as a prefix can be added to them."""

from __future__ import annotations

import dataclasses
import inspect
import math

import keras

from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.matrix import Unfit
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.projections import CROSS
from keras_transfer.backbones.used_weights import unreached_weights

# The method in which layers of Keras and keras-hub compare queries and keys. It gets
# them with the axes (batch, token, head, feature).
METHOD = "_compute_attention"
# The first arguments of this method, by the names in Keras and in Gemma.
FIRST = (["query", "key", "value"], ["q", "k", "v"])
MASK = "attention_mask"
AXES = "_attention_axes"
KEYS = ("_key_dense", "key_dense")
VALUES = ("_value_dense", "value_dense")


@dataclasses.dataclass(frozen=True)
class Heads:
    """The sizes of an attention layer's keys and values.

    `heads` is the number of heads of the keys. With grouped queries it is smaller than
    the number of heads of the queries. `width` is the number of features from which the
    keys are computed.
    """

    heads: int
    of_key: int
    of_value: int
    width: int


def attention_targets(model: keras.Layer) -> tuple[list[Target], list[Target]]:
    """Return the self-attention layers of `model`, and those that a prefix fits.

    Cross-attention is left out, and so are layers that do not affect the outputs.
    """
    unused = unreached_weights(model)
    found = [
        Target(layer, path or layer.name)
        for path, layer in located(model).items()
        if is_attention(layer)
        and not CROSS.search(path)
        and not all(id(weight) in unused for weight in layer.weights)
    ]
    return found, [target for target in found if not _problem(target.layer)]


def is_attention(layer: keras.Layer) -> bool:
    """Return whether `layer` looks like an attention layer, of any kind."""
    if isinstance(layer, Part) or not layer.weights:
        return False
    kind = plain_of(layer)
    return hasattr(kind, METHOD) or kind.__name__.endswith("Attention")


def heads_of(target: Target) -> Heads:
    """Return the sizes of the keys and values of an attention layer.

    Raises:
        ValueError: If no prefix can be added to the layer.
    """
    if problem := _problem(target.layer):
        raise Unfit(
            f"A prefix cannot be added to the {plain_of(target.layer).__name__} at "
            f"{target.path!r}, because {problem}. Use another technique, such as "
            "kt.adapters.LoRA."
        )
    return sizes_of(target.layer)


def sizes_of(layer: keras.Layer) -> Heads:
    """Return the sizes of the keys and values of an attention layer that fits."""
    keys, values = (_projection(layer, names) for names in (KEYS, VALUES))
    heads, of_key = keys.partial_output_shape[-2:]
    width = math.prod(keys.kernel.shape) // (heads * of_key)
    return Heads(heads, of_key, values.partial_output_shape[-1], width)


def _projection(layer: keras.Layer, names: tuple[str, ...]) -> keras.Layer | None:
    return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)


def _problem(layer: keras.Layer) -> str:
    """Return why no prefix fits an attention layer, or an empty text."""
    kind = plain_of(layer)
    method = getattr(kind, METHOD, None)
    if method is None or METHOD not in inspect.unwrap(kind.call).__code__.co_names:
        return "it does not compute with separate keys and values in a known way"
    names = dict(inspect.signature(method).parameters)
    names.pop("self", None)
    required = [
        name
        for name, each in names.items()
        if each.default is each.empty
        and each.kind is each.POSITIONAL_OR_KEYWORD
        and name != MASK
    ]
    if required not in FIRST or MASK not in names:
        return f"its attention depends on more than keys and values: {list(names)}"
    projections = [_projection(layer, each) for each in (KEYS, VALUES)]
    if not all(isinstance(x, keras.layers.EinsumDense) for x in projections):
        return "it has no EinsumDense for its keys and another for its values"
    if any(len(x.kernel.shape) != 3 for x in projections):
        return "its keys do not have the axes head and feature"
    axes = getattr(layer, AXES, None) or (1,)
    if len(axes) > 1:
        return f"it attends over several axes, {axes}"
    if hasattr(layer, "sinks"):
        return "it has sink tokens and may have a window, which count positions of keys"
    return ""
