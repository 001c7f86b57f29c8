"""The learned positions of a text that comes after a prompt or a prefix."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import located

# The class in keras-hub, which is imported late.
POSITIONS = "PositionEmbedding"


def position_targets(model: keras.Layer, tokens: int) -> list[Target]:
    """Return the layers with learned positions.

    Raises:
        ValueError: If they have no position left for a text after `tokens` positions.
    """
    found = [
        Target(layer, path or layer.name)
        for path, layer in located(model).items()
        if plain_of(layer).__name__ == POSITIONS
    ]
    for target in found:
        room = target.layer.sequence_length
        if tokens >= room:
            raise ValueError(
                f"tokens={tokens} leaves no position for a text, because "
                f"{target.path!r} has only {room} positions. Use fewer tokens."
            )
    return found


def check_length(host: keras.Layer, length: int, part: Part) -> None:
    """Check that `host` has enough positions for the tokens of `part` and a text.

    Raises:
        ValueError: If the text is too long.
    """
    room = host.sequence_length
    if length + part.tokens > room:
        raise ValueError(
            f"The text has {length} tokens and the adapter {part.name!r} takes "
            f"{part.tokens} positions before it, but the model has only {room} "
            f"positions. Shorten the texts to {room - part.tokens} tokens, or train an "
            "adapter with fewer tokens."
        )


def rows_from(host: keras.Layer, start: object, outputs: object) -> object:
    """Return the positions from `start` on, in the shape of `outputs`."""
    table = ops.cast(host.position_embeddings, outputs.dtype)
    shape = ops.shape(outputs)
    rows = ops.slice(table, (start, 0), (shape[1], shape[2]))
    return ops.broadcast_to(rows, shape)
