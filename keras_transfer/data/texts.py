"""Texts as a list of strings, checked."""

from __future__ import annotations

import reprlib
from typing import Any


def checked_texts(texts: Any) -> list[str]:
    """Return texts as a list of strings. Bytes are decoded as UTF-8.

    Raises:
        TypeError: If they are one string, or an item is not a string.
        ValueError: If there is no text.
    """
    if isinstance(texts, str | bytes):
        raise TypeError(
            f"The texts are one string, {texts[:40]!r}. Pass a list of strings, such "
            "as [text]."
        )
    found = [each.decode() if isinstance(each, bytes) else each for each in texts]
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(
                f"Text {place} is {reprlib.repr(text)}, which is a "
                f"{type(text).__name__} and not a string. Pass a list of strings."
            )
    if not found:
        raise ValueError("There are no texts. Pass a list of one or more strings.")
    return found
