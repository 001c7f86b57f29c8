"""RecurrentLanguageModel: the AWD-LSTM, which ULMFiT pretrains on text."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.data.word_vocabulary import checked_vocabulary
from keras_transfer.models.carried_state import CarriedState
from keras_transfer.models.language_model_layers import Bias
from keras_transfer.models.language_model_layers import Penalties
from keras_transfer.models.new_vocabulary import check_overlap
from keras_transfer.models.new_vocabulary import rows_of
from keras_transfer.models.perplexity import PADDING
from keras_transfer.models.perplexity import per_word
from keras_transfer.models.perplexity import Perplexity
from keras_transfer.models.recurrent_classifier import RecurrentClassifier
from keras_transfer.models.recurrent_encoder import dropout_rates
from keras_transfer.models.recurrent_encoder import locked_dropout
from keras_transfer.models.recurrent_encoder import lstms
from keras_transfer.models.recurrent_encoder import make_encoder
from keras_transfer.models.recurrent_encoder import run_encoder
from keras_transfer.models.word_model import WordModel

STREAMS = {"token_ids", "restart"}


@keras.saving.register_keras_serializable(package="keras_transfer")
class RecurrentLanguageModel(WordModel):
    """A recurrent model that predicts the next word: the AWD-LSTM.

    Texts without labels teach a language model what a task with few labels cannot.
    ULMFiT has three steps: train this model on general text, fine-tune it on the text
    of the task (`with_vocabulary`), and put a head on its encoder (`classifier`).

    The encoder looks up the words, and runs `num_layers` LSTMs. The logits are the
    products of the last outputs and the embedding, which is shared (a tied softmax),
    plus a bias. Each place has its own dropout, and all masks hold for a whole batch
    of sequences: `"embedding"` drops whole words, `"input"`, `"hidden"` and `"output"`
    drop features before, between and after the LSTMs at all positions of a row, and
    `"recurrent"` drops recurrent weights. With the outputs h_t of the last LSTM and
    their values d_t after dropout, the loss of a training step is

        cross-entropy + alpha mean(d_t^2) + beta mean((h_t+1 - h_t)^2)

    With batches of `kt.data.language_model_batches`, each batch begins with the last
    states of the batch before, and the gradient ends at the beginning of the batch
    (truncated back-propagation through time). Training and evaluation carry separate
    states. They are not saved, because each pass over the data restarts them. Plain
    token ids, as in `predict`, start with zeros and may have any batch size.

    `compile` needs no loss. `fit` and `evaluate` log the `perplexity`. The layer groups
    are `embedding`, `lstm_1`, `lstm_2` and so on, and `head` (the bias). Several
    replicas cannot carry states.

    Args:
        vocabulary: List of words, as `kt.data.word_vocabulary` returns it. It is saved
            with the model.
        embedding_dim: Int of at least 1, the size of the embedding and of the last
            LSTM. Defaults to 400.
        units: Int of at least 1, the units of all other LSTMs. Defaults to 1150.
        num_layers: Int of at least 2, the number of LSTMs. Defaults to 3.
        dropout: Float of 0 or more, a factor of the paper's rates, which are embedding
            0.05, input 0.4, recurrent 0.5, hidden 0.3 and output 0.4; or a dict of
            rates of these places. Defaults to 1.0.
        activation_penalty: Float of 0 or more, alpha. Defaults to 2.0.
        slowness_penalty: Float of 0 or more, beta. Defaults to 1.0.
        batch_size: Int of at least 1, the rows of batches that carry states. Defaults
            to 32.
        **kwargs: `name` and `dtype`, as for every layer. The logits are float32.

    Input shape:
        `(batch, positions)`, token ids, where 0 is padding; or the dicts of
        `kt.data.language_model_batches`.

    Output shape:
        `(batch, positions, words)`, the logits of the next word at each position.

    Example:
        ```python
        import keras_transfer as kt

        texts = ["the plot is good", "the book is long"] * 4
        words = kt.data.word_vocabulary(texts)
        model = kt.models.RecurrentLanguageModel(words, 4, 6, 2, batch_size=2)
        model.compile("adam")
        batches = kt.data.language_model_batches(texts, words, 2, sequence_length=5)
        history = model.fit(batches, shuffle=False, verbose=0)
        assert history.history["perplexity"][0] < 2 * len(words)
        classifier = model.classifier(num_classes=2)
        ```

    Raises:
        TypeError: If the vocabulary is not a list of strings.
        ValueError: If the vocabulary or a number is not valid, in `compile` if the loss
            is not a cross-entropy of logits, and in `fit` if the batches have another
            size than `batch_size` or another form.

    Reference:
        Merity, Keskar and Socher, 2018, "Regularizing and Optimizing LSTM Language
        Models", arXiv 1708.02182; Howard and Ruder, 2018, "Universal Language Model
        Fine-tuning for Text Classification", arXiv 1801.06146.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        embedding_dim: int = 400,
        units: int = 1150,
        num_layers: int = 3,
        *,
        dropout: float | Mapping[str, float] = 1.0,
        activation_penalty: float = 2.0,
        slowness_penalty: float = 1.0,
        batch_size: int = 32,
        **kwargs: Any,
    ):
        words = checked_vocabulary(vocabulary)
        sizes = {
            "embedding_dim": whole_number("embedding_dim", embedding_dim),
            "units": whole_number("units", units),
            "num_layers": whole_number(
                "num_layers",
                num_layers,
                2,
                why="the last LSTM has the embedding's size",
            ),
        }
        rates = dropout_rates(dropout)
        penalties = {
            "activation_penalty": number("activation_penalty", activation_penalty, 0),
            "slowness_penalty": number("slowness_penalty", slowness_penalty, 0),
        }
        batch_size = whole_number("batch_size", batch_size)
        name, dtype = kwargs.pop("name", None), kwargs.pop("dtype", None)
        if kwargs:
            raise TypeError(
                f"RecurrentLanguageModel has no arguments {sorted(kwargs)}. The other "
                "arguments are name and dtype."
            )
        dtype = keras.dtype_policies.get(dtype)
        encoder = make_encoder(len(words), **sizes, rates=rates, dtype=dtype)
        output_dropout = locked_dropout(rates["output"], dtype, "output_dropout")
        embedding = encoder.get_layer("embedding")
        head = Bias(name="head", dtype="float32")
        x = embedding(output_dropout(encoder(encoder.input)), reverse=True)
        super().__init__(encoder.input, head(x), Unused([], []), name)
        self.input_spec = None  # the spec of one input would reject carried batches
        self.encoder = encoder
        self._output_dropout, self._head = output_dropout, head
        self._penalties = Penalties(*penalties.values())
        self._arguments = sizes | {"dropout": rates} | penalties
        self.batch_size = batch_size
        self._perplexity = Perplexity()
        # Lambdas hide these from Keras: words are not layers, states are not weights.
        self._words = lambda: words
        carried = CarriedState(batch_size, [each.units for each in lstms(encoder)])
        self._carried = lambda: carried

    def classifier(self, num_classes: int, **settings: Any) -> RecurrentClassifier:
        """Return a classifier on the encoder of this model, which it shares.

        Args:
            num_classes: Int of at least 1, the number of logits.
            **settings: Other arguments of `kt.models.RecurrentClassifier`.
        """
        words = self._words()
        return RecurrentClassifier(self.encoder, words, num_classes, **settings)

    def with_vocabulary(
        self, vocabulary: Sequence[str], *, batch_size: int | None = None
    ) -> RecurrentLanguageModel:
        """Return a copy with other words, to fine-tune it on the text of a task.

        Words of both vocabularies keep their embedding and bias. New words get the mean
        of all words. All other weights are copied. This model does not change.

        Args:
            vocabulary: List of words of the texts of the task.
            batch_size: Int, the batch size of the copy. Defaults to None, the same.

        Raises:
            ValueError: If the vocabularies have no word in common, which means that
                they were made in different ways.
        """
        words, new_words = self._words(), checked_vocabulary(vocabulary)
        check_overlap(words, new_words)
        config = self.get_config() | {"vocabulary": new_words}
        if batch_size is not None:
            config["batch_size"] = batch_size
        copy = type(self).from_config(config)
        layers = self.encoder.get_layer("embedding"), self._head
        of_words = {id(v) for layer in layers for v in layer.weights}
        for weight, target in zip(self.weights, copy.weights, strict=True):
            value = _keras.value(weight)
            if id(weight) in of_words and value.shape[:1] == (len(words),):
                value = rows_of(value, words, new_words)
            target.assign(value)
        return copy

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any
    ) -> None:
        """Configure the training, as for every model, with the cross-entropy as loss.

        Args:
            optimizer: As in `keras.Model.compile`.
            loss: Defaults to None, the cross-entropy of the words without padding.
            **kwargs: Other arguments of `keras.Model.compile`.
        """
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=PADDING
            )
        has_config = isinstance(loss, keras.losses.Loss)
        logits = has_config and loss.get_config().get("from_logits", True)
        if isinstance(loss, str) or has_config and not logits:
            raise ValueError(
                f"The loss is {loss!r}, which takes probabilities, but this model "
                "gives logits. Leave out the loss, or pass keras.losses."
                "SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)."
            )
        super().compile(optimizer, loss, **kwargs)

    def compile_from_config(self, config: dict) -> None:
        """Compile a loaded model as it was compiled when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> object:
        """Return the logits, and carry the states if the input has `"restart"`."""
        carried, tokens, restart = self._carried(), inputs, None
        if isinstance(inputs, dict):
            tokens, restart = self._read(inputs)
        if len(tokens.shape) != 2:
            raise ValueError(
                f"The token ids have the shape {tuple(tokens.shape)}, but must be "
                "(batch, positions). For one text, pass ids[None]."
            )
        states = None if restart is None else carried.read(restart, training)
        x, states = run_encoder(self.encoder, tokens, states, training)
        if restart is not None:
            carried.write(states, training)
        dropped = self._output_dropout(x, training=training)
        if training:
            self._penalties(x, dropped, mask=ops.not_equal(tokens, PADDING))
        embedding = self.encoder.get_layer("embedding")
        return self._head(embedding(dropped, reverse=True))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the loss, plus the penalties in training."""
        sample_weight = per_word(sample_weight, y)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics, with the perplexity."""
        sample_weight = per_word(sample_weight, y)
        self._perplexity.update_state(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """The variables that are not trained, with the carried states."""
        carried = getattr(self, "_carried", None)
        states = carried().variables if carried else []
        return [*super().non_trainable_variables, *states]

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        policy = self.encoder.get_layer("embedding").dtype_policy
        return {
            "vocabulary": self.vocabulary,
            **self._arguments,
            "batch_size": self.batch_size,
            "dtype": keras.dtype_policies.serialize(policy),
            "name": self.name,
            **self.flags_config(),
        }

    def _read(self, inputs: dict) -> tuple:
        if set(inputs) != STREAMS:
            raise ValueError(
                f"The input is a dict with the keys {sorted(inputs)}, but must have "
                f"{sorted(STREAMS)}. Pass the batches of kt.data."
                "language_model_batches, or plain token ids (batch, positions)."
            )
        tokens, restart = inputs["token_ids"], inputs["restart"]
        if tokens.shape[0] not in (None, self.batch_size):
            raise ValueError(
                f"The batch has {tokens.shape[0]} rows, but the model carries the "
                f"states of batch_size={self.batch_size} streams from batch to batch. "
                "Pass batches of this size, or make the model, or a copy by "
                f"with_vocabulary, with batch_size={tokens.shape[0]}. Under a strategy "
                "with several replicas no state can be carried: train on one device."
            )
        return tokens, restart
