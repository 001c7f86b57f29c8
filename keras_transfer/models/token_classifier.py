"""TokenClassifier: a tag for each word of a sentence, from any text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import unique_names
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.sequence_output import sequence_output
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.data.tagging_preprocessor import TaggingPreprocessor
from keras_transfer.data.token_lengths import choose_boundaries
from keras_transfer.data.vocabulary import check_vocabulary
from keras_transfer.data.word_pieces import INPUTS
from keras_transfer.data.word_pieces import POSITIONS
from keras_transfer.models.backbone_model import BackboneModel

LENGTHS = 6  # to which the sentences of one call of `tag` are padded, at most
SPECIAL = 2  # tokens at the start and at the end
BATCH_SIZE = 32
LONGEST = 512


@keras.saving.register_keras_serializable(package="keras_transfer")
class TokenClassifier(BackboneModel):
    """Tags the words of sentences, such as the names of entities in them.

    `logits_w = W dropout(h_f(w)) + b`, where `h` are the outputs of a text encoder and
    `f(w)` is the position of the first token of word `w`. The other tokens of a word
    have no output, so there is no label to invent for them. A model on BERT is what
    other libraries call token classification.

    It is an ordinary functional model with one more input, `word_positions`. With a
    `tokenizer`, its `word_preprocessor` makes inputs and labels from words and tags,
    and `tag` takes words. Train it by `fit` or `kt.fine_tune`, on
    `word_preprocessor.batches(...)`. Padding has weight 0. Metrics leave it out in
    `compile(weighted_metrics=...)`. A loss with
    `reduction="mean_with_sample_weight"` is the mean over words. The default reduction
    also divides by the padding, which only changes the scale of the loss.

    Adapters, layer groups, frozen backbones and discriminative rates work as in a
    `TransferClassifier`. `kt.export_serving` exports it with raw strings, and returns
    the words next to their labels.

    Args:
        backbone: Text encoder of keras-hub, or a `FrozenBackbone` of one. Its inputs
            are some of `token_ids`, `padding_mask` and `segment_ids`.
        tags: Names of the tags, in the order of the logits, such as `["O", "B-PER",
            "I-PER"]`.
        tokenizer: Tokenizer of keras-hub that fits the backbone. Defaults to None: no
            `word_preprocessor`, and inputs of your own.
        sequence_length: Greatest number of tokens of a sentence. Defaults to None: the
            number of positions of the backbone, at most 512.
        dropout: Float in [0, 1), the dropout rate before the last layer. Defaults to
            0.0.
        dtype: Dtype policy of the dropout. Defaults to None, the policy of the
            backbone. The logits are always float32.
        name: Name of the model.

    Input shape:
        A dictionary: the inputs of the backbone `(batch, tokens)`, and `word_positions`
        `(batch, words)`, int32: the position of the first token of each word, and -1
        for padding.

    Output shape:
        `(batch, words, tags)`.

    Example:
        ```python
        import keras
        import keras_hub
        import keras_transfer as kt

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "sing", "##s"]
        tokenizer = keras_hub.models.BertTokenizer(vocabulary=words, lowercase=True)
        backbone = keras_hub.models.BertBackbone(8, 1, 2, 8, 16, max_sequence_length=16)
        model = kt.models.TokenClassifier(backbone, ["O", "PER"], tokenizer=tokenizer)
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        )
        model.compile("adam", loss, weighted_metrics=["accuracy"])
        sentences, tags = [["Ada", "sings"], ["Ada"]], [["PER", "O"], ["PER"]]
        data = model.word_preprocessor.batches(sentences, tags, batch_size=2)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert [len(each) for each in model.tag(sentences)] == [2, 1]
        ```

    Raises:
        TypeError: If the backbone is not a model, or is a Task that already has a head,
            or `tokenizer` is not a tokenizer of keras-hub.
        ValueError: If the backbone has other inputs or no output for each token, if the
            tokenizer has more tokens than the backbone, or if another argument is out
            of range.

    Reference:
        Devlin et al., 2019, "BERT: Pre-training of Deep Bidirectional Transformers for
        Language Understanding", arXiv:1810.04805, section 5.3.
    """

    def __init__(
        self,
        backbone: keras.Model | FrozenBackbone,
        tags: Sequence[str],
        *,
        tokenizer: keras.Layer | None = None,
        sequence_length: int | None = None,
        dropout: float = 0.0,
        dtype: object = None,
        name: str | None = None,
    ):
        tags = unique_names("tags", tags)
        dropout_rate("dropout", dropout)
        inputs, tokens, unused = sequence_output(backbone)
        network = unwrap(backbone)
        _check_inputs(network, inputs)
        preprocessor = None
        if tokenizer is not None:
            preprocessor = TaggingPreprocessor(
                tokenizer,
                tags,
                sequence_length=_length(network, sequence_length),
                segment_ids="segment_ids" in inputs,
            )
            check_vocabulary(network, tokenizer)
        elif sequence_length is not None:
            raise ValueError(
                f"sequence_length={sequence_length} has no effect without a tokenizer. "
                "Pass `tokenizer=`, or leave sequence_length out."
            )
        positions = keras.Input((None,), dtype="int32", name=POSITIONS)
        first = ops.expand_dims(ops.maximum(positions, 0), -1)
        x = ops.take_along_axis(tokens, first, axis=1)
        if dtype is None:
            dtype = network.dtype_policy
        x = keras.layers.Dropout(dropout, dtype=dtype, name="dropout")(x)
        logits = keras.layers.Dense(len(tags), dtype="float32", name="logits")
        super().__init__({**inputs, POSITIONS: positions}, logits(x), unused, name)
        self.backbone = backbone
        self.tags = tags
        self.tokenizer = tokenizer  # Keras saves its vocabulary with the weights
        self.word_preprocessor = preprocessor
        remember_class_names(self, tags)

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return the most probable tag of each word.

        A sentence that is longer than `sequence_length` is tagged in parts, so each
        word gets a tag.

        Args:
            sentences: Lists of words.

        Returns:
            Lists of tags, one for each word.

        Raises:
            TypeError: If a sentence is a string, or a word is not a string.
            ValueError: If the model has no tokenizer, or a sentence or a word is empty.
        """
        if self.word_preprocessor is None:
            raise ValueError(
                f"'{self.name}' has no tokenizer, so it cannot read words. Make it "
                "with tokenizer=, or call predict() on token ids."
            )
        parts, origins = self.word_preprocessor.windows(sentences)
        x = self.word_preprocessor.encode(parts)
        found: list[list[str]] = [[] for _ in sentences]
        numbers = self._numbers(x)
        for part, origin, row in zip(parts, origins, numbers, strict=True):
            found[origin] += [self.tags[number] for number in row[: len(part)]]
        return found

    def _numbers(self, x: dict[str, np.ndarray]) -> np.ndarray:
        """Return the number of the tag of each word, computed with little padding."""
        lengths = x["padding_mask"].sum(1)
        boundaries = choose_boundaries(lengths, LENGTHS)
        bucket = np.searchsorted(boundaries, lengths)
        found = np.zeros(x[POSITIONS].shape, "int64")
        for number in np.unique(bucket):
            rows, length = np.flatnonzero(bucket == number), boundaries[number]
            batch = {name: each[rows, :length] for name, each in x.items()}
            logits = self.predict(batch, batch_size=BATCH_SIZE, verbose=0)
            found[rows, : logits.shape[1]] = logits.argmax(-1)
        return found

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        dropout, own = self.get_layer("dropout"), self.word_preprocessor
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "tags": list(self.tags),
            "tokenizer": own and keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": own and own.sequence_length,
            "dropout": dropout.rate,
            "dtype": keras.dtype_policies.serialize(dropout.dtype_policy),
            "name": self.name,
            **self.flags_config(),
        }


def _check_inputs(network: keras.Model, inputs: object) -> None:
    names = list(inputs) if isinstance(inputs, dict) else []
    if "token_ids" not in names or not set(names) <= set(INPUTS):
        raise ValueError(
            f"The inputs of '{network.name}' are {names or 'not a dictionary'}, but a "
            f"TokenClassifier needs a text encoder with token_ids, and with no other "
            f"inputs than {list(INPUTS)}."
        )


def _length(network: keras.Model, sequence_length: int | None) -> int:
    """Return the greatest number of tokens, checked against the backbone."""
    most = getattr(network, "max_sequence_length", None)
    if sequence_length is None:
        return min(most or LONGEST, LONGEST)
    if most is not None and sequence_length > most:
        raise ValueError(
            f"sequence_length={sequence_length} is above the {most} positions of "
            f"'{network.name}'. Lower it."
        )
    return sequence_length
