"""The heads of a MultiTask: a layer for the name of each task."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import keras

NAME = re.compile(r"[A-Za-z]\w*")


def check_heads(heads: Any) -> None:
    """Check the heads of a MultiTask.

    Raises:
        TypeError: If they are not a dict of layers.
        ValueError: If there is none, a name is not allowed, or a layer is in two.
    """
    if not isinstance(heads, Mapping):
        raise TypeError(
            f"heads is a {type(heads).__name__}. Pass a dict from the names of the "
            "tasks to layers, such as {'topic': keras.layers.Dense(4)}."
        )
    if not heads:
        raise ValueError("heads is empty. Pass a layer for at least one task.")
    for name, head in heads.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"The name of a task is {name!r}. It begins with a letter and has only "
                "letters, digits and '_', because logs and signatures contain it."
            )
        if not isinstance(head, keras.Layer):
            raise TypeError(
                f"The head of {name!r} is a {type(head).__name__}, not a Keras layer. "
                "Pass a layer or a model, such as keras.layers.Dense(4)."
            )
    _check_twice("layer", {name: id(head) for name, head in heads.items()})
    _check_twice("layer name", {name: head.name for name, head in heads.items()})


def _check_twice(what: str, given: Mapping[str, object]) -> None:
    names: Iterable[object] = list(given.values())
    twice = [name for name, each in given.items() if names.count(each) > 1]
    if twice:
        raise ValueError(
            f"The heads {twice} have the same {what}. Each task needs a layer of its "
            "own, with a name of its own."
        )
