"""The whole weights in a PEFT file: biases, the head, the adapter's own layers."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.saving.peft.hub_mapping import hub_backbone
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.hub_mapping import IMAGES
from keras_transfer.saving.peft.layout import Origin

TASKS = (None, "SEQ_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")


def whole_keys(
    model: keras.Model,
    recipe: Adapter,
    mapping: HubMapping,
    modules: Iterable[str],
    task_type: str | None,
    origin: Origin | None,
    own: Mapping[int, keras.Variable],
) -> tuple[list[str], str, set[str]]:
    """Return the whole weights to write, the prefix, and the weights under pairs.

    `own` are the weights of the adapter's own layers, by the id of the model's weight.
    """
    heads = {f"{each}.{x}" for each in mapping.heads for x in ("weight", "bias")}
    heads &= set(mapping.shares)
    kept = heads & set(origin.plain) if origin else set()
    one_of("task_type", task_type, TASKS)
    of_images = bool(heads) and mapping.family in IMAGES
    if of_images and task_type is not None:
        raise ValueError(
            f"task_type={task_type!r} is not for the images of a {mapping.family!r}. "
            "PEFT has no task for images. Leave task_type out. The head is saved too."
        )
    if not of_images and (task_type == "SEQ_CLS") != bool(heads) and not kept:
        _refuse_head(model, task_type)
    if not heads:
        below = {id(each) for each in hub_backbone(model).weights}
        above = [v for v in model.weights if id(v) not in below]
        if any(v.trainable or id(v) in own for v in above):
            _refuse_head(model, task_type)
    in_heads = [each for each in modules if each in mapping.heads]
    if in_heads:
        raise ValueError(
            f"The modules {in_heads} of the head have pairs, but the file has the "
            "whole head instead. Leave these modules out of the targets."
        )
    wrapped = {f"{each}.bias" for each in modules}
    wrapped |= {f"{each}.weight" for each in modules}
    if origin is not None:
        return list(origin.plain), origin.prefix, wrapped
    biases = {key for key in mapping.shares if key.endswith(".bias")} - heads
    bias = getattr(recipe, "bias", "none")
    if bias == "lora_only":
        biases &= wrapped
    biases = biases if bias in ("all", "lora_only") else set()
    whole = _own_keys(mapping, own) - heads
    bare = not of_images and task_type in (None, "FEATURE_EXTRACTION")
    prefix = "" if bare else mapping.stem
    return sorted(biases | heads | whole), prefix, wrapped


def copied_keys(model: keras.Model, recipe: Adapter, mapping: HubMapping) -> list[str]:
    """Return the tensors of the modules that a technique without parts trains.

    Raises:
        ValueError: If a weight that trains has no tensor.
    """
    if recipe.parts:
        return []
    ids = {
        id(share.variable): key
        for key, shares in mapping.shares.items()
        for share in shares
    }
    trained = recipe.trained(model, recipe.find(model))
    if unknown := [each.path for each in trained if id(each) not in ids]:
        raise ValueError(
            f"The weights {unknown[:5]} have no counterpart in Hugging Face's "
            f"{mapping.family!r}. Leave their layers out of the targets."
        )
    return [ids[id(each)] for each in trained]


def whole_tensor(
    mapping: HubMapping, key: str, own: Mapping[int, keras.Variable]
) -> np.ndarray:
    """Return a Hugging Face tensor, made of its Keras weights."""
    shares = mapping.shares[key]
    values = [_keras.value(own.get(id(x.variable), x.variable)) for x in shares]
    if len(shares) == 1 and values[0].shape != tuple(shares[0].variable.shape):
        return values[0].T  # a head with another number of classes
    shape = mapping.shape(key)
    tensor = np.empty(shape, "float32")
    index = np.arange(tensor.size).reshape(shape)
    for share, value in zip(shares, values, strict=True):
        tensor.flat[share.read(index)] = value
    return tensor


def _refuse_head(model: keras.Model, task_type: str | None) -> None:
    if task_type == "SEQ_CLS":
        raise ValueError(
            f"task_type='SEQ_CLS' needs a keras-hub TextClassifier, whose head is "
            f"saved too, but {model.name!r} has another head or none."
        )
    raise ValueError(
        f"The model {model.name!r} has a head, which the file would lack. Pass "
        "task_type='SEQ_CLS' for a keras-hub TextClassifier, or pass the backbone."
    )


def _own_keys(mapping: HubMapping, own: Mapping[int, keras.Variable]) -> set[str]:
    """Return the Hugging Face tensors of the weights of an adapter's own layers.

    Raises:
        ValueError: If a weight has no tensor, or is only a part of a tensor.
    """
    keys, known = set(), set()
    for key, shares in mapping.shares.items():
        found = {id(share.variable) for share in shares} & set(own)
        known |= found
        if found and len(found) < len(shares):
            raise ValueError(
                f"Hugging Face's {key!r} is {[x.layer.name for x in shares]} in Keras, "
                "but the adapter owns only some of these layers. Name all in `train`."
            )
        keys |= {key} if found else set()
    if len(known) < len(own):
        names = [v.path for key, v in own.items() if key not in known]
        raise ValueError(
            f"The adapter's own weights {names[:5]} have no counterpart in Hugging "
            f"Face's {mapping.family!r}. Leave their layers out of `train`."
        )
    return keys
