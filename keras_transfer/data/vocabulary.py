"""Check that a tokenizer of keras-hub fits a network."""

from __future__ import annotations

import keras


def has_vocabulary(tokenizer: keras.Layer) -> bool:
    """Return whether a tokenizer has its vocabulary, which Keras loads after it."""
    names = ("vocabulary", "proto")
    return any(getattr(tokenizer, name, None) is not None for name in names)


def check_vocabulary(network: keras.Model, tokenizer: keras.Layer) -> None:
    """Check that the network has an embedding for each token.

    Raises:
        ValueError: If the tokenizer has more tokens.
    """
    size = getattr(network, "vocabulary_size", None)
    if size is None or not has_vocabulary(tokenizer):
        return
    known = tokenizer.vocabulary_size()
    if known > size:
        raise ValueError(
            f"The tokenizer has {known} tokens, but '{network.name}' has an embedding "
            f"of {size}. Pass the tokenizer with which it was pretrained."
        )
