"""RecurrentClassifier: ULMFiT's classifier on the encoder of a language model."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.used_weights import idle_weights
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.data.word_vocabulary import checked_vocabulary
from keras_transfer.layers.concat_pooling import ConcatPooling
from keras_transfer.models.word_model import WordModel


@keras.saving.register_keras_serializable(package="keras_transfer")
class RecurrentClassifier(WordModel):
    """A text classifier on the encoder of a `RecurrentLanguageModel`, as in ULMFiT.

    `language_model.classifier(num_classes)` makes it. The states of the encoder are
    pooled by `kt.layers.ConcatPooling`, and two blocks follow:

        [last, max, mean] -> BatchNorm, dropout, Dense(units), relu
                          -> BatchNorm, dropout, Dense(num_classes)

    Padding (token id 0) changes no output, so texts may be padded to any length. With
    TensorFlow on a GPU, Keras's LSTM takes padding on the right only, as of
    `vectorizer`, and no text without words. The gradient flows through the whole text,
    so cut very long texts, for example by `vectorizer(400)`.

    It is an ordinary functional model. Its layer groups are `embedding`, `lstm_1`,
    `lstm_2` and so on, and `head`, for `kt.callbacks.GradualUnfreezing` and for
    `kt.fine_tune` with `strategy="gradual"`. The paper's rates are those of
    `kt.optimizers.discriminative` with `layer_decay=1 / 2.6`. The vocabulary is saved
    with the model: `kt.export_serving(model, path, preprocessor=model.vectorizer(400))`
    serves strings.

    Args:
        encoder: The `encoder` of a `RecurrentLanguageModel`. The classifier contains
            the encoder itself, not a copy.
        vocabulary: List of words of the encoder.
        num_classes: Int of at least 1, the number of logits.
        units: Int of at least 1, the size of the hidden layer. Defaults to 50.
        dropout: Float in [0, 1), the rate before both Dense layers. Defaults to 0.4.
        batch_norm: Bool, whether the head has BatchNormalization. Defaults to True.
        name: Name of the model.

    Input shape:
        `(batch, positions)`, token ids, where 0 is padding.

    Output shape:
        `(batch, num_classes)`, float32 logits.

    Example:
        ```python
        import keras_transfer as kt

        words = kt.data.word_vocabulary(["a good book", "a long book"])
        language_model = kt.models.RecurrentLanguageModel(words, 4, 6, 2)
        model = language_model.classifier(num_classes=2, units=5)
        ids = model.vectorizer()(["good", "a long book"])
        assert model(ids).shape == (2, 2)
        ```

    Raises:
        TypeError: If the encoder is not a functional model, or the vocabulary is not a
            list of strings.
        ValueError: If the encoder has another number of words than the vocabulary, or
            an argument is out of range.

    Reference:
        Howard and Ruder, 2018, "Universal Language Model Fine-tuning for Text
        Classification", arXiv 1801.06146, section 3.3.
    """

    def __init__(
        self,
        encoder: keras.Model,
        vocabulary: Sequence[str],
        num_classes: int,
        *,
        units: int = 50,
        dropout: float = 0.4,
        batch_norm: bool = True,
        name: str | None = None,
    ):
        words = checked_vocabulary(vocabulary)
        embedding = _embedding(encoder, words)
        num_classes = whole_number("num_classes", num_classes)
        units = whole_number("units", units)
        dropout = dropout_rate("dropout", dropout)
        policy = embedding.dtype_policy
        x = ConcatPooling(dtype=policy, name="pooling")(encoder(encoder.input))
        for place, width in enumerate((units, num_classes), start=1):
            if batch_norm:
                # A momentum of 0.99 needs more steps than few labels give.
                norm = keras.layers.BatchNormalization(
                    momentum=0.9, epsilon=1e-5, dtype=policy, name=f"norm_{place}"
                )
                x = norm(x)
            x = keras.layers.Dropout(dropout, dtype=policy, name=f"dropout_{place}")(x)
            if place == 1:
                x = keras.layers.Dense(width, "relu", dtype=policy, name="hidden")(x)
            else:
                x = keras.layers.Dense(width, dtype="float32", name="logits")(x)
        unused = Unused(idle_weights(encoder, encoder.outputs), [])
        super().__init__(encoder.input, x, unused, name)
        self.encoder = encoder
        self.num_classes = num_classes
        self._settings = {"units": units, "dropout": dropout, "batch_norm": batch_norm}
        self._words = lambda: words  # a lambda hides the words from Keras

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        return {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "vocabulary": self.vocabulary,
            "num_classes": self.num_classes,
            **self._settings,
            "name": self.name,
            **self.flags_config(),
        }


def _embedding(encoder: keras.Model, words: list[str]) -> keras.layers.Embedding:
    """Return the embedding of an encoder, which has a row for each word."""
    functional = isinstance(encoder, keras.Model) and getattr(encoder, "inputs", None)
    layers = encoder.layers if functional else []
    found = [x for x in layers if isinstance(x, keras.layers.Embedding)]
    if not found:
        raise TypeError(
            f"The encoder is a {type(encoder).__name__} without an embedding of words. "
            "Pass the `encoder` of a RecurrentLanguageModel. For other backbones, use "
            'kt.models.TransferClassifier(backbone, num_classes, pooling="concat").'
        )
    if found[0].input_dim != len(words):
        raise ValueError(
            f"The encoder has {found[0].input_dim} words, but the vocabulary has "
            f"{len(words)}. Pass the vocabulary of the language model that the encoder "
            "belongs to, or call language_model.classifier(num_classes)."
        )
    return found[0]
