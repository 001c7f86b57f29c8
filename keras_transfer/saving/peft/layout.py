"""Sort the tensors of a PEFT file: pairs by module, biases, and the head."""

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

# Backbones whose embedding does not compute logits.
ENCODERS = ("albert", "bert", "distilbert", "roberta")
ROOT = "base_model.model."
# The tasks of PEFT whose head, if any, is the head of a text classifier.
HEAD_TASKS = (None, "SEQ_CLS")
OTHER_HEAD = re.compile("For(?!SequenceClassification)[A-Z]")


@dataclasses.dataclass(frozen=True)
class Pair:
    """The rank, alpha and tensors of an adapter at one Hugging Face module."""

    factors: list[Factors]
    rank: int
    alpha: float
    part: type[Part]
    tensors: Mapping[str, np.ndarray]

    def values(self, factors: Factors) -> dict[str, np.ndarray]:
        """Return the weights of the part on one Keras layer of the module."""
        at = {"inputs": factors.inputs, "outputs": factors.outputs}
        return {
            spec.weight: spec.read(self.tensors[name], at)
            for name, spec in self.part.peft_tensors.items()
        }


@dataclasses.dataclass(frozen=True)
class Origin:
    """The config of a loaded PEFT folder and the names and dtypes of its tensors."""

    text: bytes
    config: Mapping[str, object]
    prefix: str
    plain: Mapping[str, str]
    dtypes: Mapping[str, np.dtype]


# The origin of each adapter that this process has loaded, by the adapter's first part.
origins: weakref.WeakKeyDictionary[Part, Origin] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Layout:
    """The tensors of a PEFT file, checked against a mapping.

    `prefix` comes before the names of the bare model. `pairs` are the pairs by module,
    and `plain` the whole weights by tensor, both with the names of the bare model.
    `names` are the names of the whole weights in the file.
    """

    prefix: str
    pairs: Mapping[str, Pair]
    plain: Mapping[str, np.ndarray]
    names: Mapping[str, str]


