"""TextToText: tasks as texts in and texts out, for one model."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number
from keras_transfer.data.answer_scores import AnswerScores
from keras_transfer.data.answer_scores import score_answers
from keras_transfer.data.answers import Answers
from keras_transfer.data.answers import answers_of
from keras_transfer.data.generated import Generator
from keras_transfer.data.task_rates import task_counts
from keras_transfer.data.task_rates import task_rates
from keras_transfer.data.task_rates import TaskOrder
from keras_transfer.data.texts import checked_texts
from keras_transfer.data.tsv import Texts


class TextToText:
    """Tasks as texts in and texts out. `text_to_text` makes it.

    Args:
        tasks: As in `text_to_text`.
        prefixes: As in `text_to_text`.
        answers: As in `text_to_text`.
        temperature: As in `text_to_text`.
        limit: As in `text_to_text`.
        seed: As in `text_to_text`.

    Attributes:
        names: Names of the tasks, in the order of `tasks`.
        rates: Dict from the names to their shares of the mixture, which sum to 1.

    Example:
        ```python
        import keras_transfer as kt

        mixture = kt.data.text_to_text({"topic": (["a novel", "a film"], ["b", "f"])})
        assert isinstance(mixture, kt.data.TextToText)
        assert mixture.encode("topic", ["a poem"]) == ["topic: a poem"]
        ```

    Raises:
        TypeError: As `text_to_text`.
        ValueError: As `text_to_text`.

    Reference:
        Raffel et al., 2020, "Exploring the Limits of Transfer Learning with a Unified
        Text-to-Text Transformer", arXiv:1910.10683.
    """

    def __init__(
        self,
        tasks: Mapping[str, Any],
        *,
        prefixes: Mapping[str, str] | None = None,
        answers: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
        limit: int | None = None,
        seed: int = 0,
    ):
        temperature = positive("temperature", temperature)
        if limit is not None:
            limit = whole_number("limit", limit)
        self.seed = whole_number("seed", seed, 0)
        if not isinstance(tasks, Mapping) or not tasks:
            raise ValueError(
                f"tasks={tasks!r} has no task. Pass a dict from names to pairs "
                "(texts, targets)."
            )
        self.names = tuple(tasks)
        self._answers: dict[str, Answers] = {}
        self._rows: dict[str, tuple[list[str], list[str]]] = {}
        # A test file of `from_tsv` can have other numbers for the same names.
        self._by_name: set[str] = set()
        prefixes, answers = dict(prefixes or {}), dict(answers or {})
        for argument, given in (("prefixes", prefixes), ("answers", answers)):
            self._check_names(given, argument)
        self.prefixes = {name: prefixes.get(name, f"{name}: ") for name in tasks}
        if len(set(self.prefixes.values())) < len(tasks):
            raise ValueError(
                f"The prefixes {self.prefixes} are not different, so the model cannot "
                "tell the tasks apart. Pass one prefix for each task."
            )
        for name, data in tasks.items():
            texts, targets = _pair(name, data)
            words = ...
            if isinstance(data, Texts) and name not in answers:
                words = data.classes
                self._by_name.add(name)
            self._answers[name] = answers_of(name, targets, answers.get(name, words))
            self._rows[name] = texts, self._answers[name].texts(targets)
        sizes = [len(texts) for texts, _ in self._rows.values()]
        rates = task_rates(sizes, temperature, limit)
        self.rates = dict(zip(self.names, map(float, rates), strict=True))

    def batches(
        self, task: keras.Model, batch_size: int = 32, *, examples: int | None = None
    ) -> tf.data.Dataset:
        """Return batches of the mixture for `fit` and `kt.fine_tune`.

        Each epoch has the same number of examples of each task, in another order. A
        warning tells how many texts the preprocessor of the Task cuts.

        Args:
            task: `Seq2SeqLM` of keras-hub with a preprocessor, which makes the labels.
            batch_size: Int of at least 1. Defaults to 32.
            examples: Int, the number of examples of an epoch. Defaults to None: that of
                all tasks together.

        Returns:
            A `tf.data.Dataset` of dicts `encoder_text` and `decoder_text`, strings of
            shape `(batch,)`. Pass `shuffle=False` to `fit`.

        Raises:
            TypeError: If `task` is not a `Seq2SeqLM`.
            ValueError: If it has no preprocessor, its tokenizer cannot write an answer,
                or an epoch has too few examples for a task.
        """
        batch_size = whole_number("batch_size", batch_size)
        rows = list(self._rows.values())
        sizes = [len(texts) for texts, _ in rows]
        total = sum(sizes) if examples is None else whole_number("examples", examples)
        counts = task_counts(np.array(list(self.rates.values())), total)
        if not counts.all():
            none = [n for n, count in zip(self.names, counts, strict=True) if not count]
            raise ValueError(
                f"An epoch of {total} examples has none of {none}, whose share is too "
                "small. Pass more `examples`, or a higher temperature."
            )
        generator = Generator(task)
        for name in self.names:
            generator.check(self._answers[name])
        self._tell_cuts(generator, self._rows)
        order = TaskOrder(sizes, counts, self.seed)
        passes = itertools.count()
        inputs = [self.encode(name, self._rows[name][0]) for name in self.names]

        def epoch() -> Iterator[dict]:
            chosen = order.epoch(next(passes))
            for first in range(0, total, batch_size):
                some = chosen[first : first + batch_size]
                yield {
                    "encoder_text": [inputs[i][j] for i, j in some],
                    "decoder_text": [rows[i][1][j] for i, j in some],
                }

        text = tf.TensorSpec((None,), tf.string)
        dataset = tf.data.Dataset.from_generator(
            epoch, output_signature={"encoder_text": text, "decoder_text": text}
        )
        known = tf.data.experimental.assert_cardinality(-(-total // batch_size))
        return dataset.apply(known).prefetch(tf.data.AUTOTUNE)

    def encode(self, name: str, texts: Any) -> list[str]:
        """Return texts with the prefix of a task, as the encoder reads them.

        Args:
            name: Name of the task.
            texts: Strings.

        Raises:
            ValueError: If the name is unknown.
        """
        self._check_names([name], "name")
        return [self.prefixes[name] + text for text in checked_texts(texts)]

    def answer(self, name: str, generated: str) -> str | None:
        """Return the answer that a generated text is, or None if it is none.

        Case and spaces do not count. Nothing is guessed: a part of an answer is none.

        Args:
            name: Name of the task.
            generated: Text that a model wrote.

        Raises:
            ValueError: If the name is unknown.
        """
        self._check_names([name], "name")
        return self._answers[name].read(generated)

    def score(
        self, task: keras.Model, data: Mapping[str, Any], *, batch_size: int = 32
    ) -> AnswerScores:
        """Let a Task write the answers, and compare them with the targets.

        The most probable token is chosen each time, whatever the sampler of the Task
        is. An answer that is none of the answers of the task is wrong, and counted. A
        warning tells how many texts the preprocessor cuts.

        Args:
            task: `Seq2SeqLM` of keras-hub with a preprocessor. It does not change.
            data: Dict from names of tasks, not necessarily all, to data as in
                `text_to_text`.
            batch_size: Int of at least 1. Defaults to 32.

        Returns:
            An `AnswerScores`, which prints as a table.

        Raises:
            TypeError: As in `batches`.
            ValueError: As in `batches`; or if a task is unknown, or a target is not one
                of its answers.
        """
        batch_size = whole_number("batch_size", batch_size)
        self._check_names(data, "data")
        if not data:
            raise ValueError("`data` has no task. Pass a dict of one or more tasks.")
        pairs = {}
        for name, each in data.items():
            texts, targets = _pair(name, each)
            if isinstance(each, Texts) and name in self._by_name:
                targets = [each.classes[number] for number in targets]
            pairs[name] = texts, self._answers[name].texts(targets)
        generator = Generator(task)
        for name in pairs:
            generator.check(self._answers[name])
        self._tell_cuts(generator, pairs)
        return score_answers(
            {
                name: (
                    generator(
                        self.encode(name, texts), self._answers[name], batch_size
                    ),
                    targets,
                    self._answers[name],
                )
                for name, (texts, targets) in pairs.items()
            }
        )

    def _tell_cuts(
        self, generator: Generator, rows: Mapping[str, tuple[list[str], list[str]]]
    ) -> None:
        for name, (texts, answers) in rows.items():
            for what, each, most, place in (
                ("texts", self.encode(name, texts), *generator.encoder),
                ("answers", answers, *generator.decoder),
            ):
                cut = sum(length > most for length in generator.lengths(each))
                if cut:
                    warnings.warn(
                        f"{cut} of {len(each)} {what} of task {name!r} have more than "
                        f"{most} tokens and are cut. Raise `{place}` of the "
                        "preprocessor, or shorten them.",
                        stacklevel=3,
                    )

    def _check_names(self, names: Any, argument: str) -> None:
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(
                f"{argument} has {unknown}, but the tasks are {list(self.names)}."
            )


def _pair(name: str, data: Any) -> tuple[list[str], Any]:
    """Return the texts and the targets of a task, of the same number."""
    if not isinstance(data, tuple | list) or len(data) != 2 + isinstance(data, Texts):
        raise ValueError(
            f"The data of task {name!r} is a {type(data).__name__}. Pass a pair "
            "(texts, targets), or what kt.data.from_tsv returns."
        )
    texts, targets = data[:2]
    if isinstance(texts, tuple):
        raise ValueError(
            f"Task {name!r} has {len(texts)} columns of texts. Join them to one text "
            "first, such as 'premise: ... hypothesis: ...'."
        )
    texts, targets = checked_texts(texts), np.asarray(targets)
    if len(texts) != len(targets):
        raise ValueError(
            f"Task {name!r} has {len(texts)} texts, but {len(targets)} targets."
        )
    return texts, targets
