"""Sort the tensors of a PEFT file: pairs by module, biases, and the head."""

from __future__ import annotations

import dataclasses
import re
import weakref
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.peft_format import PeftTensor
from keras_transfer.saving.peft.checks import check_known
from keras_transfer.saving.peft.checks import check_plain
from keras_transfer.saving.peft.checks import check_targets
from keras_transfer.saving.peft.checks import check_task
from keras_transfer.saving.peft.checks import check_whole
from keras_transfer.saving.peft.factors import Factors
from keras_transfer.saving.peft.factors import sizes_of
from keras_transfer.saving.peft.files import PeftFile
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.named_modules import is_of_inputs
from keras_transfer.saving.peft.named_modules import rank_and_alpha

# Backbones whose embedding does not compute logits.
ENCODERS = ("albert", "bert", "distilbert", "roberta")
ROOT = "base_model.model."
OUTPUT = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The rank, alpha and tensors of an adapter at one Hugging Face module."""

    factors: list[Factors]
    rank: int | None
    alpha: float | None
    specs: Mapping[str, PeftTensor]
    tensors: Mapping[str, np.ndarray]

    @property
    def of_inputs(self) -> bool:
        """Whether the part changes the inputs of the module, not its outputs."""
        return not any("outputs" in spec.axes for spec in self.specs.values())

    def values(self, factors: Factors) -> dict[str, np.ndarray]:
        """Return the weights of the part on one Keras layer of the module."""
        at = {"inputs": factors.inputs, "outputs": factors.outputs}
        return {
            spec.weight: spec.read(self.tensors[name], at)
            for name, spec in self.specs.items()
        }


@dataclasses.dataclass(frozen=True)
class Origin:
    """The config of a loaded PEFT folder and the names and dtypes of its tensors."""

    text: bytes
    config: Mapping[str, object]
    prefix: str
    plain: Mapping[str, str]
    dtypes: Mapping[str, np.dtype]
    ties: Mapping[str, str] = dataclasses.field(default_factory=dict)


# The origin of each adapter that this process has loaded, by its recipe in the model.
origins: weakref.WeakKeyDictionary[Adapter, Origin] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Layout:
    """The tensors of a PEFT file, checked against a mapping.

    `prefix` comes before the names of the bare model. `pairs` are the pairs by module,
    and `plain` the whole weights by tensor, both with the names of the bare model.
    `names` are the names of the whole weights in the file, `copies` the modules that
    the technique trains as a whole, and `shared` the tensors of no module. `ties` are
    the names of tensors that repeat a whole weight.
    """

    prefix: str
    pairs: Mapping[str, Pair]
    plain: Mapping[str, np.ndarray]
    names: Mapping[str, str]
    copies: tuple[str, ...] = ()
    shared: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ties: Mapping[str, str] = dataclasses.field(default_factory=dict)


def layout_of(file: PeftFile, mapping: HubMapping) -> Layout:
    """Return the tensors of `file` by their modules in the model of `mapping`.

    Raises:
        ValueError: If a tensor is missing, is unknown, or has another shape.
    """
    prefix, pairs, names, copies = _sorted(file, mapping)
    ties = _ties(file, mapping, names)
    plain = {key: file.tensors[name] for key, name in names.items()}
    check_known([f"{each}.weight" for each in pairs], mapping)
    check_known(plain, mapping)
    modules = {
        module: _pair(file, mapping, prefix, module, tensors)
        for module, tensors in pairs.items()
    }
    if not modules and not copies:
        raise ValueError(f"The file contains no pair of {file.technique.__name__}.")
    check_targets(file, mapping, prefix, [*modules, *copies])
    check_task(file.config, mapping, plain)
    check_plain(file, mapping, prefix, modules, plain, copies)
    names_shared = set(file.technique.peft.shared) & set(file.tensors)
    shared = {name: file.tensors[name] for name in names_shared}
    return Layout(prefix, modules, plain, names, tuple(copies), shared, ties)


def name_of(prefix: str, mapping: HubMapping, key: str, infix: str | None) -> str:
    """Return the name that PEFT gives to a whole weight, such as a bias.

    `infix` is the name of the layer with the weight inside PEFT's module, if any.
    """
    module, _, last = key.rpartition(".")
    if module not in mapping.heads:
        module = prefix + module
    return f"{ROOT}{module}.{f'{infix}.' if infix else ''}{last}"


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


def _sorted(
    file: PeftFile, mapping: HubMapping
) -> tuple[str, dict, dict, dict[str, None]]:
    """Return the prefix, the tensors of pairs, the whole weights, and the copies."""
    names = {}
    for name in file.tensors:
        if name in file.technique.peft.shared:
            continue
        if not name.startswith(ROOT):
            raise ValueError(f"The tensor {name!r} does not begin with {ROOT!r}.")
        names[name] = name.removeprefix(ROOT)
    prefix = mapping.stem
    if not any(each.startswith(prefix) for each in names.values()):
        prefix = ""
    parts = file.technique.peft_parts(file.config).values()
    kinds = {x for part in parts for x in part.peft_tensors}
    ends = "|".join(map(re.escape, sorted(kinds))) or "(?!)"
    # For LoRA this is `lora_`. Other tensors that begin in this way also belong to it.
    begins = "|".join(sorted({re.escape(x.split("_")[0]) for x in kinds})) or "(?!)"
    infix = f".{file.technique.peft.infix}."
    copies: dict[str, None] = {}
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
        elif (key := bare.replace(".base_layer.", ".").replace(infix, ".")) in plain:
            raise ValueError(f"The file has {key!r} twice: {name!r}, {plain[key]!r}.")
        else:
            plain[key] = name
            if infix in bare:
                copies[key.rpartition(".")[0]] = None
    return prefix, pairs, plain, copies


def _ties(file: PeftFile, mapping: HubMapping, names: dict[str, str]) -> dict[str, str]:
    """Remove the logits' matrix from `names` if it repeats the word embedding.

    Returns:
        Dict from the name of the tensor to the key of the word embedding.
    """
    if OUTPUT not in names or OUTPUT in mapping.shares:
        return {}
    words = [key for key in names if mapping.is_embedding(key)]
    tensor = file.tensors[names[OUTPUT]]
    same = [x for x in words if np.array_equal(file.tensors[names[x]], tensor)]
    return {names.pop(OUTPUT): same[0]} if same else {}


def _pair(
    file: PeftFile, mapping: HubMapping, prefix: str, module: str, tensors: dict
) -> Pair:
    full = module if module in mapping.heads else prefix + module
    factors = mapping.factors(module)
    parts = file.technique.peft_parts(file.config)
    part = file.technique.part_class(factors[0].layer, parts)
    specs = part.peft_tensors
    if part.peft_inputs and is_of_inputs(file.config, full, file.expressions):
        specs = part.peft_inputs
    rank, alpha = rank_and_alpha(
        file.config, file.technique.peft, full, file.expressions
    )
    if file.technique.peft.shared or file.technique.peft.whole:
        check_whole(file.technique, module, factors)
    sizes = sizes_of(factors) | {"rank": rank}
    specs, sizes = file.technique.peft_specs(specs, sizes, file.config)
    if set(tensors) != set(specs):
        raise ValueError(
            f"The module {full!r} has the tensors {sorted(tensors)} in the file, but "
            f"needs {sorted(specs)}."
        )
    for name, spec in specs.items():
        if tensors[name].shape != spec.shape(sizes):
            raise ValueError(
                f"{name} of the module {full!r} has the shape {tensors[name].shape} in "
                f"the file, but its rank and the model require {spec.shape(sizes)}."
            )
    return Pair(factors, rank, alpha, specs, tensors)
