"""WordCoverage: how many words of texts have a vector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from collections.abc import Iterable
from typing import NamedTuple


class WordCoverage(NamedTuple):
    """How many words of texts have a vector, and which frequent words have none.

    Args:
        tokens: Share of all words that have a vector, from 0 to 1.
        types: Share of the different words that have a vector, from 0 to 1.
        num_tokens: Number of all words.
        num_types: Number of different words.
        unknown: Dict from the most frequent words without a vector to their counts.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        vectors = kt.backbones.word_vectors({"a": [1.0, 0.0], "joy": [0.0, 1.0]})
        found = vectors.coverage(["A joy", "a flop"])
        assert found.tokens == 0.75 and found.unknown == {"flop": 1}
        print(found)
        ```

    Reference:
        Mikolov et al., 2013, "Efficient Estimation of Word Representations in Vector
        Space", arXiv 1301.3781.
    """

    tokens: float
    types: float
    num_tokens: int
    num_types: int
    unknown: dict[str, int]

    def __str__(self) -> str:
        lines = [
            f"{'':16}{'number':>10}  with a vector",
            f"{'words':16}{self.num_tokens:>10,}  {self.tokens:13.1%}",
            f"{'different words':16}{self.num_types:>10,}  {self.types:13.1%}",
        ]
        if self.unknown:
            shown = ", ".join(f"{word} ({n:,})" for word, n in self.unknown.items())
            lines.append(f"Most frequent without a vector: {shown}")
        return "\n".join(lines)


def coverage_of(
    texts: Iterable[list[str]], known: Container[str], most: int
) -> WordCoverage:
    """Return the coverage of texts that are split into words.

    Args:
        texts: The words of each text.
        known: The words that have a vector.
        most: The number of unknown words to return.
    """
    counts = Counter(word for words in texts for word in words)
    unknown = Counter({word: n for word, n in counts.items() if word not in known})
    total = counts.total()
    return WordCoverage(
        1 - unknown.total() / total if total else 0.0,
        1 - len(unknown) / len(counts) if counts else 0.0,
        total,
        len(counts),
        dict(unknown.most_common(most)),
    )
