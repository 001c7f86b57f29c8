"""Read, check and write the two files of a PEFT folder."""

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
from keras_transfer.adapters.lora import PAIR
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.rank_and_alpha import check_alpha
from keras_transfer.adapters.rank_and_alpha import check_rank
from keras_transfer.adapters.techniques import techniques
from keras_transfer.saving.peft.expressions import Expressions
from keras_transfer.saving.peft.expressions import parsed
from keras_transfer.saving.peft.prompt_config import check_prompt_config
from keras_transfer.saving.peft.prompt_config import is_prompt
from keras_transfer.saving.peft.prompt_config import KINDS as PROMPTS
from keras_transfer.saving.strict_json import parse_json
from keras_transfer.saving.strict_json import short
from keras_transfer.saving.tensor_file import TensorFile
from keras_transfer.saving.tensor_file import write_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LARGEST_CONFIG = 1 << 20  # bytes; a config of PEFT has about one thousand
# Settings that are read here, or that do not change what an adapter computes.
KNOWN = {
    *("modules_to_save", "task_type", "peft_version"),
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "revision"),
    *("megatron_core", "runtime_config", "ensure_weight_tying"),
    # The names of the tensors show which modules have a part.
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
}
# Settings for single modules of a technique with ranks, and their checks.
PATTERNS = {"rank_pattern": check_rank, "alpha_pattern": check_alpha}
# Why some settings are not supported.
REASONS = {
    "alora_invocation_tokens": "the pair would begin at a token of each text",
    "layer_replication": "the model would need more blocks than its backbone has",
    "target_parameters": "the pairs belong to single parameters, such as those of "
    "experts, which are not layers in Keras",
    "trainable_token_indices": "single rows of an embedding cannot train here. In "
    "PEFT, make a pair on the embedding, or name it in modules_to_save",
    "use_qalora": "the inputs of A would be averages over groups",
}
# The dtypes that a file can have, by their names in safetensors.
KINDS = ("F16", "BF16", "F32")


@dataclasses.dataclass(frozen=True)
class PeftFile:
    """The content of a PEFT folder: the config, as text and parsed, and the tensors.

    `technique` is None for a prompt or a prefix. `expressions` matches the regular
    expressions of the config in a limited number of steps.
    """

    text: bytes
    config: Mapping[str, object]
    technique: type[Adapter] | None
    tensors: Mapping[str, np.ndarray]
    expressions: Expressions = dataclasses.field(default_factory=Expressions)


def read(folder: str | pathlib.Path) -> PeftFile:
    """Return the content of a PEFT folder.

    Raises:
        FileNotFoundError: If one of its two files is missing.
        ValueError: If a file is damaged or needs an unsupported feature.
    """
    folder = pathlib.Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{str(folder)!r} has no {name}. A PEFT folder has {CONFIG} and "
                f"{WEIGHTS}. An adapter_model.bin is a pickle, which is not read "
                "because it can run code. Load it in PEFT and save it again, which "
                "writes safetensors."
            )
    if (folder / CONFIG).stat().st_size > LARGEST_CONFIG:
        raise ValueError(
            f"{CONFIG} in {str(folder)!r} is larger than {LARGEST_CONFIG:,} bytes, so "
            "PEFT did not write it."
        )
    text = (folder / CONFIG).read_bytes()
    try:
        config = parse_json(text)
    except ValueError as problem:
        raise ValueError(f"{CONFIG} in {str(folder)!r}: {problem}") from problem
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} in {str(folder)!r} is not a dict of settings.")
    if is_prompt(config):
        check_prompt_config(config)
        return PeftFile(text, config, None, _tensors(folder / WEIGHTS))
    technique = technique_of(config)
    check_config(config, technique.peft)
    return PeftFile(text, config, technique, _tensors(folder / WEIGHTS))


def write(
    folder: str | pathlib.Path, text: bytes, tensors: Mapping[str, np.ndarray]
) -> None:
    """Write the two files of a PEFT folder. After an error each old file is intact."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    replace_file(folder / CONFIG, text)


def techniques_of_peft() -> list[type[Adapter]]:
    """Return the recipes that PEFT's format supports, without their subclasses."""
    return [kind for kind in techniques().values() if vars(kind).get("peft")]


def technique_of(config: Mapping[str, object]) -> type[Adapter]:
    """Return the recipe of a config.

    Raises:
        ValueError: If no recipe fits the config.
    """
    for kind in techniques_of_peft():
        if kind.peft.is_of(config):
            return kind
    keys = {key for kind in techniques_of_peft() for key in kind.peft.settings}
    given = {key: value for key, value in config.items() if value and key in keys}
    raise ValueError(
        f"The adapter has PEFT's settings {given}, which are not supported. Supported "
        f"are {[dict(kind.peft.settings) for kind in techniques_of_peft()]}, "
        f"{' and '.join(PROMPTS.values())}."
    )


def check_config(config: Mapping[str, object], peft: PeftFormat) -> None:
    """Check that all settings of a config are supported.

    Raises:
        ValueError: If a setting is unsupported or has an invalid value.
    """
    for key, harmless in peft.starts.items():
        if config.get(key) not in harmless:
            raise ValueError(
                f"{key}={config[key]!r} is not one of {harmless}. Other values change "
                "the base model's own weights, and the file does not contain the "
                f"changed weights.{peft.remedy}"
            )
    # A setting that is off is None, False or empty. Unknown settings that are on, such
    # as settings of later versions of PEFT, raise an error.
    known = KNOWN | peft.known | (set(PATTERNS) if peft.ranked else set())
    unknown = {k: v for k, v in config.items() if v and k not in known}
    if unknown:
        why = "".join(f" {key}: {REASONS[key]}." for key in unknown if key in REASONS)
        raise ValueError(f"The settings {unknown} of PEFT are not supported here.{why}")
    if config.get("bias", "none") not in peft.biases:
        raise ValueError(
            f"bias={short(config['bias'])} of a {peft.settings['peft_type']} is not "
            f"one of {peft.biases}."
        )
    if config.get("lora_bias") and config.get("bias", "none") != "none":
        raise ValueError(
            f"lora_bias=True and bias={short(config['bias'])} are not supported "
            "together. A LoRA here trains its own biases or the model's, not both."
        )
    for argument, check in (("rank", check_rank), ("alpha", check_alpha)):
        if name := peft.arguments.get(argument):
            check(config.get(name), name)
    if dropout := peft.arguments.get("dropout"):
        dropout_rate(dropout, config.get(dropout, 0.0))
    for key, check in PATTERNS.items():
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict):
            raise ValueError(f"{key}={short(pattern)} is not a dict.")
        for expression, value in pattern.items():
            _check_expression(key, expression)
            check(value, f"{key} of {short(expression)}")
    for key in ("target_modules", "exclude_modules", "feedforward_modules"):
        names = config.get(key) or []
        if isinstance(names, str):
            _check_expression(key, names)
        else:
            _check_names(key, names)
    _check_layers(config)


def new_config(
    recipe: Adapter,
    numbers: Mapping[str, tuple[int, float]],
    targets: Mapping[str, object],
    task_type: str | None,
) -> dict:
    """Return the config of an adapter that was not loaded from a PEFT folder.

    Args:
        recipe: The recipe.
        numbers: Dict of a module's full name to its rank and alpha.
        targets: The settings that name these modules.
        task_type: PEFT's name of the task, or None for a model without a head.
    """
    arguments = {key: getattr(recipe, x) for x, key in recipe.peft.arguments.items()}
    if arguments.get("bias") == PAIR:
        arguments |= {"bias": "none", "lora_bias": True}
    return {
        "base_model_name_or_path": None,
        "inference_mode": True,
        "task_type": task_type,
        **targets,
        **dict.fromkeys(recipe.peft.starts, True),
        **recipe.peft.settings,
        **arguments,
        **number_settings(recipe.peft, numbers),
    }


def number_settings(
    peft: PeftFormat, numbers: Mapping[str, tuple[int, float]]
) -> dict[str, object]:
    """Return the most common rank and alpha, and patterns for modules that differ."""
    config: dict[str, object] = {}
    if not peft.ranked:
        return config
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
        raise ValueError(
            f"layers_to_transform={short(layers)} must be a whole number or a list of "
            "whole numbers."
        )
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
                f"The tensor {name!r} in {str(path)!r} has the dtype {spec.dtype}, not "
                f"one of {KINDS}."
            )
    return file.read(file.specs)
