"""The two files of a PEFT folder: read and verified, written whole or not at all."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from keras_transfer._arguments import number
from keras_transfer._whole_file import replace_file
from keras_transfer.saving.tensor_file import parse_json
from keras_transfer.saving.tensor_file import TensorFile
from keras_transfer.saving.tensor_file import write_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LARGEST_CONFIG = 1 << 20  # bytes; PEFT's own has about one thousand
# What of a LoraConfig is read here, or has no bearing on what an adapter computes.
KNOWN = {
    *("alpha_pattern", "bias", "lora_alpha", "lora_dropout", "modules_to_save"),
    *("peft_type", "r", "rank_pattern", "use_dora", "use_rslora", "task_type"),
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version"),
    *("revision", "megatron_core", "runtime_config", "qalora_group_size"),
    *("ensure_weight_tying", "loftq_config", "eva_config", "fan_in_fan_out"),
    # Which modules have a pair is told by the tensors themselves.
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    "init_lora_weights",
}
# The starts that leave the base model's own weights as they are.
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
# The types of numbers that a file may have, by safetensors' names.
KINDS = ("F16", "BF16", "F32")


@dataclasses.dataclass(frozen=True)
class PeftFile:
    """What a PEFT folder holds: the config as text and read, tensors in their dtype."""

    text: bytes
    config: Mapping[str, object]
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
        raise ValueError(f"{CONFIG} in {str(folder)!r} is no dict of settings.")
    check_config(config)
    return PeftFile(text, config, _tensors(folder / WEIGHTS))


def write(
    folder: str | pathlib.Path, text: bytes, tensors: Mapping[str, np.ndarray]
) -> None:
    """Write the two files of a PEFT folder. Each is whole, or what it was before."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    replace_file(folder / CONFIG, text)


def check_config(config: Mapping[str, object]) -> None:
    """Check that a LoraConfig asks for nothing but what is supported.

    Raises:
        ValueError: If it does.
    """
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"The adapter is a {config.get('peft_type')!r} of PEFT. Read here is "
            "'LORA' alone."
        )
    start = config.get("init_lora_weights")
    if start not in STARTS:
        raise ValueError(
            f"init_lora_weights={start!r} changes the base model's own weights, and "
            "the file does not hold the changed ones. Save it with PEFT's "
            "`path_initial_model_for_weight_conversion`, which makes a plain LoRA."
        )
    # What is off is None, False or empty; so a setting of later versions is seen too.
    unknown = {k: v for k, v in config.items() if v and k not in KNOWN}
    if unknown:
        raise ValueError(f"The settings {unknown} of PEFT are not supported here.")
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise ValueError(f"bias={config['bias']!r} is not known.")
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict):
            raise ValueError(f"{key}={pattern!r} is no dict.")
        for each in pattern:
            _check_expression(key, each)
        for value in pattern.values():
            number(key, value)
    targets = config.get("target_modules") or []
    if isinstance(targets, str):
        _check_expression("target_modules", targets)
    elif not isinstance(targets, list):
        raise ValueError(f"target_modules={targets!r} is no list.")
    for key in ("r", "lora_alpha"):
        number(key, config.get(key))
    number("lora_dropout", config.get("lora_dropout", 0.0))


def rank_and_alpha(config: Mapping[str, object], module: str) -> tuple[int, float]:
    """Return the rank and the alpha that PEFT gives to `module`, its full name."""
    found = []
    for default, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        patterns = config.get(pattern) or {}
        hits = [k for k in patterns if re.match(rf"(.*\.)?({k})$", module)]
        found.append(patterns[hits[0]] if hits else config[default])
    return found[0], found[1]


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
