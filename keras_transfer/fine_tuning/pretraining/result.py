"""Pretraining: what `continue_pretraining` did."""

from __future__ import annotations

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The result of `kt.continue_pretraining`. Prints as a sentence.

    Args:
        task: The language model, a Task of keras-hub that shares the weights of the
            backbone. Its preprocessor is None if the function made it.
        history: The History of the training of all weights. `val_crossentropy` is in
            nats per predicted token.
        perplexity_before: Perplexity on held-out texts before the backbone trained: for
            a new head, after the head alone was trained. None for a run that was
            continued from a folder.
        perplexity_after: Perplexity on the same texts at the end.
        num_tokens: Number of tokens in the training texts.
        num_empty: Number of texts without a token.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        history = keras.callbacks.History()
        history.epoch = [0, 1]
        result = kt.fine_tuning.Pretraining(keras.Model(), history, 40.0, 20.0, 1000, 0)
        assert "from 40.0 to 20.0" in str(result)
        ```

    Reference:
        Gururangan et al., 2020, "Don't Stop Pretraining: Adapt Language Models to
        Domains and Tasks", arXiv:2004.10964.
    """

    task: keras.Model
    history: keras.callbacks.History
    perplexity_before: float | None
    perplexity_after: float
    num_tokens: int
    num_empty: int

    def __str__(self) -> str:
        before = self.perplexity_before
        began = "" if before is None else f" from {before:.1f}"
        text = (
            f"perplexity on held-out texts{began} to {self.perplexity_after:.1f}, "
            f"after {len(self.history.epoch)} passes over {self.num_tokens:,} tokens"
        )
        return text + (f"; {self.num_empty} empty texts" if self.num_empty else "")
