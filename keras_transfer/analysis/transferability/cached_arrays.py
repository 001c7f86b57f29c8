"""The features of all examples as arrays, from the cache of features."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones.feature_cache import cache_features


def cached_arrays(
    network: keras.Model, data: Any, folder: Any, batch_size: int, verbose: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the outputs of the network and the labels of all examples.

    Args:
        network: A model whose outputs are a dict.
        data: As in `kt.backbones.cache_features`.
        folder: Folder of the cache, or None to keep nothing.
        batch_size: Number of examples in a batch, for arrays.
        verbose: 1 for a progress bar, 0 for no output.

    Raises:
        ValueError: If a weight is not 1.
    """
    if folder is not None:
        pathlib.Path(folder).parent.mkdir(parents=True, exist_ok=True)
    cached = cache_features(
        network, data, folder, batch_size=batch_size, verbose=verbose
    )
    features, labels, weights = next(cached.batch(len(cached)).as_numpy_iterator())
    if not (weights == 1).all():
        raise ValueError(
            "`data` have weights that are not 1, but the scores have no weights. Pass "
            "(x, y)."
        )
    return features, labels
