"""Texts that a Seq2SeqLM of keras-hub writes, by its most probable tokens."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager

import keras
import numpy as np

from keras_transfer.data.answers import Answers


class Generator:
    """Writes the answers of a Task, and checks that it can.

    Args:
        task: `Seq2SeqLM` with a preprocessor. It does not change.

    Attributes:
        encoder: The number of tokens that a text may have, and the name of the argument
            of the preprocessor that decides it.
        decoder: The same of an answer.
    """

    def __init__(self, task: keras.Model):
        import keras_hub

        if not isinstance(task, keras_hub.models.Seq2SeqLM):
            raise TypeError(
                f"task is a {type(task).__name__}, but texts in and texts out need a "
                "Seq2SeqLM of keras-hub, such as T5Seq2SeqLM or BartSeq2SeqLM."
            )
        self.task = task
        self.preprocessor = task.preprocessor
        if self.preprocessor is None:
            raise ValueError(
                f"'{task.name}' has no preprocessor, which makes tokens from texts. "
                "Pass `preprocessor=` to the Task."
            )
        self.tokenizer = self.preprocessor.tokenizer
        x, _, weights = self.preprocessor({"encoder_text": [""], "decoder_text": [""]})
        added = int(np.sum(x["encoder_padding_mask"]))
        ends = int(np.sum(weights))  # the end of an answer
        self.encoder = (
            self.preprocessor.encoder_sequence_length - added,
            "encoder_sequence_length",
        )
        self.decoder = (
            self.preprocessor.decoder_sequence_length - ends,
            "decoder_sequence_length",
        )

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return [len(each) for each in self.tokenizer(list(texts))]

    def check(self, answers: Answers) -> None:
        """Check that the tokenizer can write the answers of a task.

        Raises:
            ValueError: If an answer is another text after the tokenizer, or too long.
        """
        if answers.words is None:
            return
        most, name = self.decoder
        for word, length in zip(
            answers.words, self.lengths(answers.words), strict=True
        ):
            if length > most:
                raise ValueError(
                    f"The answer {word!r} of task {answers.task!r} has {length} "
                    f"tokens, but at most {most} fit. Raise `{name}` of the "
                    "preprocessor, or pass a shorter answer."
                )
            again = self._detokenized(word)
            if answers.read(again) != word:
                raise ValueError(
                    f"The tokenizer turns the answer {word!r} of task "
                    f"{answers.task!r} into {again!r}, so no generated text can be "
                    "this answer. Pass another word that is in the vocabulary."
                )

    def __call__(
        self, texts: Sequence[str], answers: Answers, batch_size: int
    ) -> list[str]:
        """Return what the Task writes for each text."""
        length = self.preprocessor.decoder_sequence_length
        if answers.words is not None:
            # The start and the end, and one more so that longer texts are seen as such.
            length = min(length, max(self.lengths(answers.words)) + 3)
        found: list[str] = []
        with _greedy(self.task):
            for first in range(0, len(texts), batch_size):
                some = list(texts[first : first + batch_size])
                count = len(some)
                some += [""] * (batch_size - count)  # one shape, so one trace
                written = self.task.generate(some, max_length=length)
                found += [str(text) for text in written[:count]]
        return found

    def _detokenized(self, word: str) -> str:
        found = self.tokenizer.detokenize(self.tokenizer([word]))
        found = found[0] if isinstance(found, list) else np.asarray(found)[0]
        return found.decode() if isinstance(found, bytes) else str(found)


@contextmanager
def _greedy(task: keras.Model) -> Iterator[None]:
    """Choose the most probable tokens, and give the Task its sampler back."""
    import keras_hub

    before = task.sampler, task.generate_function
    task.sampler, task.generate_function = keras_hub.samplers.GreedySampler(), None
    try:
        yield
    finally:
        task.sampler, task.generate_function = before
