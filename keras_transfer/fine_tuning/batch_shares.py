"""The check that each replica gets an example of each batch."""

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.data.epochs import reaches_all

# Layers whose TensorFlow kernels fail on a batch without examples.
NEED_EXAMPLES = (
    keras.layers.BatchNormalization,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def replicas_of(model: keras.Model) -> int:
    """Return the number of replicas that share a batch of a model."""
    strategy = getattr(model, "distribute_strategy", None)
    return getattr(strategy, "num_replicas_in_sync", 1)


def check_shares(model: keras.Model, sizes: Sequence[int]) -> None:
    """Check that each replica gets an example of each batch, if the model needs it.

    Args:
        model: The model.
        sizes: Number of examples of each batch.

    Raises:
        ValueError: If a replica gets no example, and the model has a layer that fails
            without examples.
    """
    replicas = replicas_of(model)
    small = [size for size in sizes if not reaches_all(size, replicas)]
    layers = [x for x in _keras.flat_layers(model) if isinstance(x, NEED_EXAMPLES)]
    if small and layers:
        raise ValueError(
            f"{len(small)} of {len(sizes)} batches have {small[0]} example(s), so not "
            f"every one of the {replicas} replicas gets an example. The layer "
            f"{layers[0].name!r} fails without examples. Use another batch size, or "
            "drop the last batch: dataset.batch(size, drop_remainder=True)."
        )
