"""continue_pretraining: train a language model further, on unlabeled target texts."""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.used_weights import idle_weights
from keras_transfer.data.epochs import Clock
from keras_transfer.data.pretraining_batches import held_out
from keras_transfer.data.pretraining_batches import PretrainingBatches
from keras_transfer.data.texts import checked_texts
from keras_transfer.data.token_masks import TokenMasks
from keras_transfer.data.token_rows import padded_groups
from keras_transfer.data.token_rows import token_rows
from keras_transfer.data.token_rows import TokenRows
from keras_transfer.fine_tuning.pretraining.language_task import language_task
from keras_transfer.fine_tuning.pretraining.language_task import LanguageTask
from keras_transfer.fine_tuning.pretraining.result import Pretraining
from keras_transfer.fine_tuning.run_folder import RunFolder
from keras_transfer.fine_tuning.stays_finite import StaysFinite
from keras_transfer.fine_tuning.unchanged import unchanged_after_error
from keras_transfer.optimizers.discriminative import discriminative
from keras_transfer.optimizers.schedules import LinearWarmupDecay

SEED = 0
HELD_OUT, MOST_HELD_OUT = 0.05, 500  # share and number of texts
HEAD_RATE, HEAD_STEPS = 1e-3, 1000
METRIC = "crossentropy"
BIAS = "output_bias"  # of the head, one number for each token
MOST_NATS = 80.0  # exp() of more is above the greatest float32


