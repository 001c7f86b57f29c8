"""Check adapter_config.json of a prompt or a prefix of Hugging Face PEFT."""

from __future__ import annotations

from collections.abc import Mapping

from keras_transfer._arguments import whole_number
from keras_transfer.saving.strict_json import short

# The name of the one tensor in adapter_model.safetensors.
TENSOR = "prompt_embeddings"
# Name of a recipe -> `peft_type`.
KINDS = {"PromptTuning": "PROMPT_TUNING", "PrefixTuning": "PREFIX_TUNING"}
# Settings that are read, or that do not change what a trained adapter computes. The
# file of a prefix with a network has the outputs of the network.
KNOWN = {
    *("peft_type", "task_type", "num_virtual_tokens", "token_dim", "num_layers"),
    *("num_attention_heads", "num_transformer_submodules", "auto_mapping"),
    *("base_model_name_or_path", "inference_mode", "revision", "peft_version"),
    *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"),
    *("tokenizer_kwargs", "prefix_projection", "encoder_hidden_size", "init_weights"),
}
TASKS = (None, "CAUSAL_LM", "FEATURE_EXTRACTION")


def is_prompt(config: Mapping[str, object]) -> bool:
    """Return whether a config is of a prompt or a prefix."""
    return config.get("peft_type") in KINDS.values()


def check_prompt_config(config: Mapping[str, object]) -> None:
    """Check that all settings are supported.

    Raises:
        ValueError: If a setting is unsupported or has an invalid value.
    """
    unknown = {k: v for k, v in config.items() if v and k not in KNOWN}
    if unknown:
        raise ValueError(f"The settings {unknown} of PEFT are not supported here.")
    whole_number("num_virtual_tokens", config.get("num_virtual_tokens"))
    if config.get("num_transformer_submodules") not in (None, 1):
        raise ValueError(
            f"num_transformer_submodules={short(config['num_transformer_submodules'])} "
            "is a prompt of an encoder and a decoder. Only 1 is supported."
        )
    if config.get("task_type") not in TASKS:
        raise ValueError(
            f"task_type={short(config['task_type'])} is not one of {TASKS}. PEFT pools "
            "the first virtual token for other tasks, and their head is not read."
        )
