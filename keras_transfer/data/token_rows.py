"""Texts as rows of token ids that no model has to cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer.data.texts import checked_texts
from keras_transfer.data.token_lengths import choose_boundaries

LENGTHS = 6  # to which rows are padded, at most
AT_ONCE = 1024  # texts


class TokenRows(NamedTuple):
    """Rows of token ids with their special tokens, and the number of empty texts."""

    rows: list[np.ndarray]
    empty: int

    @property
    def num_tokens(self) -> int:
        """The number of tokens in all rows."""
        return sum(map(len, self.rows))


def token_rows(texts: Iterable[str], tokenizer: Any, length: int) -> TokenRows:
    """Tokenize texts. A text that is longer than a row becomes several rows.

    Args:
        texts: Strings.
        tokenizer: Tokenizer of keras-hub.
        length: Greatest number of tokens of a row, special tokens included.

    Raises:
        TypeError: If a text is not a string.
        ValueError: If no text has a token.
    """
    texts = checked_texts(texts)
    start, end = (special(tokenizer, name) for name in ("start", "end"))
    room = length - len(start) - len(end)
    rows, empty = [], 0
    for first in range(0, len(texts), AT_ONCE):
        for ids in tokenizer(texts[first : first + AT_ONCE]):
            ids = np.asarray(ids, "int32")
            empty += not len(ids)
            for place in range(0, len(ids), room):
                rows.append(np.concatenate([start, ids[place : place + room], end]))
    if not rows:
        raise ValueError(
            f"None of the {len(texts)} texts has a token. Pass texts in the language "
            "of the tokenizer."
        )
    return TokenRows(rows, empty)


def special(tokenizer: keras.Layer, name: str) -> np.ndarray:
    """Return the id of the start or the end token as an array, or an empty array."""
    value = getattr(tokenizer, f"{name}_token_id", None)
    return np.array([] if value is None else [value], "int32")


def padded_groups(rows: list[np.ndarray], pad: int) -> list[dict[str, np.ndarray]]:
    """Return rows in groups that are padded to a few lengths.

    Returns:
        For each length a dictionary of int32 arrays `(rows, length)`: `token_ids` and
        `padding_mask`.
    """
    lengths = np.array([len(row) for row in rows])
    boundaries = choose_boundaries(lengths, LENGTHS)
    bucket = np.searchsorted(boundaries, lengths)
    groups = []
    for number in np.unique(bucket):
        chosen = np.flatnonzero(bucket == number)
        shape = len(chosen), boundaries[number]
        ids, mask = np.full(shape, pad, "int32"), np.zeros(shape, "int32")
        for place, row in enumerate(chosen):
            ids[place, : lengths[row]] = rows[row]
            mask[place, : lengths[row]] = 1
        groups.append({"token_ids": ids, "padding_mask": mask})
    return groups
