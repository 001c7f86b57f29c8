"""PromptTemplate: texts and labels in a template, as tokens of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.data.token_rows import special
from keras_transfer.models.label_scorer import Scored

TEXT, LABEL = "{text}", "{label}"
BETWEEN = "\n\n"  # examples


class PromptTemplate:
    """A template whose label is asked of a language model.

    Args:
        template: String with `{text}` and `{label}`, once each.
        labels: Different words, one for each class.
        examples: Pairs of a text and a number of a label, put before the text.
        tokenizer: Tokenizer of keras-hub.
        masked: Whether the model predicts masked tokens.
        most: Greatest number of tokens, or None.

    Raises:
        TypeError: If `template` is not a string.
        ValueError: If the template lacks a place or has one twice, a label has no
            token, two labels begin with the same token, or the prompt without any text
            is too long.
    """

    def __init__(
        self,
        template: str,
        labels: Sequence[str],
        examples: Sequence[tuple[str, int]],
        *,
        tokenizer: Any,
        masked: bool,
        most: int | None,
    ) -> None:
        _check(template, masked)
        self.labels = labels
        self.tokenizer = tokenizer
        self.masked = masked
        self.most = most
        shown = [
            template.replace(LABEL, labels[number]).replace(TEXT, text)
            for text, number in examples
        ]
        self.template = BETWEEN.join([*shown, ""]) if shown else ""
        self.last = template
        self.start, self.end = (special(tokenizer, name) for name in ("start", "end"))
        empty = self._rows("")
        self._check_labels(empty)
        longest = max(len(row.token_ids) for row in empty)
        if most is not None and longest > most:
            raise ValueError(
                f"The template with its examples has {longest} tokens without any "
                f"text, but the model has {most} positions. Use fewer or shorter "
                "examples."
            )

    def rows(self, text: str) -> tuple[list[Scored], int]:
        """Return a row for each label, and the number of words that were cut off."""
        words, cut = text, 0
        while True:
            rows = self._rows(words)
            over = max(len(row.token_ids) for row in rows) - (self.most or np.inf)
            if over <= 0:
                return rows, cut
            kept = words.split()
            # A word has one token or more, so this never cuts more than is needed.
            drop = max(1, int(over) // 4)
            words, cut = " ".join(kept[:-drop]), cut + min(drop, len(kept))

    def _rows(self, text: str) -> list[Scored]:
        if self.masked:
            return [self._masked(text, label) for label in self.labels]
        before = (self.template + self.last.replace(TEXT, text)).removesuffix(LABEL)
        prompt, *whole = self._tokens(before, *(before + each for each in self.labels))
        # A space before the label can belong to its first token.
        shared = min(_shared(prompt, each) for each in whole)
        first = len(self.start) + shared
        return [
            Scored(
                np.concatenate([self.start, each]),
                np.arange(first, len(self.start) + len(each)),
                each[shared:],
            )
            for each in whole
        ]

    def _masked(self, text: str, label: str) -> Scored:
        before, after = self.last.split(LABEL)
        parts = [before.replace(TEXT, text), after.replace(TEXT, text)]
        space = " " * parts[0].endswith(" ")
        before, after, word = self._tokens(
            self.template + parts[0].rstrip(" "), parts[1], space + label
        )
        masks = np.full(len(word), self.tokenizer.mask_token_id, "int32")
        ids = np.concatenate([self.start, before, masks, after, self.end])
        first = len(self.start) + len(before)
        return Scored(ids, np.arange(first, first + len(word)), word)

    def _tokens(self, *texts: str) -> list[np.ndarray]:
        # keras-hub's tokenizers do not take empty strings in all families.
        found = iter(
            self.tokenizer([each for each in texts if each]) if any(texts) else ()
        )
        return [
            np.asarray(next(found) if each else [], "int32").reshape(-1)
            for each in texts
        ]

    def _check_labels(self, rows: list[Scored]) -> None:
        first: dict[int, str] = {}
        for label, row in zip(self.labels, rows, strict=True):
            if not len(row.targets):
                raise ValueError(
                    f"The label {label!r} has no token. Choose another word for it."
                )
            other = first.setdefault(int(row.targets[0]), label)
            if other != label:
                token = self.tokenizer.id_to_token(int(row.targets[0]))
                raise ValueError(
                    f"The labels {other!r} and {label!r} begin with the same token, "
                    f"{token!r}, so their likelihoods hardly differ. Choose other "
                    "words."
                )


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """Return the number of equal tokens at the start, not all of `other`."""
    count = min(len(one), len(other) - 1)
    different = np.flatnonzero(one[:count] != other[:count])
    return int(different[0]) if len(different) else count


def _check(template: str, masked: bool) -> None:
    if not isinstance(template, str):
        raise TypeError(f"template={template!r} is not a string.")
    counts = {place: template.count(place) for place in (TEXT, LABEL)}
    if set(counts.values()) != {1}:
        raise ValueError(
            f"template={template!r} must have {TEXT} and {LABEL}, once each, such as "
            '"Review: {text} Sentiment: {label}".'
        )
    if not masked and not template.endswith(LABEL):
        raise ValueError(
            f"template={template!r} goes on after {LABEL}, but a causal language model "
            f"only knows what is before a word. Let the template end with {LABEL}."
        )
