"""Sentences as lists of words, checked."""

from __future__ import annotations

from typing import Any


def checked_sentences(sentences: Any, name: str) -> list[list[str]]:
    """Return sentences as lists of lists of strings.

    Raises:
        TypeError: If a sentence is a string, or an item is not a string.
        ValueError: If there is no sentence, or a sentence or an item is empty.
    """
    rows = []
    for number, words in enumerate(sentences):
        if isinstance(words, str | bytes):
            raise TypeError(
                f"{name}[{number}] is the string {words[:40]!r}, not a list of "
                f"strings. Split texts into words first, such as by text.split()."
            )
        row = list(words)
        for place, word in enumerate(row):
            if not isinstance(word, str):
                raise TypeError(
                    f"{name}[{number}][{place}] is {word!r}, a {type(word).__name__}, "
                    "but it must be a str."
                )
            if not word.strip():
                raise ValueError(
                    f"{name}[{number}][{place}] is empty or only space. Remove it."
                )
        if not row:
            raise ValueError(f"{name}[{number}] is empty. Remove it.")
        rows.append(row)
    if not rows:
        raise ValueError(f"`{name}` is empty. Pass one sentence or more.")
    return rows
