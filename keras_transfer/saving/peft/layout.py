"""Which tensor of a PEFT file is what: pairs by module, biases, the head."""

from __future__ import annotations

import dataclasses
import re
import weakref
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.adapters.adapter_part import Part
from keras_transfer.saving.peft.files import PeftFile
from keras_transfer.saving.peft.hub_mapping import Factors
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.hub_mapping import sizes_of
from keras_transfer.saving.peft.named_modules import is_target
from keras_transfer.saving.peft.named_modules import rank_and_alpha
from keras_transfer.saving.strict_json import short

# Backbones whose embedding gives no logits, alone or in a text classifier.
ENCODERS = ("albert", "bert", "distilbert", "roberta")
ROOT = "base_model.model."
# The tasks of PEFT whose head is the one of a text classifier, if there is one.
HEAD_TASKS = (None, "SEQ_CLS")
OTHER_HEAD = re.compile("For(?!SequenceClassification)[A-Z]")


@dataclasses.dataclass(frozen=True)
class Pair:
    """What an adapter has at one module: its numbers, its tensors by their names."""

    factors: list[Factors]
    rank: int
    alpha: float
    part: type[Part]
    tensors: Mapping[str, np.ndarray]

    def values(self, factors: Factors) -> dict[str, np.ndarray]:
        """Return the weights of the part of one Keras layer of the module."""
        at = {"inputs": factors.inputs, "outputs": factors.outputs}
        return {
            spec.weight: spec.read(self.tensors[name], at)
            for name, spec in self.part.peft_tensors.items()
        }


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a PEFT file was: its config, its names and types, its whole weights."""

    text: bytes
    config: Mapping[str, object]
    prefix: str
    plain: Mapping[str, str]
    dtypes: Mapping[str, np.dtype]


# What an adapter was loaded from, by its first part; in this process.
origins: weakref.WeakKeyDictionary[Part, Origin] = weakref.WeakKeyDictionary()


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
    modules = {
        module: _pair(file, mapping, prefix, module, tensors)
        for module, tensors in pairs.items()
    }
    if not modules:
        raise ValueError(f"The file holds no pair of {file.technique.__name__}.")
    _check_targets(file, mapping, prefix, modules)
    _check_task(file.config, mapping, plain)
    _check_plain(file.config, mapping, prefix, modules, plain)
    return Layout(prefix, modules, plain, names)


def name_of(prefix: str, mapping: HubMapping, key: str, *, wrapped: bool) -> str:
    """Return the name that PEFT gives to a whole weight, such as a bias.

    `wrapped`: it is one of a module that has a pair.
    """
    module, _, last = key.rpartition(".")
    if module not in mapping.heads:
        module = prefix + module
    return f"{ROOT}{module}.{'base_layer.' if wrapped else ''}{last}"


def is_encoder(model: keras.Model, mapping: HubMapping) -> bool:
    """Return whether the embedding of `model` gives no logits."""
    import keras_hub

    kinds = (keras_hub.models.Backbone, keras_hub.models.TextClassifier)
    return mapping.family in ENCODERS and isinstance(model, kinds)


def check_tied(model: keras.Model, mapping: HubMapping, parts: list) -> None:
    """Check that no pair counts in logits, where PEFT's would not.

    Raises:
        ValueError: If one does.
    """
    for path, host, part in parts:
        if (
            getattr(part, "tied", False)
            and getattr(host, "tie_weights", False)
            and not is_encoder(model, mapping)
        ):
            raise ValueError(
                f"The pair on {path!r} counts in the logits too, since the model's "
                "output shares the matrix. In PEFT it would not. Leave the embedding "
                "out of the targets, or train it from a file of PEFT's."
            )


def _sorted(file: PeftFile, mapping: HubMapping) -> tuple[str, dict, dict]:
    names = {}
    for name in file.tensors:
        if not name.startswith(ROOT):
            raise ValueError(f"The tensor {name!r} does not begin with {ROOT!r}.")
        names[name] = name.removeprefix(ROOT)
    prefix = f"{mapping.prefix}."
    if not any(each.startswith(prefix) for each in names.values()):
        prefix = ""
    kinds = {x for part in file.technique.parts.values() for x in part.peft_tensors}
    ends = "|".join(map(re.escape, sorted(kinds)))
    # `lora_` for LoRA: what else begins so is of its kind too.
    begins = "|".join(sorted({re.escape(x.split("_")[0]) for x in kinds}))
    pairs: dict[str, dict[str, np.ndarray]] = {}
    plain: dict[str, str] = {}
    for name, key in names.items():
        bare = key.removeprefix(prefix)
        match = re.fullmatch(rf"(.+)\.({ends})", bare)
        if match and match[2] in pairs.get(match[1], {}):
            raise ValueError(f"The file has {bare!r} twice, also with {prefix!r}.")
        if match:
            pairs.setdefault(match[1], {})[match[2]] = file.tensors[name]
        elif re.search(rf"(?:{begins})_", bare):
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
    factors = mapping.factors(module)
    part = file.technique.part_class(factors[0].layer)
    if set(tensors) != set(part.peft_tensors):
        raise ValueError(
            f"The module {full!r} has the tensors {sorted(tensors)} in the file, not "
            f"{sorted(part.peft_tensors)}."
        )
    rank, alpha = rank_and_alpha(
        file.config, file.technique.peft, full, file.expressions
    )
    sizes = sizes_of(factors) | {"rank": rank}
    for name, spec in part.peft_tensors.items():
        if tensors[name].shape != spec.shape(sizes):
            raise ValueError(
                f"{name} of the module {full!r} has the shape {tensors[name].shape} in "
                f"the file, but {spec.shape(sizes)} by its rank and the model."
            )
    return Pair(factors, rank, alpha, part, tensors)


def _check_targets(
    file: PeftFile, mapping: HubMapping, prefix: str, pairs: Mapping
) -> None:
    missing = [
        module
        for module in dict.fromkeys(mapping.module_of().values())
        if module not in pairs
        and module not in mapping.heads
        and is_target(file.config, prefix + module, file.expressions)
    ]
    if missing:
        raise ValueError(
            f"The config names {missing[:5]} as targets, but the file has no pairs for "
            "them. It is cut, or of another model."
        )
    full = {module: prefix + module for module in pairs if module not in mapping.heads}
    unnamed = [
        module
        for module, name in full.items()
        if not is_target(file.config, name, file.expressions)
    ]
    if unnamed and file.config.get("target_modules") not in (None, [], "all-linear"):
        raise ValueError(
            f"The file has pairs for {unnamed[:5]}, which its config does not name as "
            "targets: PEFT would leave them out."
        )


def _check_task(config: Mapping[str, object], mapping: HubMapping, plain: Mapping):
    """Check that a head is a classifier's: BERT's for tokens has the same names."""
    if not any(key.rpartition(".")[0] in mapping.heads for key in plain):
        return
    task, auto = config.get("task_type"), config.get("auto_mapping")
    kind = auto.get("base_model_class") if isinstance(auto, dict) else None
    if task not in HEAD_TASKS or OTHER_HEAD.search(str(kind)):
        raise ValueError(
            f"The head in the file is that of another task (task_type={short(task)}, "
            f"of the class {short(kind)}), not of a text classifier. Load it into a "
            "backbone without its head: save it in PEFT with modules_to_save=None."
        )


def _check_plain(
    config: Mapping[str, object],
    mapping: HubMapping,
    prefix: str,
    pairs: Mapping,
    plain: Mapping,
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
    owns = bias == "none"  # then modules that are there whole are the adapter's own
    saved = tuple(config.get("modules_to_save") or ())
    for key, array in plain.items():
        module = key.rpartition(".")[0]
        named = owns and any(f".{prefix}{module}".endswith(f".{x}") for x in saved)
        if key in wanted or named and module not in pairs:
            shape = mapping.shape(key)
            if owns and module in mapping.heads[-1:]:
                shape = (array.shape[0], *shape[1:])  # its classes may be others
            if array.shape != shape:
                of_head = module in mapping.heads
                raise ValueError(
                    f"{key!r} has the shape {array.shape} in the file, but "
                    f"{mapping.shape(key)} in the model."
                    + (" Its head is of another number of labels." if of_head else "")
                )
        elif key.removesuffix(".weight") not in pairs:
            raise ValueError(
                f"The file has {key!r} whole, which neither its modules_to_save, "
                f"{list(saved)}, nor its bias={bias!r} covers. With trained biases "
                "whole modules are read for the head alone."
            )
