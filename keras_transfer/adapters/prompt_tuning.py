"""PromptTuning: train the embeddings of virtual tokens before each text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.positions import position_targets
from keras_transfer.adapters.prompt_part import PromptBlock
from keras_transfer.adapters.prompt_part import PromptEmbeddings
from keras_transfer.adapters.prompt_part import PromptPositions
from keras_transfer.adapters.prompt_part import PromptSegments
from keras_transfer.adapters.targets import candidates
from keras_transfer.adapters.targets import select
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.techniques import what_fits
from keras_transfer.backbones.layer_paths import located

INITS = ("vocabulary", "text", "random")
TOKENS = re.compile(r"(?:^|/)token_embedding$")
SEGMENTS = re.compile(r"(?:^|/)segment_embedding$")
# The blocks of keras-hub whose masks and caches are known.
BLOCKS = (
    *("TransformerEncoder", "TransformerDecoder", "LlamaTransformerDecoder"),
    *("MistralTransformerDecoder", "MixtralTransformerDecoder", "Phi3Decoder"),
    *("QwenTransformerDecoder", "Qwen3TransformerDecoder", "GemmaDecoderBlock"),
)
# ALBERT calls its blocks several times.
REPEATED = re.compile(r"(?:^|/)group_\d+_inner_layer_\d+$")


@keras.saving.register_keras_serializable("keras_transfer")
class PromptTuning(Adapter):
    """Train the embeddings of virtual tokens that come before each text.

    The blocks compute with `[P; E(text)]`. P has `tokens` rows and trains, everything
    else is frozen. The virtual tokens take the positions 0 to tokens - 1 and segment 0,
    and the text the positions after them, so a text can have `tokens` fewer tokens than
    before. All tokens may see the prompt. The last block removes the prompt from the
    sequence, so outputs have the length of the text, and a pooled output is that of the
    text. In `generate()` each step computes the prompt again. Intermediate outputs, as
    of `kt.backbones.hidden_states`, contain the prompt.

    Prompt tuning trains the fewest parameters, tokens * width. In the paper it reaches
    full fine-tuning only with models of some billion parameters. The figures of a
    small model are in benchmarks/README.md. It needs a large learning rate, such as
    0.01 with Adam. `kt.adapters.merge` raises an error. When another adapter is used,
    graphs are traced again. A `tf.function` of your own keeps the prompt from its
    trace.

    PEFT calls this `PromptTuningConfig`. It pools the first token of BERT, which there
    is a virtual token, and not [CLS].

    Args:
        tokens: Number of virtual tokens, a whole number, 1 or more. Defaults to 20.
        init: Start of P. `"vocabulary"` draws rows of the model's embedding of tokens,
            `"text"` takes the rows of the tokens in `text`, and `"random"` draws from a
            normal distribution with the mean and the deviation of the embedding.
            Defaults to `"vocabulary"`.
        text: A text that describes the task, or a list of token ids, for `"text"`. As
            in PEFT, a text with fewer than `tokens` tokens is repeated, and the end of
            a longer text is cut off. Configs contain the ids. Defaults to None.
        tokenizer: Function from a text to token ids, such as a keras-hub tokenizer, or
            an object with such a `tokenizer`. Needed if `text` is a string. Special
            tokens are used only if the tokenizer adds them. Defaults to None.
        targets: None for the embedding of the tokens by its name in keras-hub, or an
            expression or a layer for this embedding. Defaults to None.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=20,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=16,
        )
        kt.adapters.PromptTuning(tokens=4).attach(backbone)
        assert [tuple(v.shape) for v in backbone.trainable_weights] == [(4, 8)]
        ```

    Raises:
        TypeError: If `text` is a string and `tokenizer` is not a function.
        ValueError: If a number is out of range, `init` is unknown, or `text` is
            missing, gives no token, or is given for another `init`.

    Reference:
        B. Lester et al., 2021, "The Power of Scale for Parameter-Efficient Prompt
        Tuning", arXiv:2104.08691.
    """

    parts = {
        keras.layers.Embedding: PromptEmbeddings,
        keras.layers.ReversibleEmbedding: PromptEmbeddings,
    }

    def __init__(
        self,
        tokens: int = 20,
        init: str = "vocabulary",
        text: str | Sequence[int] | None = None,
        tokenizer: object = None,
        targets: object = None,
    ) -> None:
        super().__init__(targets)
        self.tokens = whole_number("tokens", tokens)
        self.init = one_of("init", init, INITS)
        if (init == "text") != (text is not None):
            raise ValueError(
                f"init={init!r} and text={text!r} do not fit together. A text is used "
                "with init='text' only, and this init needs one."
            )
        self.text = None if text is None else _ids(text, tokenizer)

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the embedding of the tokens."""
        choices = candidates(model, self.parts)
        if self.targets is not None:
            why = "PromptTuning cannot adapt; it adapts an Embedding"
            found = select(model, self.targets, choices, why)
        else:
            found = [x for x in choices if TOKENS.search(x.path)]
        if len(found) != 1:
            what = [target.path for target in found] or "none"
            raise ValueError(
                f"PromptTuning needs the one embedding of tokens of {model.name!r}, "
                f"but found {what}. Name it in `targets`. The embeddings are "
                f"{[target.path for target in choices]}. {what_fits(model)}"
            )
        return found

    def fitting(self, model: keras.Layer) -> tuple[list[Target], int]:
        """Return the embedding of the tokens, which has to fit."""
        return self.find(model), 0

    def part(self, target: Target) -> Part:
        """Return the embeddings of the prompt."""
        layer = target.layer
        if layer.quantization_mode is not None or layer.mask_zero:
            why = "is quantized" if layer.quantization_mode else "makes a mask of zeros"
            raise ValueError(
                f"The embedding {target.path!r} {why}, so no prompt can be put before "
                "its outputs. Use another technique, such as kt.adapters.PrefixTuning."
            )
        beyond = [i for i in self.text or () if i >= layer.input_dim]
        if beyond:
            raise ValueError(
                f"The text has the token ids {beyond[:5]}, but {target.path!r} has "
                f"only {layer.input_dim} tokens. Use the tokenizer of this model."
            )
        return PromptEmbeddings(self.tokens, self.init, self.text or ())

    def plan(
        self,
        model: keras.Layer,
        targets: list[Target] | None = None,
        *,
        train: object = None,
    ) -> Plan:
        """Return the changes that `attach` would make, without changing `model`."""
        plan = super().plan(model, targets, train=train)
        return dataclasses.replace(plan, pairs=(*plan.pairs, *self._others(model)))

    def get_config(self) -> dict:
        """Return the constructor arguments, with token ids instead of a text."""
        names = ("tokens", "init", "text")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def _others(self, model: keras.Layer) -> list[tuple[Target, Part]]:
        """Return the parts without weights, on the layers that have to know a prompt.

        Raises:
            ValueError: If the model has no known blocks, or too few positions.
        """
        pairs, blocks = [], []
        for target in position_targets(model, self.tokens):
            pairs.append((target, PromptPositions(self.tokens)))
        for path, layer in located(model).items():
            kind = plain_of(layer).__name__
            target = Target(layer, path or layer.name)
            if kind in BLOCKS:
                _check_block(target)
                blocks.append(PromptBlock(self.tokens))
                pairs.append((target, blocks[-1]))
            elif SEGMENTS.search(path):
                pairs.append((target, PromptSegments(self.tokens)))
        _check_all_known(model, [target.path for target, _ in pairs], bool(blocks))
        blocks[-1].last = True
        return pairs


def _ids(text: object, tokenizer: object) -> list[int]:
    """Return the token ids of a text."""
    ids = text
    if isinstance(text, str):
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        if not isinstance(tokenizer, Callable):
            raise TypeError(
                f"tokenizer={tokenizer!r} is not a function, so the text {text!r} has "
                "no token ids. Pass the tokenizer of the model, or a list of token ids."
            )
        ids = tokenizer(text)
    ids = keras.ops.convert_to_numpy(ids) if not isinstance(ids, list) else ids
    ids = np.asarray(ids)
    if ids.ndim != 1 or not ids.size:
        raise ValueError(
            f"text={text!r} gives the token ids {ids.tolist()}. A prompt needs a list "
            "of at least one token id. Give a text with words that the tokenizer knows."
        )
    return [whole_number("A token id of text", each, 0) for each in ids.tolist()]


def _check_block(target: Target) -> None:
    layer, kind = target.layer, plain_of(target.layer).__name__
    if REPEATED.search(target.path):
        why = "the model calls it several times, so no block is the last one"
    elif getattr(layer, "_cross_attention_layer", None) is not None:
        why = "it also attends to an encoder"
    else:
        return
    raise ValueError(
        f"PromptTuning does not support the {kind} {target.path!r}, because {why}. Use "
        "another technique, such as kt.adapters.PrefixTuning."
    )


def _check_all_known(model: keras.Layer, known: list[str], blocks: bool) -> None:
    """Check that the model has blocks, and no block or attention of another kind."""
    others = [
        f"{path} ({plain_of(layer).__name__})"
        for path, layer in located(model).items()
        if plain_of(layer).__name__.endswith("Attention")
        and not any(path.startswith(f"{each}/") for each in known)
    ]
    if others:
        raise ValueError(
            f"PromptTuning does not support {model.name!r}, because the masks of the "
            f"layers {others[:3]} are unknown. {what_fits(model)}"
        )
    if not blocks:
        raise ValueError(
            f"PromptTuning does not support {model.name!r}, because it has none of the "
            f"known blocks {sorted(BLOCKS)}. {what_fits(model)}"
        )
