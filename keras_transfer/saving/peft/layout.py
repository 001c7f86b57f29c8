"""Which tensor of a PEFT file is what: pairs by module, biases, the head."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from keras_transfer.saving.peft.files import PeftFile
from keras_transfer.saving.peft.files import rank_and_alpha
from keras_transfer.saving.peft.hub_mapping import Factors
from keras_transfer.saving.peft.hub_mapping import HubMapping

ROOT = "base_model.model."
PAIR = re.compile(
    r"(.+)\.(lora_[AB]\.weight|lora_embedding_[AB]|lora_magnitude_vector)"
)
LINEAR = ("lora_A.weight", "lora_B.weight")
EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
MAGNITUDE = "lora_magnitude_vector"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The tensors of one module: A `(rank, in)`, B `(out, rank)`, DoRA's lengths."""

    factors: list[Factors]
    alpha: float
    a: np.ndarray
    b: np.ndarray
    magnitude: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """A PEFT file, verified against a mapping.

    `prefix` is what stands in front of the bare model's names, `pairs` are by module
    and `plain` are whole weights by tensor, both by their names in the bare model.
    `names` are the names of the latter in the file.
    """

    prefix: str
    pairs: Mapping[str, Pair]
    plain: Mapping[str, np.ndarray]
    names: Mapping[str, str]


def layout_of(file: PeftFile, mapping: HubMapping) -> Layout:
    """Return what the tensors of `file` are in the model of `mapping`.

    Raises:
        ValueError: If one is missing, is unknown, or has another shape.
    """
    prefix, pairs, names = _sorted(file, mapping)
    plain = {key: file.tensors[name] for key, name in names.items()}
    _check_known([f"{each}.weight" for each in pairs], mapping)
    _check_known(plain, mapping)
    found = {
        module: _pair(file, mapping, prefix, module, tensors)
        for module, tensors in pairs.items()
    }
    if not found:
        raise ValueError("The file holds no pair of LoRA.")
    _check_targets(file.config, mapping, prefix, found)
    _check_plain(file.config, mapping, found, plain)
    return Layout(prefix, found, plain, names)


def name_of(prefix: str, mapping: HubMapping, key: str, *, wrapped: bool) -> str:
    """Return the name that PEFT gives to a whole weight, such as a bias.

    `wrapped`: it is one of a module that has a pair.
    """
    module, _, last = key.rpartition(".")
    if module not in mapping.heads:
        module = prefix + module
    return f"{ROOT}{module}.{'base_layer.' if wrapped else ''}{last}"


def is_target(config: Mapping[str, object], name: str) -> bool:
    """Return whether `target_modules` names the module with the full name `name`."""
    targets = config.get("target_modules")
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in targets or ())


def _sorted(file: PeftFile, mapping: HubMapping) -> tuple[str, dict, dict]:
    names = {}
    for name in file.tensors:
        if not name.startswith(ROOT):
            raise ValueError(f"The tensor {name!r} does not begin with {ROOT!r}.")
        names[name] = name.removeprefix(ROOT)
    prefix = f"{mapping.prefix}."
    if not any(each.startswith(prefix) for each in names.values()):
        prefix = ""
    pairs: dict[str, dict[str, np.ndarray]] = {}
    plain: dict[str, str] = {}
    for name, key in names.items():
        bare = key.removeprefix(prefix)
        match = PAIR.fullmatch(bare)
        if match:
            pairs.setdefault(match[1], {})[match[2]] = file.tensors[name]
        elif "lora_" in bare:
            raise ValueError(f"The tensor {name!r} is of a kind not supported here.")
        elif (key := bare.replace(".base_layer.", ".")) in plain:
            raise ValueError(f"The file has {key!r} twice: {name!r}, {plain[key]!r}.")
        else:
            plain[key] = name
    return prefix, pairs, plain


