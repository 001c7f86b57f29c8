"""Copy a model, with its weights, and the metrics that it is compiled with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.class_names import remember_class_names


def copy_of(model: keras.Model) -> keras.Model:
    """Return a copy of a model, not compiled, with the same weights and flags.

    Raises:
        ValueError: If the config of the model does not make the same model again.
    """
    with _keras.scope(model):
        try:
            if type(model).__module__.partition(".")[0] == "keras":
                # Also copies layers that are not registered with Keras.
                with _not_compiled(model):
                    copy = keras.models.clone_model(model)
                copy.dtype_policy = model.dtype_policy
            else:
                copy = type(model).from_config(model.get_config())
                build = model.get_build_config()
                if build and not copy.built:  # a subclassed model
                    copy.build_from_config(build)
            if len(copy.weights) != len(model.weights):
                raise ValueError(
                    f"the copy has {len(copy.weights)} weights, not "
                    f"{len(model.weights)}"
                )
            copy.set_weights(_keras.values(model.weights))
            flags = _keras.flags(model), [each.trainable for each in model.weights]
            _keras.set_flags(copy, *flags)
        except Exception as error:
            raise ValueError(
                f"The model {model.name!r} cannot be copied from its config: {error}. "
                "Give each of its custom layers a get_config, and merge its adapters "
                "with kt.adapters.merge."
            ) from error
    if getattr(model, "preprocessor", None) is not None:
        # Its config has no vocabulary.
        copy.preprocessor = model.preprocessor
    remember_class_names(copy, class_names_of(model))
    return copy


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


@contextlib.contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Keep Keras from copying the loss, metrics and optimizer of a model."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled
