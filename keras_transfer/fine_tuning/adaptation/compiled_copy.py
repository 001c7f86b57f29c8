"""Compile a copied model, so that it shares no state with the model."""

from __future__ import annotations

from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.fine_tuning.adaptation.candidates import RATE
from keras_transfer.fine_tuning.rates import default_share


def compile_again(model: keras.Model, compiled: dict) -> None:
    """Compile a copy with the arguments of its model, and a new optimizer."""
    with _keras.scope(model):
        optimizer = keras.optimizers.Adam(RATE * default_share(model))
        model.compile(**compiled | {"optimizer": optimizer})
        # Keras cannot load a saved model whose optimizer has no slots.
        model.optimizer.build(model.trainable_variables)


def with_new_metrics(compiled: dict) -> dict:
    """Return arguments of `compile` with metrics that have a state of their own.

    Raises:
        ValueError: If the config of a metric does not make the same metric.
    """

    def again(metric: Any) -> Any:
        if not isinstance(metric, keras.metrics.Metric):
            return metric
        try:
            return type(metric).from_config(metric.get_config())
        except Exception as error:
            raise ValueError(
                f"The metric {metric.name!r} cannot be copied from its config: "
                f"{error}. Give it a get_config with all its arguments."
            ) from error

    names = ("metrics", "weighted_metrics")
    return compiled | {
        name: keras.tree.map_structure(again, compiled[name]) for name in names
    }
