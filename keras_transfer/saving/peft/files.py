"""The two files of a PEFT folder: read and verified, written whole or not at all."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from keras_transfer._arguments import number
from keras_transfer._whole_file import replace_file
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter import techniques
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.saving.strict_json import parse_json
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
    """What a PEFT folder holds: the config as text and read, tensors in their dtype."""

    text: bytes
    config: Mapping[str, object]
    technique: type[Adapter]
    tensors: Mapping[str, np.ndarray]


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
        raise ValueError(f"bias={config['bias']!r} is not known.")
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict):
            raise ValueError(f"{key}={pattern!r} is not a dict.")
        for expression in pattern:
            _check_expression(key, expression)
        for value in pattern.values():
            number(key, value)
    targets = config.get("target_modules") or []
    if isinstance(targets, str):
        _check_expression("target_modules", targets)
    elif not isinstance(targets, list):
        raise ValueError(f"target_modules={targets!r} is not a list.")
    for name in ("rank", "alpha"):
        number(peft.arguments[name], config.get(peft.arguments[name]))
    if dropout := peft.arguments.get("dropout"):
        number(dropout, config.get(dropout, 0.0))


def rank_and_alpha(
    config: Mapping[str, object], peft: PeftFormat, module: str
) -> tuple[int, float]:
    """Return the rank and the alpha that PEFT gives to `module`, its full name."""
    numbers = list(peft.rank_and_alpha(config))
    for i, key in enumerate(("rank_pattern", "alpha_pattern")):
        for expression, own in reversed((config.get(key) or {}).items()):
            if re.match(rf"(.*\.)?({expression})$", module):
                numbers[i] = own  # of several the first one counts
    return numbers[0], numbers[1]


def new_config(
    recipe: Adapter, numbers: Mapping[str, tuple[int, float]], task_type: str | None
) -> dict:
    """Return the config of an adapter that does not come from a file of PEFT's.

    Args:
        recipe: The recipe.
        numbers: Dict of a module's full name to its rank and alpha.
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
        "target_modules": list(numbers),
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
        re.compile(text)
    except re.error as problem:
        raise ValueError(
            f"{key} has {text!r}, which is no regular expression: {problem}."
        ) from problem


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    file = TensorFile(path)
    for name, spec in file.specs.items():
        if spec.dtype not in KINDS:
            raise ValueError(
                f"The tensor {name!r} in {str(path)!r} has the type {spec.dtype}, none "
                f"of {KINDS}."
            )
    return file.read(file.specs)
