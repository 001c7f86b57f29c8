"""PEFT's files of prompts and prefixes: their config, and one tensor for all layers."""

from __future__ import annotations

import json
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.attention_layers import attention_targets
from keras_transfer.adapters.attention_layers import heads_of
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.positions import position_targets
from keras_transfer.adapters.prefix_part import PrefixPart
from keras_transfer.adapters.prefix_tuning import PrefixTuning
from keras_transfer.adapters.prompt_tuning import PromptTuning
from keras_transfer.adapters.switching import places
from keras_transfer.adapters.targets import Target
from keras_transfer.saving.peft.hub_mapping import hub_backbone
from keras_transfer.saving.peft.prompt_config import KINDS
from keras_transfer.saving.peft.prompt_config import TENSOR

# The backbones of which a prompt and a prefix were compared with PEFT in PyTorch.
COMPARED = ("BertBackbone", "GPT2Backbone", "LlamaBackbone", "Llama3Backbone")
# The layer of an attention layer that turns its queries and keys by their positions.
ROTATION = "rotary_embedding_layer"


def prompt_plan(
    model: keras.Model, config: Mapping[str, object], tensors: Mapping[str, np.ndarray]
) -> tuple[Plan, dict[str, dict[str, np.ndarray]]]:
    """Return the plan of a PEFT file's prompt or prefix, and its values by path.

    Raises:
        ValueError: If the file does not fit the model.
    """
    check_compared(model)
    if others := sorted(set(tensors) - {TENSOR}):
        raise ValueError(
            f"The file has the tensors {others[:5]}. Of a prompt or a prefix only "
            f"{TENSOR!r} is read, and no head. In PEFT, train it for "
            "task_type='FEATURE_EXTRACTION' or 'CAUSAL_LM'."
        )
    tensor = tensors[TENSOR].astype("float32")
    tokens = config["num_virtual_tokens"]
    if config["peft_type"] == "PROMPT_TUNING":
        plan = PromptTuning(tokens, init="random").plan(model)
        target = plan.pairs[0][0]
        _expect(tensor, (tokens, target.layer.output_dim))
        return plan, {target.path: {"prompt_embeddings": tensor}}
    targets = attention_targets(model)[0]
    shape = _prefix_shape(tokens, targets)
    _check_sizes(config, targets)
    _expect(tensor, (tokens, int(np.prod(shape[1:]))))
    shift = bool(position_targets(model, tokens))
    plan = PrefixTuning(tokens, shift_positions=shift).plan(model)
    layers = tensor.reshape(shape).transpose(1, 0, 2, 3)
    values = {
        target.path: {
            "prefix_keys": _turned(target.layer, layers[2 * i], -tokens),
            "prefix_values": layers[2 * i + 1],
        }
        for i, target in enumerate(targets)
    }
    return plan, values


