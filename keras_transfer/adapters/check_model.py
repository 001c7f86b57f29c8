"""check_model: check whether a model can have any adapter."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.in_place.layer_state import check_no_penalties
from keras_transfer.backbones.frozen import FrozenBackbone


def check_model(model: keras.Layer, names: Iterable[str]) -> None:
    """Check that an adapter can be attached to `model`, which has the adapters `names`.

    Raises:
        ValueError: If the model is not built, has penalties, contains a FrozenBackbone
            or pairs that belong to none of these adapters, or was created in another
            distribution strategy.
    """
    if not model.built or not model.weights:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to adapt. "
            "Call it once on a batch, or give a Sequential a `keras.Input`."
        )
    check_no_penalties(model)
    for host, part in all_parts(model):
        if part.name not in names:
            raise ValueError(
                f"The model {model.name!r} has layers with a pair of their own, such "
                f"as the {type(host).__name__} {host.name!r}. They cannot be combined "
                "with adapters. Build the model with plain Keras layers."
            )
    for layer in _keras.flat_layers(model):
        if isinstance(layer, FrozenBackbone):
            raise ValueError(
                f"{layer.name!r} is a FrozenBackbone. No gradient reaches the layers "
                "in it, so an adapter there cannot train. Build the model on "
                "`frozen.layer` itself. Attaching the adapter freezes it."
            )
    if not _keras.in_strategy_of(model):
        raise ValueError(
            f"The model {model.name!r} and the adapter would be in different "
            "tf.distribute strategies, so they could not train. Attach inside the "
            "`with strategy.scope():` in which the model was created."
        )
