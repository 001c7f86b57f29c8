"""TokenMasks: hide tokens of a text, for masked language modeling."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import numpy as np

RATE = 0.15  # of the tokens
MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the others stay as they are
NAMES = ("start", "end", "pad", "mask")


class Hidden(NamedTuple):
    """Token ids with hidden tokens, and where and what these were."""

    token_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class TokenMasks:
    """Choose 15 % of the tokens, and replace most of them.

    Of the chosen tokens, 80 % become the mask token, 10 % a random token, and 10 % stay
    as they are. With whole words, either all tokens of a word are chosen or none.
    KerasHub's `MaskedLMMaskGenerator` knows no words and has no seed, so a run with it
    could not be continued.

    Args:
        tokenizer: Tokenizer of keras-hub with a mask token.
        whole_words: Whether all tokens of a word are chosen together.

    Raises:
        ValueError: If the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: Any, *, whole_words: bool) -> None:
        ids = {name: getattr(tokenizer, f"{name}_token_id", None) for name in NAMES}
        if ids["mask"] is None:
            raise ValueError(
                f"The {type(tokenizer).__name__} has no mask token, so no token can be "
                "hidden. Masked language modeling needs the tokenizer of a model that "
                "was pretrained in this way, such as BERT or RoBERTa."
            )
        self.mask = int(ids["mask"])
        self.special = np.array([each for each in ids.values() if each is not None])
        size = tokenizer.vocabulary_size()
        self.ordinary = np.setdiff1d(np.arange(size), self.special)
        self.continues = np.zeros(size, bool)
        if whole_words:
            self.continues = _continuations(tokenizer, size)

    def most(self, length: int) -> int:
        """Return the greatest number of chosen tokens in a row of this length."""
        return max(1, round(RATE * length))

    def __call__(self, token_ids: np.ndarray, random: np.random.Generator) -> Hidden:
        """Return rows `(batch, length)` with hidden tokens."""
        rows, length = token_ids.shape
        most = self.most(length)
        positions = np.zeros((rows, most), "int32")
        weights = np.zeros((rows, most), "float32")
        for row, ids in enumerate(token_ids):
            chosen = self._chosen(ids, random)
            positions[row, : len(chosen)] = chosen
            weights[row, : len(chosen)] = 1
        labels = np.take_along_axis(token_ids, positions, 1)
        draw = random.random(positions.shape)
        other = random.choice(self.ordinary, positions.shape)
        new = np.where(draw < MASKED + RANDOM, other, labels)
        new = np.where(draw < MASKED, self.mask, new)
        hidden = token_ids.copy()
        at = np.nonzero(weights)
        hidden[at[0], positions[at]] = new[at]
        return Hidden(hidden, positions, labels, weights)

    def _chosen(self, ids: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the sorted positions of the tokens of a row that are chosen."""
        able = np.flatnonzero(~np.isin(ids, self.special))
        if not len(able):
            return able
        starts = ~self.continues[ids[able]]
        starts[0] = True
        words = np.split(able, np.flatnonzero(starts)[1:])
        wanted, found = self.most(len(able)), []
        for number in random.permutation(len(words)):
            if len(found) + len(words[number]) <= wanted:
                found.extend(words[number])
            if len(found) == wanted:
                break
        if not found:  # each word has more tokens than are wanted
            found.extend(min(words, key=len)[:wanted])
        return np.sort(found)


def _continuations(tokenizer: Any, size: int) -> np.ndarray:
    """Return for each token whether it continues the word of the token before."""
    tokens = [str(tokenizer.id_to_token(number)) for number in range(size)]
    suffix = getattr(tokenizer, "suffix_indicator", None)
    if suffix is not None:
        return np.array([token.startswith(suffix) for token in tokens])
    return np.array([not token.startswith(("Ġ", "▁")) for token in tokens])