def _check_known(keys: object, mapping: HubMapping) -> None:
    unknown = sorted(key for key in keys if key not in mapping.shares)
    if not unknown:
        return
    hint = "It was made for another model."
    if any(re.search("classifier|score|qa_outputs|lm_head", key) for key in unknown):
        hint = (
            "Its head needs a model with that head: load it into "
            "keras_hub.models.TextClassifier rather than a backbone."
        )
    elif any(key.startswith("pooler.") for key in unknown):
        hint = (
            "The keras-hub backbone has no pooler. In PEFT leave it out by "
            "exclude_modules=['pooler.dense']."
        )
    raise ValueError(
        f"The file has weights for {unknown[:5]} ({len(unknown)} in all), which the "
        f"model does not have. {hint}"
    )


def _pair(
    file: PeftFile, mapping: HubMapping, prefix: str, module: str, tensors: dict
) -> Pair:
    full = module if module in mapping.heads else prefix + module
    config = file.config
    factors = mapping.factors(module)
    embedding = mapping.shares[f"{module}.weight"][0].variable.name == "embeddings"
    names = set(EMBEDDING if embedding else LINEAR)
    if config.get("use_dora"):
        names.add(MAGNITUDE)
    if set(tensors) != names:
        raise ValueError(
            f"The module {full!r} has the tensors {sorted(tensors)} in the file, not "
            f"{sorted(names)}."
        )
    rank, alpha = rank_and_alpha(config, full)
    size_out = sum(len(each.outputs) for each in factors)
    a, b = (tensors[each] for each in (EMBEDDING if embedding else LINEAR))
    shapes = {"A": (rank, len(factors[0].inputs)), "B": (size_out, rank)}
    for which, array in (("A", a), ("B", b)):
        if array.shape != shapes[which]:
            raise ValueError(
                f"{which} of the module {full!r} has the shape {array.shape} in the "
                f"file, but {shapes[which]} by its rank and the model."
            )
    magnitude = tensors.get(MAGNITUDE)
    if magnitude is not None and magnitude.shape != (size_out,):
        raise ValueError(
            f"The {MAGNITUDE} of {full!r} has the shape {magnitude.shape}, not "
            f"{(size_out,)}."
        )
    return Pair(factors, alpha, a, b, magnitude)


def _check_targets(
    config: Mapping[str, object], mapping: HubMapping, prefix: str, pairs: Mapping
) -> None:
    if config.get("exclude_modules") or config.get("layers_to_transform") is not None:
        return
    missing = [
        module
        for module in dict.fromkeys(mapping.module_of().values())
        if module not in pairs
        and module not in mapping.heads
        and is_target(config, prefix + module)
    ]
    if missing:
        raise ValueError(
            f"The config names {missing[:5]} as targets, but the file has no pairs for "
            "them. It is cut, or of another model."
        )


def _check_plain(
    config: Mapping[str, object], mapping: HubMapping, pairs: Mapping, plain: Mapping
) -> None:
    bias = config.get("bias", "none")
    wanted = set()
    for key in mapping.shares:
        module, _, last = key.rpartition(".")
        if module in mapping.heads:
            present = any(f"{module}.{each}" in plain for each in ("weight", "bias"))
            wanted |= {key} if present else set()
        elif last == "bias" and (
            bias == "all" or bias == "lora_only" and module in pairs
        ):
            wanted.add(key)
    if missing := sorted(wanted - set(plain)):
        raise ValueError(f"The file lacks {missing[:5]}, by its bias={bias!r}.")
    for key, array in plain.items():
        if key in wanted:
            if array.shape != mapping.shape(key):
                raise ValueError(
                    f"{key!r} has the shape {array.shape} in the file, but "
                    f"{mapping.shape(key)} in the model."
                )
        elif key.removesuffix(".weight") not in pairs:
            raise ValueError(
                f"The file has {key!r} whole (modules_to_save, or bias={bias!r} that "
                "does not cover it). Whole modules are read for the head alone."
            )
