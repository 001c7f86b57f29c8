"""interpolate: a model between its start and what fine-tuning made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import fraction
from keras_transfer.models.averaged_weights import WeightAverage


def interpolate(
    start: keras.Model | Sequence[np.ndarray],
    tuned: keras.Model,
    weight: float = 0.5,
    *,
    batch_norm_data: Any = None,
) -> keras.Model:
    """Return a model whose weights lie between a start and a fine-tuned model.

    The weights are `(1 - weight) * start + weight * tuned`. Fine-tuning often costs
    accuracy on data that differs from the training data. A model between the two can
    keep most of what was gained and of what the start could do (WiSE-FT). This works
    because fine-tuning stays in one basin of the loss: models from different random
    starts cannot be interpolated. `interpolation_curve` measures several weights on
    held-out data.

    Args:
        start: The model before fine-tuning, or its `get_weights()` from then. It needs
            the head of `tuned`: train the head on the frozen backbone first, such as
            with `kt.fine_tune(model, data, strategy="probe")`.
        tuned: The fine-tuned model, without adapters. Merge adapters first.
        weight: Number from 0 to 1, the share of `tuned`. Defaults to 0.5.
        batch_norm_data: Examples without labels, as in `adapt_batch_norm`, if
            BatchNormalization layers have other moving statistics in both models. They
            get new statistics. `"average"` averages the statistics instead. Defaults to
            None, which is an error if statistics differ.

    Returns:
        A copy of `tuned` with the new weights. It is compiled with the loss and metrics
        of `tuned` and a new Adam, if `tuned` is compiled.

    Raises:
        TypeError: If `tuned` is not a model.
        ValueError: If the models differ or have adapters, a weight is not finite or out
            of range, or `batch_norm_data` is missing or has nothing to change.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        start = model.get_weights()
        model.compile("sgd", "mse")
        model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
        half = kt.models.interpolate(start, model, 0.5)
        expected = (start[0] + model.get_weights()[0]) / 2
        assert np.allclose(half.get_weights()[0], expected)
        ```

    Reference:
        Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models, arXiv:2109.01903
        (WiSE-FT).
    """
    weight = fraction("weight", weight)
    average = WeightAverage([start, tuned], batch_norm_data)
    return average.set([1 - weight, weight])
