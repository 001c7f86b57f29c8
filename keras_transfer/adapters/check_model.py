"""check_model: whether a model can have an adapter, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.backbones.frozen import FrozenBackbone


def check_model(model: keras.Layer, names: Iterable[str]) -> None:
    """Check that an adapter can be attached to `model`, which has those of `names`.

    Raises:
        ValueError: If the model is not built, has pairs that are not of these adapters
            or a FrozenBackbone, or is of another distribution strategy.
    """
    if not model.built or not model.weights:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to adapt. "
            "Call it once on a batch, or give a Sequential a `keras.Input`."
        )
    for host, part in all_parts(model):
        if part.name not in names:
            raise ValueError(
                f"The model {model.name!r} has layers with a pair of their own, such "
                f"as the {type(host).__name__} {host.name!r}. Adapters are attached to "
                "models without."
            )
    for layer in _keras.flat_layers(model):
        if isinstance(layer, FrozenBackbone):
            raise ValueError(
                f"{layer.name!r} is a FrozenBackbone: no gradient reaches what is in "
                "it, so an adapter there cannot learn. Build the model on "
                "`frozen.layer` itself; attaching freezes it."
            )
    if not _keras.in_strategy_of(model):
        raise ValueError(
            f"The model {model.name!r} and the adapter would be under different "
            "tf.distribute strategies, and could not be trained. Attach inside the "
            "`with strategy.scope():` that the model was made in."
        )