def layout_of(file: PeftFile, mapping: HubMapping) -> Layout:
    """Return the tensors of `file` by their modules in the model of `mapping`.

    Raises:
        ValueError: If a tensor is missing, is unknown, or has another shape.
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
        raise ValueError(f"The file contains no pair of {file.technique.__name__}.")
    _check_targets(file, mapping, prefix, modules)
    _check_task(file.config, mapping, plain)
    _check_plain(file.config, mapping, prefix, modules, plain)
    return Layout(prefix, modules, plain, names)


def name_of(prefix: str, mapping: HubMapping, key: str, *, wrapped: bool) -> str:
    """Return the name that PEFT gives to a whole weight, such as a bias.

    `wrapped` says whether the weight belongs to a module with a pair.
    """
    module, _, last = key.rpartition(".")
    if module not in mapping.heads:
        module = prefix + module
    return f"{ROOT}{module}.{'base_layer.' if wrapped else ''}{last}"


def is_encoder(model: keras.Model, mapping: HubMapping) -> bool:
    """Return whether the embedding of `model` does not compute logits."""
    import keras_hub

    kinds = (keras_hub.models.Backbone, keras_hub.models.TextClassifier)
    return mapping.family in ENCODERS and isinstance(model, kinds)


def check_tied(model: keras.Model, mapping: HubMapping, parts: list) -> None:
    """Check that no embedding's pair changes the logits, because it would not in PEFT.

    Raises:
        ValueError: If a pair changes the logits.
    """
    for path, host, part in parts:
        if (
            getattr(part, "tied", False)
            and getattr(host, "tie_weights", False)
            and not is_encoder(model, mapping)
        ):
            raise ValueError(
                f"The pair on {path!r} also changes the logits, because the output of "
                "the model shares the matrix of the embedding. In PEFT the pair does "
                "not change the logits. Leave the embedding out of the targets, or "
                "load an adapter of PEFT and train it."
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
    # For LoRA this is `lora_`. Other tensors that begin in this way also belong to it.
    begins = "|".join(sorted({re.escape(x.split("_")[0]) for x in kinds}))
    pairs: dict[str, dict[str, np.ndarray]] = {}
    plain: dict[str, str] = {}
    for name, key in names.items():
        bare = key.removeprefix(prefix)
        match = re.fullmatch(rf"(.+)\.({ends})", bare)
        if match and match[2] in pairs.get(match[1], {}):
            raise ValueError(
                f"The file has {bare!r} twice, with and without {prefix!r}."
            )
        if match:
            pairs.setdefault(match[1], {})[match[2]] = file.tensors[name]
        elif re.search(rf"(?:{begins})_", bare):
            raise ValueError(f"The tensor {name!r} is of an unsupported kind.")
        elif (key := bare.replace(".base_layer.", ".")) in plain:
            raise ValueError(f"The file has {key!r} twice: {name!r}, {plain[key]!r}.")
        else:
            plain[key] = name
    return prefix, pairs, plain


def _check_known(keys: object, mapping: HubMapping) -> None:
    unknown = sorted(key for key in keys if key not in mapping.shares)
    if not unknown:
        return
    hint = "The adapter was trained on another model."
    if any(re.search("classifier|score|qa_outputs|lm_head", key) for key in unknown):
        hint = (
            "The file has a head, so it needs a model with this head: load it into a "
            "keras_hub.models.TextClassifier instead of a backbone."
        )
    elif any(key.startswith("pooler.") for key in unknown):
        hint = (
            "The keras-hub backbone has no pooler. In PEFT, leave the pooler out with "
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
            f"The module {full!r} has the tensors {sorted(tensors)} in the file, but "
            f"needs {sorted(part.peft_tensors)}."
        )
    rank, alpha = rank_and_alpha(
        file.config, file.technique.peft, full, file.expressions
    )
    sizes = sizes_of(factors) | {"rank": rank}
    for name, spec in part.peft_tensors.items():
        if tensors[name].shape != spec.shape(sizes):
            raise ValueError(
                f"{name} of the module {full!r} has the shape {tensors[name].shape} in "
                f"the file, but its rank and the model require {spec.shape(sizes)}."
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
            "them. The file is incomplete or was trained on another model."
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
            "targets, so PEFT would ignore them. Add them to target_modules."
        )


def _check_task(config: Mapping[str, object], mapping: HubMapping, plain: Mapping):
    """Check that a head is for text classification. Other tasks use the same names."""
    if not any(key.rpartition(".")[0] in mapping.heads for key in plain):
        return
    task, auto = config.get("task_type"), config.get("auto_mapping")
    kind = auto.get("base_model_class") if isinstance(auto, dict) else None
    if task not in HEAD_TASKS or OTHER_HEAD.search(str(kind)):
        raise ValueError(
            f"The head in the file is of another task (task_type={short(task)}, class "
            f"{short(kind)}) than text classification. To load the adapter into a "
            "backbone without this head, save it in PEFT with modules_to_save=None."
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
        raise ValueError(
            f"The file lacks {missing[:5]}, which its bias={bias!r} and its head need."
        )
    owns = bias == "none"  # then whole modules in the file are the adapter's own
    saved = tuple(config.get("modules_to_save") or ())
    for key, array in plain.items():
        module = key.rpartition(".")[0]
        named = owns and any(f".{prefix}{module}".endswith(f".{x}") for x in saved)
        if key in wanted or named and module not in pairs:
            shape = mapping.shape(key)
            if owns and module in mapping.heads[-1:]:
                shape = (array.shape[0], *shape[1:])  # the classes can differ
            if array.shape != shape:
                of_head = module in mapping.heads
                raise ValueError(
                    f"{key!r} has the shape {array.shape} in the file, but "
                    f"{mapping.shape(key)} in the model."
                    + (" Its head has another number of labels." if of_head else "")
                )
        elif key.removesuffix(".weight") not in pairs:
            raise ValueError(
                f"The file has the whole weight {key!r}, which neither its "
                f"modules_to_save={list(saved)} nor its bias={bias!r} covers. With "
                "trained biases, only the head can be a whole module."
            )