def continue_pretraining(
    model: keras.Model,
    texts: Sequence[str],
    *,
    tokenizer: keras.Layer | None = None,
    learning_rate: float = 5e-5,
    layer_decay: float = 1.0,
    whole_words: bool = False,
    directory: str | os.PathLike | None = None,
    validation_data: Sequence[str] | None = None,
    epochs: int = 1,
    batch_size: int = 32,
    callbacks: keras.callbacks.Callback | Sequence | None = None,
    verbose: int = 1,
) -> Pretraining:
    """Train the backbone of a language model further, on texts without labels.

    A model that was pretrained on general text learns the words of a domain, before it
    is fine-tuned on few labels of that domain. BioBERT and SciBERT were made in this
    way. It can also be worth nothing: compare, as `examples/continued_pretraining.py`
    does, with the same steps on other texts.

    The backbone trains in place, so a classifier on the same backbone object has the
    new weights. The objective is masked language modeling where keras-hub has it for
    the family (BERT, RoBERTa, DistilBERT, ALBERT, DeBERTa, ...), else causal language
    modeling (GPT-2, Llama, ...). In each pass, 15 % of the tokens are chosen at random:
    80 % of them become the mask token, 10 % a random token, and 10 % stay. The output
    is tied to the token embedding. If the head is new, because the pretrained files
    have none, its bias starts with the frequencies of the tokens, and it first trains
    alone, for a pass or 1,000 steps.

    Then all weights train by AdamW with a linear warm-up and decay. Only weights that
    are trainable when the function is called do: with an attached LoRA its pairs, and
    no frozen layer. Flags are as before at the end. Texts that are longer than 128
    tokens become several rows. Rows are padded to a few lengths.

    Args:
        model: A backbone of keras-hub, or a model with an attribute `backbone`, such as
            a Task or a `TransferClassifier`. A `MaskedLM` or `CausalLM` is trained with
            its own head.
        texts: Strings, the training texts.
        tokenizer: Tokenizer of keras-hub. Defaults to None: the tokenizer of the model.
        learning_rate: Float, the peak rate of AdamW. Defaults to 5e-5.
        layer_decay: Float in (0, 1]: each layer group trains at this factor of the rate
            of the group above it. Defaults to 1.0.
        whole_words: Whether all tokens of a word are hidden together. Only for masks.
            Defaults to `False`.
        directory: Path of a folder from which an interrupted run continues after its
            last complete pass. The call must have the same arguments. Defaults to None.
        validation_data: Strings, held-out texts for the perplexity. Defaults to None: 5
            % of `texts`, at most 500, that are then not trained on.
        epochs: Passes over the texts, 1 or more. Defaults to 1.
        batch_size: Rows in a batch. Defaults to 32.
        callbacks: Callbacks of `fit`, for the training of all weights.
        verbose: As in `fit`. Defaults to 1.

    Returns:
        A `kt.fine_tuning.Pretraining` with the language model and its perplexities.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
        tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
        backbone = keras_hub.models.BertBackbone(13, 1, 2, 8, 16, max_sequence_length=8)
        result = kt.continue_pretraining(
            backbone, ["a b c d"] * 30, tokenizer=tokenizer, epochs=2, verbose=0
        )
        model = kt.models.TransferClassifier(backbone, 2)  # with the new weights
        assert result.perplexity_after > 1
        ```

    Raises:
        TypeError: If an argument has another type, such as texts that are not strings.
        ValueError: If keras-hub has no language model for the backbone, the tokenizer
            has no mask token, no text has a token, nothing is trainable, weights become
            NaN, or another argument is out of range. The model is then as before.

    Reference:
        Gururangan et al., 2020, "Don't Stop Pretraining: Adapt Language Models to
        Domains and Tasks", arXiv:2004.10964; Devlin et al., 2019, "BERT",
        arXiv:1810.04805; Cui et al., 2019, "Pre-Training with Whole Word Masking for
        Chinese BERT", arXiv:1906.08101.
    """
    positive("learning_rate", learning_rate)
    number("layer_decay", layer_decay, above=0, most=1)
    whole_number("epochs", epochs)
    whole_number("batch_size", batch_size)
    found = language_task(model, tokenizer)
    if whole_words and not found.masked:
        raise ValueError(
            f"whole_words=True has no effect: {type(found.task).__name__} predicts the "
            "next token, and no token is hidden. Leave it out."
        )
    rows, held_out_rows = _rows(found, texts, validation_data)
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "layer_decay": layer_decay,
        "whole_words": whole_words,
        "weights": zlib.crc32(str([x.shape for x in model.weights]).encode()),
        "data": zlib.crc32(b"".join(row.tobytes() for row in rows.rows)),
    }
    history = keras.callbacks.History()
    folder = None if directory is None else RunFolder(directory, settings, history)
    masks = None
    if found.masked:
        masks = TokenMasks(found.tokenizer, whole_words=whole_words)
    training = _Training(
        found,
        _batches(found, rows, masks, batch_size),
        _batches(found, held_out_rows, masks, batch_size, in_order=True),
        history,
        folder,
        verbose,
    )
    before, after = training.run(learning_rate, layer_decay, epochs, callbacks)
    result = Pretraining(
        found.task, history, before, after, rows.num_tokens, rows.empty
    )
    if verbose:
        print(f"continue_pretraining: {result}")
    return result


