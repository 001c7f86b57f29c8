"""What save_peft writes: the tensors of an adapter, and the config that reads them."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import re
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.dora import DoRA
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.lora import RsLoRA
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import places
from keras_transfer.adapters.targets import by_pattern
from keras_transfer.saving.peft.files import rank_and_alpha
from keras_transfer.saving.peft.hub_mapping import Factors
from keras_transfer.saving.peft.hub_mapping import hub_backbone
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.layout import EMBEDDING
from keras_transfer.saving.peft.layout import LINEAR
from keras_transfer.saving.peft.layout import MAGNITUDE
from keras_transfer.saving.peft.layout import name_of
from keras_transfer.saving.peft.layout import ROOT

TASKS = (None, "SEQ_CLS", "CAUSAL_LM", "FEATURE_EXTRACTION")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a PEFT file was: its config, its names and types, its whole weights."""

    text: bytes
    config: Mapping[str, object]
    prefix: str
    plain: Mapping[str, str]
    dtypes: Mapping[str, np.dtype]


@dataclasses.dataclass(frozen=True)
class Module:
    """The pair of one Hugging Face module."""

    a: np.ndarray
    b: np.ndarray
    alpha: float
    is_embedding: bool
    rows_out: bool
    magnitude: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return len(self.a)


def written(
    model: keras.Model,
    name: str,
    mapping: HubMapping,
    task_type: str | None,
    origin: Origin | None,
) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return the text of adapter_config.json and the tensors of an adapter.

    Raises:
        ValueError: If PEFT's LoRA cannot hold it.
    """
    recipe = _recipe(model, name)
    modules = _modules(model, name, recipe, mapping)
    plain, prefix, wrapped = _plain(model, recipe, mapping, modules, task_type, origin)
    tensors = {}
    for key, module in modules.items():
        full = key if key in mapping.heads else prefix + key
        names = EMBEDDING if module.is_embedding else LINEAR
        for each, array in zip(names, (module.a, module.b), strict=True):
            tensors[f"{ROOT}{full}.{each}"] = array
        if module.magnitude is not None:
            tensors[f"{ROOT}{full}.{MAGNITUDE}"] = module.magnitude
    for key in plain:
        full = name_of(prefix, mapping, key, wrapped=key in wrapped)
        full = origin.plain[key] if origin else full
        tensors[full] = _whole(mapping, key)
    if origin is not None:
        tensors = {k: v.astype(origin.dtypes[k]) for k, v in tensors.items()}
    full = {k if k in mapping.heads else prefix + k: v for k, v in modules.items()}
    if origin is not None and _unchanged(origin.config, full):
        return origin.text, tensors
    known = dict(origin.config) if origin else _settings(recipe, mapping, task_type)
    config = known | _numbers(full)
    if origin is None:
        config["target_modules"] = list(full)
        config["fan_in_fan_out"] = any(
            not each.rows_out and not each.is_embedding for each in modules.values()
        )
    return json.dumps(config, indent=2, sort_keys=True).encode(), tensors


def _recipe(model: keras.Model, name: str) -> LoRA:
    recipe = attached(model).get(name)
    if not isinstance(recipe, LoRA):
        raise ValueError(
            f"The adapter {name!r} is {recipe!r}. PEFT's LoRA format holds LoRA, "
            f"RsLoRA and DoRA; the adapters here are {list(attached(model))}."
        )
    return recipe


def _modules(
    model: keras.Model, name: str, recipe: LoRA, mapping: HubMapping
) -> dict[str, Module]:
    module_of = mapping.module_of()
    parts: dict[str, dict[int, tuple[Part, float]]] = {}
    for path, host, part in places(model, name):
        if id(host) not in module_of or not isinstance(part, LowRankPair):
            raise ValueError(
                f"The layer {path!r} ({type(host).__name__}) with its "
                f"{type(part).__name__} has no counterpart in Hugging Face's "
                f"{mapping.family!r}. Leave it out of the targets."
            )
        alpha = _alpha(recipe, part, path)
        parts.setdefault(module_of[id(host)], {})[id(host)] = (part, alpha)
    order = dict.fromkeys(module_of.values())
    return {
        each: _module(mapping, each, parts[each], recipe)
        for each in order
        if each in parts
    }


def _alpha(recipe: LoRA, part: LowRankPair, path: str) -> float:
    """Return the alpha that gives the part's scaling: the recipe's, as a rule."""
    alpha = by_pattern(recipe.alpha_pattern, path, recipe.alpha)
    if recipe.scaling(part.rank, alpha) == part.scaling:
        return alpha
    return part.scaling * _divisor(recipe, part.rank)


def _divisor(recipe: LoRA, rank: int) -> float:
    return math.sqrt(rank) if isinstance(recipe, RsLoRA) else rank


def _module(
    mapping: HubMapping,
    module: str,
    parts: Mapping[int, tuple[Part, float]],
    recipe: LoRA,
) -> Module:
    """Return the pair of a module of which one or more Keras layers have a pair."""
    factors = mapping.factors(module)
    size_out = sum(len(each.outputs) for each in factors)
    there = [
        (each, *parts[id(each.layer)]) for each in factors if id(each.layer) in parts
    ]
    sides = [_side(each, part) for each, part, _ in there]
    first, _, alpha = there[0]
    scaling = there[0][1].scaling
    shared = all(
        np.array_equal(sides[0], side) and part.scaling == scaling
        for side, (_, part, _) in zip(sides, there, strict=True)
    )
    a = sides[0] if shared else np.concatenate(sides)
    b = np.zeros((size_out, len(a)), "float32")
    start = 0
    for side, (each, part, _) in zip(sides, there, strict=True):
        ranks = slice(start, start + len(side))
        factor = np.float32(part.scaling / scaling)
        b[each.outputs, ranks] = _keras.value(part.lora_b).T * factor
        start = start if shared else ranks.stop
    if not shared:
        alpha = scaling * _divisor(recipe, len(a))
    is_embedding = mapping.shares[f"{module}.weight"][0].variable.name == "embeddings"
    magnitude = None
    if isinstance(recipe, DoRA):
        if len(there) < len(factors):
            names = [each.layer.name for each in factors]
            raise ValueError(
                f"Hugging Face's {module!r} is {names} in Keras, of which only some "
                "are targets. DoRA's lengths are of all of it: take all as targets."
            )
        magnitude = np.empty(size_out, "float32")
        for each, part, _ in there:
            magnitude[each.outputs] = _keras.value(part.magnitude)
    return Module(a, b, alpha, is_embedding, first.rows_out, magnitude)


def _side(factors: Factors, part: Part) -> np.ndarray:
    a = np.empty((part.rank, len(factors.inputs)), "float32")
    a[:, factors.inputs] = _keras.value(part.lora_a).T
    return a


def _plain(
    model: keras.Model,
    recipe: LoRA,
    mapping: HubMapping,
    modules: Mapping[str, Module],
    task_type: str | None,
    origin: Origin | None,
) -> tuple[list[str], str, set[str]]:
    """Return the whole weights to write, the prefix, and what has pairs."""
    heads = {f"{each}.{x}" for each in mapping.heads for x in ("weight", "bias")}
    heads &= set(mapping.shares)
    kept = heads & set(origin.plain) if origin else set()
    one_of("task_type", task_type, TASKS)
    if (task_type == "SEQ_CLS") != bool(heads) and not kept:
        _refuse_head(model, task_type)
    if not heads:
        below = {id(each) for each in hub_backbone(model).weights}
        if any(v.trainable and id(v) not in below for v in model.weights):
            _refuse_head(model, task_type)
    in_heads = [each for each in modules if each in mapping.heads]
    if in_heads:
        raise ValueError(
            f"The head's {in_heads} have pairs, and are to be written whole too. Leave "
            "them out of the targets."
        )
    wrapped = {f"{each}.bias" for each in modules}
    wrapped |= {f"{each}.weight" for each in modules}
    if origin is not None:
        return list(origin.plain), origin.prefix, wrapped
    biases = {key for key in mapping.shares if key.endswith(".bias")} - heads
    if recipe.bias == "lora_only":
        biases &= wrapped
    biases = biases if recipe.bias != "none" else set()
    bare = task_type in (None, "FEATURE_EXTRACTION")
    prefix = "" if bare else f"{mapping.prefix}."
    return sorted(biases | heads), prefix, wrapped


def _refuse_head(model: keras.Model, task_type: str | None) -> None:
    if task_type == "SEQ_CLS":
        raise ValueError(
            f"task_type='SEQ_CLS' needs a keras-hub TextClassifier, whose head goes "
            f"along; {model.name!r} is none."
        )
    raise ValueError(
        f"The model {model.name!r} has a head, which would not be in the file. Give "
        "task_type='SEQ_CLS' for a keras-hub TextClassifier, or pass the backbone."
    )


def _whole(mapping: HubMapping, key: str) -> np.ndarray:
    """Return a Hugging Face tensor that is made up by Keras weights."""
    shares = mapping.shares[key]
    shape = mapping.shape(key)
    tensor = np.empty(shape, "float32")
    index = np.arange(tensor.size).reshape(shape)
    for share in shares:
        tensor.flat[share.read(index)] = _keras.value(share.variable)
    return tensor


def _unchanged(config: Mapping[str, object], modules: Mapping[str, Module]) -> bool:
    return all(
        rank_and_alpha(config, name) == (module.rank, module.alpha)
        for name, module in modules.items()
    )


def _numbers(modules: Mapping[str, Module]) -> dict:
    """Return r and lora_alpha, the commonest, with patterns for the modules' own."""
    config: dict = {}
    for key, pattern, numbers in (
        ("r", "rank_pattern", {k: m.rank for k, m in modules.items()}),
        ("lora_alpha", "alpha_pattern", {k: m.alpha for k, m in modules.items()}),
    ):
        config[key] = collections.Counter(numbers.values()).most_common(1)[0][0]
        config[pattern] = {
            re.escape(name): number
            for name, number in numbers.items()
            if number != config[key]
        }
    return config


def _settings(recipe: LoRA, mapping: HubMapping, task_type: str | None) -> dict:
    heads = list(dict.fromkeys(each.split(".")[0] for each in mapping.heads))
    return {
        "base_model_name_or_path": None,
        "bias": recipe.bias,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": recipe.dropout,
        "modules_to_save": heads or None,
        "peft_type": "LORA",
        "task_type": task_type,
        "use_dora": isinstance(recipe, DoRA),
        "use_rslora": isinstance(recipe, RsLoRA),
    }
