"""The two files of a PEFT folder: read and verified, written whole or not at all."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from keras_transfer._arguments import dropout_rate
from keras_transfer._whole_file import replace_file
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.rank_and_alpha import check_alpha
from keras_transfer.adapters.rank_and_alpha import check_rank
from keras_transfer.adapters.techniques import techniques
from keras_transfer.saving.peft.expressions import Expressions
from keras_transfer.saving.peft.expressions import parsed
from keras_transfer.saving.strict_json import parse_json
from keras_transfer.saving.strict_json import short
from keras_transfer.saving.tensor_file import TensorFile
from keras_transfer.saving.tensor_file import write_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LARGEST_CONFIG = 1 << 20  # bytes; PEFT's own has about one thousand
# What of any config is read here, or has no bearing on what an adapter computes.
KNOWN = {
    *("alpha_pattern", "rank_pattern", "modules_to_save", "task_type", "peft_version"),
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "revision"),
    *("megatron_core", "runtime_config", "ensure_weight_tying"),
    # Which modules have a part is seen from the tensors themselves.
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
}
# The types of numbers that a file may have, by safetensors' names.
KINDS = ("F16", "BF16", "F32")


@dataclasses.dataclass(frozen=True)
class PeftFile:
    """What a PEFT folder holds: the config as text and read, tensors in their dtype.

    `expressions` matches the expressions in the config, all in one allowance of steps.
    """

    text: bytes
    config: Mapping[str, object]
    technique: type[Adapter]
    tensors: Mapping[str, np.ndarray]
    expressions: Expressions = dataclasses.field(default_factory=Expressions)


def read(folder: str | pathlib.Path) -> PeftFile:
    """Return what a PEFT folder holds.

    Raises:
        FileNotFoundError: If one of its two files is missing.
        ValueError: If one is damaged, or asks for what is not supported.
    """
    folder = pathlib.Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{str(folder)!r} has no {name}. A PEFT folder has {CONFIG} and "
                f"{WEIGHTS}; adapter_model.bin, a pickle, is not read: load and save "
                "it with PEFT, which writes safetensors now."
            )
    if (folder / CONFIG).stat().st_size > LARGEST_CONFIG:
        raise ValueError(f"{CONFIG} in {str(folder)!r} is too large to be PEFT's.")
    text = (folder / CONFIG).read_bytes()
    try:
        config = parse_json(text)
    except ValueError as problem:
        raise ValueError(f"{CONFIG} in {str(folder)!r}: {problem}") from problem
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} in {str(folder)!r} is not a dict of settings.")
    technique = technique_of(config)
    check_config(config, technique.peft)
    return PeftFile(text, config, technique, _tensors(folder / WEIGHTS))


def write(
    folder: str | pathlib.Path, text: bytes, tensors: Mapping[str, np.ndarray]
) -> None:
    """Write the two files of a PEFT folder. Each is whole, or what it was before."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    replace_file(folder / CONFIG, text)


def techniques_of_peft() -> list[type[Adapter]]:
    """Return the recipes that PEFT's files can hold; a subclass counts as its base."""
    return [kind for kind in techniques().values() if vars(kind).get("peft")]


def technique_of(config: Mapping[str, object]) -> type[Adapter]:
    """Return the recipe that a config is of.

    Raises:
        ValueError: If it is of none.
    """
    for kind in techniques_of_peft():
        if kind.peft.is_of(config):
            return kind
    tells = {key for kind in techniques_of_peft() for key in kind.peft.settings}
    given = {key: value for key, value in config.items() if value and key in tells}
    raise ValueError(
        f"The adapter is {given} of PEFT. Read here are "
        f"{[dict(kind.peft.settings) for kind in techniques_of_peft()]}."
    )


