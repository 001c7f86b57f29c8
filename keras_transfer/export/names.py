"""Stable names for the tensors of a structure, and the way back."""

from __future__ import annotations

import re
from collections.abc import Mapping

import keras


def named(structure: object, single: str) -> dict[str, object]:
    """Return the tensors of a structure by names that no layer counter changes.

    A dictionary keeps its keys; where a key is no identifier, "_" stands for each
    odd character, for TensorFlow writes them so in a signature. A single tensor is
    named `single`, those of a list `single_0`, `single_1`.

    Raises:
        ValueError: If two keys become one name.
    """
    if isinstance(structure, Mapping):
        found = {re.sub(r"\W", "_", str(key)): each for key, each in structure.items()}
        if len(found) < len(structure):
            raise ValueError(
                f"The keys {sorted(structure)} give fewer names in a signature, which "
                "has letters, digits and '_' only. Rename some."
            )
    elif isinstance(structure, (list, tuple)) and len(structure) == 1:
        found = {single: structure[0]}
    elif isinstance(structure, (list, tuple)):
        found = {f"{single}_{i}": each for i, each in enumerate(structure)}
    else:
        found = {single: structure}
    return found


def like(structure: object, single: str, values: Mapping[str, object]) -> object:
    """Return `values`, by the names that `named` gives, in the form of `structure`."""
    names = list(named(structure, single))
    if isinstance(structure, Mapping):
        return {key: values[name] for key, name in zip(structure, names, strict=True)}
    if isinstance(structure, (list, tuple)):
        return type(structure)(values[name] for name in names)
    return values[single]


def check_flat(tensors: Mapping[str, object]) -> None:
    """Check that what `named` gave are tensors, not structures of them.

    Raises:
        ValueError: If one is a structure.
    """
    for name, each in tensors.items():
        if keras.tree.is_nested(each):
            raise ValueError(
                f"{name!r} is a {type(each).__name__} of tensors in a structure of "
                "them. A signature knows one level: wrap the model in a keras.Model "
                "whose inputs and outputs are a dictionary of tensors."
            )