@dataclasses.dataclass(frozen=True)
class _Training:
    """One call: its model, its batches, and where its state is saved."""

    found: LanguageTask
    train: PretrainingBatches
    held_out: PretrainingBatches
    history: keras.callbacks.History
    folder: RunFolder | None
    verbose: int
    clock: Clock = dataclasses.field(default_factory=Clock)

    def run(
        self, learning_rate: float, layer_decay: float, epochs: int, callbacks: Any
    ) -> tuple[float | None, float]:
        """Train, and return the perplexity before and after."""
        network, before = self.found.network, None
        _compile(network, keras.optimizers.SGD(0.0))
        with (
            _keras.flags_kept(network),
            unchanged_after_error(network, network.variables),
        ):
            for weight in idle_weights(network, network.outputs):
                weight.trainable = False
            if not network.trainable_variables:
                raise ValueError(
                    f"No weight of '{network.name}' is trainable, so nothing can be "
                    "trained. Set trainable = True first, or attach an adapter."
                )
            if self.folder is None or self.folder.state is None:
                if self.found.new_head is not None:
                    self._train_head()
                before = self._perplexity()
            schedule = LinearWarmupDecay(learning_rate, epochs * len(self.train))
            optimizer = keras.optimizers.AdamW(schedule)
            if layer_decay != 1:
                optimizer = discriminative(optimizer, network, layer_decay=layer_decay)
            _compile(network, optimizer)
            self._train_all(epochs, keras.tree.flatten(callbacks or []))
            return before, self._perplexity()

    def _train_head(self) -> None:
        """Train only the new head, whose output stays tied to the embedding."""
        network, found = self.found.network, self.found
        tied = {id(weight) for weight in found.task.backbone.weights}
        head = {id(weight) for weight in found.new_head.weights} - tied
        if self.verbose:
            print("continue_pretraining: the new head trains alone first")
        with _keras.flags_kept(network):
            for weight in network.weights:
                weight.trainable = id(weight) in head
                if id(weight) in head and weight.name == BIAS:
                    weight.assign(self.train.log_frequencies(weight.shape[0]))
            steps = min(HEAD_STEPS, len(self.train))
            _compile(
                network, keras.optimizers.Adam(LinearWarmupDecay(HEAD_RATE, steps))
            )
            data = self.train.dataset(lambda: 0, steps)
            _keras.trace_once(network, data)
            network.fit(
                data,
                shuffle=False,
                callbacks=[StaysFinite()],
                verbose=self.verbose,
            )

    def _train_all(self, epochs: int, callbacks: list) -> None:
        network, done = self.found.network, 0
        own = [*callbacks, self.clock, StaysFinite(), self.history]
        if self.folder is not None:
            network.optimizer.build(network.trainable_variables)
            self.folder.begin(network, SEED)
            done = self.folder.epoch
            own.append(self.folder.callback)
        if done < epochs:
            data = self.train.dataset(lambda: self.clock.epoch)
            _keras.trace_once(network, data)
            network.fit(
                data,
                validation_data=self.held_out.dataset(lambda: 0),
                epochs=epochs,
                initial_epoch=done,
                shuffle=False,
                callbacks=own,
                verbose=self.verbose,
            )

    def _perplexity(self) -> float:
        batches = self.held_out.dataset(lambda: 0)
        logs = self.found.network.evaluate(batches, verbose=0, return_dict=True)
        return math.exp(min(logs[METRIC], MOST_NATS))


def _rows(
    found: LanguageTask, texts: Sequence[str], validation: Sequence[str] | None
) -> tuple[TokenRows, TokenRows]:
    """Return the rows of training and of held-out texts."""
    texts = checked_texts(texts)
    if validation is None:
        if len(texts) < 2:
            raise ValueError(
                "One text cannot be split into training and held-out texts. Pass more "
                "texts, or `validation_data=`."
            )
        chosen = set(held_out(len(texts), SEED, HELD_OUT, MOST_HELD_OUT).tolist())
        validation = [texts[number] for number in sorted(chosen)]
        texts = [text for number, text in enumerate(texts) if number not in chosen]
    parts = []
    for part, name in ((texts, "texts"), (validation, "validation_data")):
        try:
            parts.append(token_rows(part, found.tokenizer, found.length))
        except (TypeError, ValueError) as error:
            raise type(error)(f"In {name}: {error}") from error
    return parts[0], parts[1]


def _batches(
    found: LanguageTask,
    rows: TokenRows,
    masks: TokenMasks | None,
    batch_size: int,
    *,
    in_order: bool = False,
) -> PretrainingBatches:
    pad = getattr(found.tokenizer, "pad_token_id", None) or 0
    return PretrainingBatches(
        padded_groups(rows.rows, pad),
        masks,
        batch_size,
        SEED,
        segment_ids=found.segment_ids,
        in_order=in_order,
    )


def _compile(network: keras.Model, optimizer: keras.Optimizer) -> None:
    kind = keras.losses.SparseCategoricalCrossentropy
    loss = kind(from_logits=True, reduction="mean_with_sample_weight")
    metric = keras.metrics.SparseCategoricalCrossentropy(METRIC, from_logits=True)
    network.compile(optimizer, loss, weighted_metrics=[metric], jit_compile="auto")