def prompt_written(
    model: keras.Model, name: str, recipe: Adapter, task_type: str | None
) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return the text of adapter_config.json and the tensor of a prompt or a prefix.

    Raises:
        ValueError: If PEFT would compute other outputs.
    """
    check_compared(model)
    if task_type not in (None, "CAUSAL_LM", "FEATURE_EXTRACTION"):
        raise ValueError(
            f"task_type={task_type!r} is not supported for a {type(recipe).__name__}, "
            "because its head is not written, and PEFT pools the first virtual token. "
            "Use 'CAUSAL_LM' or 'FEATURE_EXTRACTION'."
        )
    parts = [(Target(x, path), part) for path, x, part in places(model, name)]
    parts = [pair for pair in parts if pair[1].named_weights]
    targets = attention_targets(model)[0]
    config = _config(model, recipe, targets, task_type)
    if isinstance(recipe, PromptTuning):
        tensor = _keras.value(parts[0][1].prompt_embeddings)
        return _text(config), {TENSOR: tensor.astype("float32")}
    _check_prefix(model, recipe, parts, targets)
    of = {id(target.layer): part for target, part in parts}
    pairs = [(x.layer, of[id(x.layer)]) for x in targets]
    rows = []
    for layer, part in pairs:
        keys, values = (_keras.value(x) for x in (part.prefix_keys, part.prefix_values))
        rows += [_turned(layer, keys, recipe.tokens), values]
    tensor = np.stack(rows, 1).reshape(recipe.tokens, -1)
    return _text(config), {TENSOR: np.ascontiguousarray(tensor, "float32")}


def check_compared(model: keras.Model) -> None:
    """Check that the backbone of `model` computes a prompt as Hugging Face's does.

    Raises:
        ValueError: If this is unknown.
    """
    kinds = {kind.__name__ for kind in type(hub_backbone(model)).__mro__}
    if not kinds & set(COMPARED):
        raise ValueError(
            f"PEFT's prompts and prefixes are read and written only for "
            f"{', '.join(COMPARED)}, where the outputs were compared. This model has a "
            f"{type(hub_backbone(model)).__name__}. Use kt.save_adapter without PEFT's "
            "format."
        )


def _config(
    model: keras.Model, recipe: Adapter, targets: list[Target], task_type: str | None
) -> dict[str, object]:
    heads = heads_of(targets[0])
    prefix = isinstance(recipe, PrefixTuning)
    backbone = hub_backbone(model)
    own = {
        "peft_type": KINDS[type(recipe).__name__],
        "num_virtual_tokens": recipe.tokens,
        "num_layers": len(targets),
        "num_attention_heads": heads.heads if prefix else _query_heads(backbone),
        "token_dim": heads.heads * heads.of_key if prefix else backbone.hidden_dim,
        "num_transformer_submodules": 1,
    }
    if prefix:
        own |= {"prefix_projection": False, "encoder_hidden_size": own["token_dim"]}
    else:
        own |= {"prompt_tuning_init": "RANDOM"}
    return own | {
        "base_model_name_or_path": None,
        "inference_mode": True,
        "task_type": task_type or "FEATURE_EXTRACTION",
    }


def _query_heads(backbone: keras.Model) -> int:
    return getattr(backbone, "num_query_heads", None) or backbone.num_heads


def _check_prefix(
    model: keras.Model,
    recipe: PrefixTuning,
    parts: list[tuple[Target, PrefixPart]],
    targets: list[Target],
) -> None:
    if recipe.projection is not None:
        raise ValueError(
            "PEFT's file has the keys and values of a prefix, not its network. Call "
            "kt.adapters.fold_projection(model) first."
        )
    if {id(x.layer) for x, _ in parts} != {id(x.layer) for x in targets}:
        raise ValueError(
            f"The prefix is on {len(parts)} of {len(targets)} attention layers, but in "
            "PEFT it is on all. Leave `targets` out."
        )
    if position_targets(model, recipe.tokens) and not recipe.shift_positions:
        raise ValueError(
            "In PEFT the positions of the text begin after the prefix, so PEFT would "
            "compute other outputs. Train the prefix with "
            "PrefixTuning(shift_positions=True)."
        )


def _check_sizes(config: Mapping[str, object], targets: list[Target]) -> None:
    heads = heads_of(targets[0])
    own = {
        "num_layers": len(targets),
        "num_attention_heads": heads.heads,
        "token_dim": heads.heads * heads.of_key,
    }
    for key, value in own.items():
        if config.get(key) != value:
            raise ValueError(
                f"The prefix in the file is for {key}={config.get(key)!r}, but the "
                f"model has {value}. Load it into the model that it was trained on."
            )


def _prefix_shape(tokens: int, targets: list[Target]) -> tuple[int, ...]:
    sizes = {heads_of(target) for target in targets}
    heads = next(iter(sizes))
    if len(sizes) > 1 or heads.of_key != heads.of_value:
        raise ValueError(
            f"The attention layers have keys and values of different sizes, {sizes}. "
            "PEFT's files have one size."
        )
    return tokens, 2 * len(targets), heads.heads, heads.of_key


def _expect(tensor: np.ndarray, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(
            f"{TENSOR!r} has the shape {tensor.shape} in the file, but the config and "
            f"the model require {shape}."
        )


def _turned(layer: keras.Layer, keys: np.ndarray, positions: int) -> np.ndarray:
    """Return keys (token, head, feature) for texts that begin `positions` later.

    A rotary attention depends only on the difference of two positions. PEFT's text
    begins after the prefix and ours at 0, so PEFT's keys are turned back.
    """
    rotation = getattr(layer, ROTATION, None)
    if rotation is None:
        return keys
    turned = rotation(ops.convert_to_tensor(keys[:, None]), start_index=positions)
    return ops.convert_to_numpy(turned)[:, 0].astype("float32")


def _text(config: Mapping[str, object]) -> bytes:
    return json.dumps(config, indent=2, sort_keys=True).encode()
