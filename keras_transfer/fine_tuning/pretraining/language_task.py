"""The language model around a backbone: its inputs, its outputs and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.data.vocabulary import check_vocabulary

LONGEST = 128  # tokens of a row, as in most of BERT's own pretraining
INPUTS = {"token_ids", "padding_mask", "segment_ids", "mask_positions"}


class LanguageTask(NamedTuple):
    """A language model that shares the weights of a backbone.

    Args:
        task: The Task of keras-hub.
        network: Its functional model, from tokens to logits.
        tokenizer: The tokenizer.
        masked: Whether it predicts hidden tokens, and not the next ones.
        new_head: The layer with new weights, or None.
        length: Greatest number of tokens of a row.
    """

    task: keras.Model
    network: keras.Model
    tokenizer: Any
    masked: bool
    new_head: keras.Layer | None
    length: int

    @property
    def segment_ids(self) -> bool:
        """Whether the model takes `segment_ids`."""
        return "segment_ids" in self.network.input


def language_task(model: keras.Model, tokenizer: Any) -> LanguageTask:
    """Return the language model of a backbone, of a Task, or of a model around one.

    Args:
        model: A backbone of keras-hub, or a model with an attribute `backbone`.
        tokenizer: Tokenizer of keras-hub, or None for that of the model.

    Raises:
        TypeError: If `model` is not a Keras model, or `tokenizer` not a tokenizer.
        ValueError: If keras-hub has no language model for the backbone, the backbone is
            frozen, or there is no tokenizer.
    """
    import keras_hub

    kinds = {True: keras_hub.models.MaskedLM, False: keras_hub.models.CausalLM}
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={model!r} is not a Keras model.")
    tokenizer = _tokenizer(model, tokenizer)
    for masked, kind in kinds.items():
        if isinstance(model, kind):
            return _checked(model, tokenizer, masked, None)
    backbone = getattr(model, "backbone", model)
    if isinstance(backbone, FrozenBackbone):
        raise ValueError(
            f"The backbone of '{model.name}' is a FrozenBackbone, which cannot train. "
            "Pass its `.layer`."
        )
    # An adapter on the backbone makes its class a subclass.
    for base in type(backbone).__mro__[:-1]:
        for masked, kind in kinds.items():
            for task in _below(kind):
                if getattr(task, "backbone_cls", None) is base:
                    return _made(task, backbone, tokenizer, masked)
    raise ValueError(
        f"keras-hub has neither a masked nor a causal language model for a "
        f"{type(backbone).__name__}. Pass a backbone of BERT, RoBERTa, DistilBERT, "
        "ALBERT, DeBERTa, GPT-2, Llama or another family with one."
    )


def _made(task: type, backbone: Any, tokenizer: Any, masked: bool) -> LanguageTask:
    made = task(backbone=backbone, preprocessor=None)
    head = made.layers[-1] if masked else None
    return _checked(made, tokenizer, masked, head)


def _checked(
    task: keras.Model, tokenizer: Any, masked: bool, new_head: keras.Layer | None
) -> LanguageTask:
    network = keras.Model(task.input, task.output, name=task.name)
    names = set(task.input) if isinstance(task.input, dict) else set()
    needed = {"token_ids", "padding_mask"} | ({"mask_positions"} if masked else set())
    if not needed <= names <= INPUTS:
        raise ValueError(
            f"The inputs of {type(task).__name__} are {sorted(names)}, but only models "
            f"with {sorted(needed)}, and perhaps segment_ids, can be trained."
        )
    check_vocabulary(task.backbone, tokenizer)
    most = getattr(task.backbone, "max_sequence_length", None) or LONGEST
    length = min(most, LONGEST)
    return LanguageTask(task, network, tokenizer, masked, new_head, length)


def _tokenizer(model: keras.Model, tokenizer: Any) -> Any:
    import keras_hub

    if tokenizer is None:
        own = getattr(model, "preprocessor", None)
        tokenizer = getattr(own, "tokenizer", None) or getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            f"'{model.name}' has no preprocessor with a tokenizer. Pass `tokenizer=`, "
            "such as keras_hub.tokenizers.Tokenizer.from_preset(...)."
        )
    if not isinstance(tokenizer, keras_hub.tokenizers.Tokenizer):
        raise TypeError(
            f"The tokenizer is a {type(tokenizer).__name__}, but it must be a "
            "tokenizer of keras-hub."
        )
    return tokenizer


def _below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)