def check_config(config: Mapping[str, object], peft: PeftFormat) -> None:
    """Check that a config asks for nothing but what is supported.

    Raises:
        ValueError: If it does.
    """
    for key, harmless in peft.starts.items():
        if config.get(key) not in harmless:
            raise ValueError(
                f"{key}={config[key]!r} is not one of {harmless}, which leave the base "
                "model's own weights as they are, and the file does not hold the "
                f"changed ones.{peft.remedy}"
            )
    # What is off is None, False or empty; so a setting of later versions is seen too.
    known = KNOWN | peft.known
    unknown = {k: v for k, v in config.items() if v and k not in known}
    if unknown:
        raise ValueError(f"The settings {unknown} of PEFT are not supported here.")
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise ValueError(f"bias={short(config['bias'])} is not known.")
    rank, alpha = (peft.arguments[name] for name in ("rank", "alpha"))
    check_rank(config.get(rank), rank)
    check_alpha(config.get(alpha), alpha)
    if dropout := peft.arguments.get("dropout"):
        dropout_rate(dropout, config.get(dropout, 0.0))
    for key, check in (("rank_pattern", check_rank), ("alpha_pattern", check_alpha)):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict):
            raise ValueError(f"{key}={short(pattern)} is not a dict.")
        for expression, value in pattern.items():
            _check_expression(key, expression)
            check(value, f"{key} of {short(expression)}")
    for key in ("target_modules", "exclude_modules"):
        names = config.get(key) or []
        if isinstance(names, str):
            _check_expression(key, names)
        else:
            _check_names(key, names)
    _check_layers(config)


def new_config(
    recipe: Adapter,
    numbers: Mapping[str, tuple[int, float]],
    targets: list[str],
    task_type: str | None,
) -> dict:
    """Return the config of an adapter that does not come from a file of PEFT's.

    Args:
        recipe: The recipe.
        numbers: Dict of a module's full name to its rank and alpha.
        targets: Names for these modules.
        task_type: PEFT's name of the model with a head, or None.
    """
    arguments = {
        key: getattr(recipe, name)
        for name, key in recipe.peft.arguments.items()
        if name not in ("rank", "alpha")
    }
    return {
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": targets,
        "task_type": task_type,
        **dict.fromkeys(recipe.peft.starts, True),
        **recipe.peft.settings,
        **arguments,
        **number_settings(recipe.peft, numbers),
    }


def number_settings(
    peft: PeftFormat, numbers: Mapping[str, tuple[int, float]]
) -> dict[str, object]:
    """Return rank and alpha, the commonest, with patterns for the modules' own."""
    config: dict[str, object] = {}
    for i, name in enumerate(("rank", "alpha")):
        own = {module: both[i] for module, both in numbers.items()}
        key = peft.arguments[name]
        config[key] = collections.Counter(own.values()).most_common(1)[0][0]
        config[f"{name}_pattern"] = {
            re.escape(module): value
            for module, value in own.items()
            if value != config[key]
        }
    return config


def _check_expression(key: str, text: str) -> None:
    try:
        parsed(text)
    except ValueError as problem:
        raise ValueError(f"{key}: {problem}") from problem


def _check_names(key: str, names: object) -> None:
    if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
        raise ValueError(f"{key}={short(names)} is not a list of names.")


def _check_layers(config: Mapping[str, object]) -> None:
    layers = config.get("layers_to_transform")
    several = layers if isinstance(layers, list) else [layers]
    if layers is not None and not all(type(each) is int for each in several):
        raise ValueError(f"layers_to_transform={short(layers)} is not whole numbers.")
    patterns = config.get("layers_pattern") or []
    patterns = [patterns] if isinstance(patterns, str) else patterns
    _check_names("layers_pattern", patterns)
    for each in patterns:
        _check_expression("layers_pattern", each)


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    file = TensorFile(path)
    for name, spec in file.specs.items():
        if spec.dtype not in KINDS:
            raise ValueError(
                f"The tensor {name!r} in {str(path)!r} has the type {spec.dtype}, none "
                f"of {KINDS}."
            )
    return file.read(file.specs)
