"""Check that the tensors of a PEFT file are all there and belong to the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np

from keras_transfer.adapters.adapter import Adapter
from keras_transfer.saving.peft.factors import Factors
from keras_transfer.saving.peft.files import PeftFile
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.named_modules import is_target
from keras_transfer.saving.strict_json import short

# The tasks of PEFT whose head, if any, is the head of a text classifier.
HEAD_TASKS = (None, "SEQ_CLS")
OTHER_HEAD = re.compile("For(?!SequenceClassification|ImageClassification)[A-Z]")


def check_known(keys: Iterable[str], mapping: HubMapping) -> None:
    """Check that the model has each of the weights `keys`.

    Raises:
        ValueError: If a weight is unknown.
    """
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
    elif any("position_embeddings" in key for key in unknown):
        hint = (
            "keras-hub adds the token type to the positions, so trained positions "
            "cannot be loaded. In PEFT, leave them out of modules_to_save."
        )
    raise ValueError(
        f"The file has weights for {unknown[:5]} ({len(unknown)} in all), which the "
        f"model does not have. {hint}"
    )


def check_whole(technique: type[Adapter], module: str, factors: list[Factors]) -> None:
    """Check that a module is one layer in Keras, with the same order of numbers.

    Raises:
        ValueError: If it is several layers.
    """
    both = (factors[0].inputs, factors[0].outputs)
    if len(factors) > 1 or any((x != np.arange(len(x))).any() for x in both):
        raise ValueError(
            f"Hugging Face's {module!r} is {[x.layer.name for x in factors]} in Keras. "
            f"In PEFT the {technique.__name__} of this module has weights for the "
            "module as a whole, and here each of the layers has its own. So it cannot "
            "be converted. Leave this module out of the targets."
        )


def check_targets(
    file: PeftFile, mapping: HubMapping, prefix: str, pairs: list[str]
) -> None:
    """Check that the modules `pairs` in the file are the targets of its config.

    Raises:
        ValueError: If a target has no pair, or a pair is not a target.
    """
    fits = mapping.module_of().values() if file.technique.parts else mapping.modules()
    missing = [
        module
        for module in dict.fromkeys(fits)
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


def check_task(
    config: Mapping[str, object], mapping: HubMapping, plain: Mapping
) -> None:
    """Check that a head is for text classification. Other tasks use the same names."""
    if not any(key.rpartition(".")[0] in mapping.heads for key in plain):
        return
    task, auto = config.get("task_type"), config.get("auto_mapping")
    kind = auto.get("base_model_class") if isinstance(auto, dict) else None
    if task not in HEAD_TASKS or OTHER_HEAD.search(str(kind)):
        raise ValueError(
            f"The head in the file is of another task (task_type={short(task)}, class "
            f"{short(kind)}) than classification. To load the adapter into a "
            "backbone without this head, save it in PEFT with modules_to_save=None."
        )


def check_plain(
    file: PeftFile,
    mapping: HubMapping,
    prefix: str,
    pairs: Mapping,
    plain: Mapping,
    copies: Mapping,
) -> None:
    """Check the whole weights in the file: all that it needs, and no others.

    Raises:
        ValueError: If a weight is missing, is not named, or has another shape.
    """
    config = file.config
    bias = config.get("bias", "none")
    wanted = set()
    for key in mapping.shares:
        module, _, last = key.rpartition(".")
        if module in mapping.heads:
            present = any(f"{module}.{each}" in plain for each in ("weight", "bias"))
            wanted |= {key} if present else set()
        elif (
            module in copies
            or last == "bias"
            and (bias == "all" or bias == "lora_only" and module in pairs)
        ):
            wanted.add(key)
    if missing := sorted(wanted - set(plain)):
        raise ValueError(
            f"The file lacks {missing[:5]}, which its bias={bias!r}, its targets or "
            "its head need."
        )
    # Then whole modules in the file are the adapter's own.
    owns = bias == "none" and not copies
    saved = tuple(config.get("modules_to_save") or ())
    for key, array in plain.items():
        module = key.rpartition(".")[0]
        named = owns and any(f".{prefix}{module}".endswith(f".{x}") for x in saved)
        # PEFT also saves the embeddings, at will or if the vocabulary was resized.
        words = owns and mapping.is_embedding(key) and module not in pairs
        if words and array.shape[0] != mapping.shape(key)[0]:
            raise ValueError(
                f"The file has {key!r} with {array.shape[0]} rows, but the model has "
                f"{mapping.shape(key)[0]}, so the adapter was trained with another "
                "vocabulary. Here an adapter cannot resize the embedding. Make the "
                "backbone with this vocabulary_size, from the resized base model."
            )
        if key in wanted or words or named and module not in pairs:
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
                "trained biases or norms, only the head can be a whole module."
            )
