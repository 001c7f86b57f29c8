"""The answers of a task in words: from targets to texts, and back."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer._arguments import unique_names
from keras_transfer.data.texts import checked_texts
from keras_transfer.data.tsv import shown


def plain(text: str) -> str:
    """Return a text in lower case, with single spaces and none at its ends."""
    return " ".join(text.split()).casefold()


class Answers:
    """The answers of one task.

    Args:
        task: Name of the task, for errors.
        words: The answer of each class, or None if any text is an answer.
    """

    def __init__(self, task: str, words: Sequence[str] | None):
        self.task = task
        self.words = words
        if words is None:
            return
        self.words = unique_names(f"answers of task {task!r}", words)
        self._classes = {plain(word): place for place, word in enumerate(self.words)}
        if "" in self._classes or len(self._classes) < len(self.words):
            raise ValueError(
                f"The answers of task {task!r}, {list(self.words)}, must be words that "
                "differ in more than case and spaces. Pass other words as `answers`."
            )

    def texts(self, targets: Any) -> list[str]:
        """Return targets as texts: words by the numbers of classes, or strings.

        Raises:
            ValueError: If a target is not one of the answers.
            TypeError: If numbers come without words for them.
        """
        array = np.asarray(targets, object if _is_text(targets) else None)
        if array.ndim != 1:
            raise ValueError(
                f"The targets of task {self.task!r} have shape {array.shape}. Pass one "
                "class number or one string for each text."
            )
        if _is_text(targets):
            texts = checked_texts(array)
            if self.words is None:
                return texts
            return [self.words[self._number(text)] for text in texts]
        if self.words is None:
            raise TypeError(
                f"The targets of task {self.task!r} are {array.dtype}, not strings, so "
                "there are no answers in words. Pass the answer of each class, such as "
                f"answers={{{self.task!r}: ['negative', 'positive']}}."
            )
        if array.dtype.kind not in "iub":
            raise TypeError(
                f"The targets of task {self.task!r} are {array.dtype}. Pass class "
                "numbers as integers, or strings."
            )
        if len(array) and not 0 <= array.min() <= array.max() < len(self.words):
            raise ValueError(
                f"The targets of task {self.task!r} go from {array.min()} to "
                f"{array.max()}, but there are {len(self.words)} answers, "
                f"{shown(self.words)}, for the classes 0 to {len(self.words) - 1}."
            )
        return [self.words[int(number)] for number in array]

    def read(self, text: str) -> str | None:
        """Return the answer that a generated text is, or None if it is none."""
        if self.words is None:
            return plain(text)
        place = self._classes.get(plain(text))
        return None if place is None else self.words[place]

    def _number(self, text: str) -> int:
        found = self._classes.get(plain(text))
        if found is None:
            raise ValueError(
                f"A target of task {self.task!r} is {text[:40]!r}, which is not one of "
                f"its {len(self.words)} answers, {shown(self.words)}."
            )
        return found


def answers_of(task: str, targets: Any, given: Any) -> Answers:
    """Return the answers of a task.

    Args:
        task: Name of the task.
        targets: Its targets, from which the words are taken if they are strings.
        given: Words in the order of classes, a dict from class numbers to words, None
            for free texts, or `...` if nothing was passed.
    """
    if given is None:
        return Answers(task, None)
    if given is ...:
        if not _is_text(targets):
            return Answers(task, None)  # and `texts` raises
        first = {plain(text): text for text in reversed(checked_texts(targets))}
        return Answers(task, [first[key] for key in sorted(first)])
    if isinstance(given, Mapping):
        numbers = list(given)
        if sorted(numbers, key=str) != sorted(range(len(numbers)), key=str):
            raise ValueError(
                f"The answers of task {task!r} are for the classes {numbers}. Pass one "
                f"for each class from 0 to {len(numbers) - 1}."
            )
        given = [given[number] for number in range(len(numbers))]
    return Answers(task, given)


def _is_text(targets: Any) -> bool:
    first = next(iter(targets), None)
    return isinstance(first, str | bytes)
