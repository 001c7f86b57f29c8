"""Texts as inputs of an encoder: prepared, cut to their length, and grouped by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer.data.token_lengths import choose_boundaries

LENGTHS = 6  # to which texts are padded, at most


def encoded(texts: list[str], preprocessor: keras.Layer, network: keras.Model) -> Any:
    """Return texts as arrays, the inputs of a network.

    Args:
        texts: Strings.
        preprocessor: Layer from strings to the inputs.
        network: A functional model.

    Raises:
        ValueError: If the preprocessor lacks an input.
    """
    prepared = _called(preprocessor, texts)
    # keras-hub returns (x, y, sample_weight) if the targets come from the inputs.
    prepared = prepared[0] if isinstance(prepared, tuple) else prepared
    wanted = network.input
    if not isinstance(wanted, dict):
        return keras.ops.convert_to_numpy(prepared)
    found = prepared if isinstance(prepared, dict) else {}
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise ValueError(
            f"The preprocessor {type(preprocessor).__name__} does not return the "
            f"inputs {missing} of the encoder of texts. Pass the preprocessor with "
            "which it was pretrained."
        )
    return {
        key: keras.ops.convert_to_numpy(found[key]).astype(each.dtype)
        for key, each in wanted.items()
    }


def is_texts(x: Any) -> bool:
    """Return whether `x` are strings: a list, an array, a column or a tensor."""
    if hasattr(x, "to_numpy"):  # a column of pandas
        x = np.asarray(x)
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "OSU"
    if keras.ops.is_tensor(x):
        return keras.backend.standardize_dtype(x.dtype) == "string"
    return isinstance(x, list | tuple) and any(isinstance(a, str | bytes) for a in x)


def lengths_of(x: Any) -> np.ndarray | None:
    """Return the number of tokens of each text, or None if they cannot be cut."""
    mask = x.get("padding_mask") if isinstance(x, dict) else None
    if mask is None or any(each.shape != mask.shape for each in x.values()):
        return None
    lengths = mask.shape[1] - (mask[:, ::-1] != 0).argmax(1)
    return np.where(mask.any(1), lengths, 1)


def to_longest(x: Any) -> Any:
    """Return inputs without the positions that are padding in each text."""
    lengths = lengths_of(x)
    if lengths is None:
        return x
    return {key: each[:, : lengths.max()] for key, each in x.items()}


def by_length(x: dict, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, dict]]:
    """Yield rows and their inputs, of some lengths, so that less is padding.

    Args:
        x: Arrays of tokens by name.
        lengths: The number of tokens of each row.
    """
    boundaries = choose_boundaries(lengths, LENGTHS)
    bucket = np.searchsorted(boundaries, lengths)
    for number in np.unique(bucket):
        rows = np.flatnonzero(bucket == number)
        yield rows, {key: a[rows, : boundaries[number]] for key, a in x.items()}


def _called(preprocessor: keras.Layer, texts: list[str]) -> Any:
    """Return the outputs of a preprocessor. That of CLIP also takes images."""
    kinds = ("tokenizer_cls", "image_converter_cls")
    if all(getattr(preprocessor, kind, None) is not None for kind in kinds):
        return preprocessor({"prompts": texts, "images": None})
    return preprocessor(texts)
