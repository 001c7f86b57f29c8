"""Private APIs of Keras for training: compile arguments and the running `fit`."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras
from keras.src.losses.loss import unscale_loss_for_distribution
from keras.src.losses.losses import LossFunctionWrapper

from keras_transfer._keras.layers import flat_layers


def compile_arguments(model: keras.Model) -> dict:
    """Return the objects that were passed to compile().

    After a second compile() without loss or metrics, Keras keeps the first ones.
    """
    arguments = dict(model._compile_config.config)
    loss, metrics = model._compile_loss, model._compile_metrics
    if arguments["loss"] is None and loss is not None:
        arguments["loss"] = loss._user_loss
        arguments["loss_weights"] = loss._user_loss_weights
    none = arguments["metrics"] is None and arguments["weighted_metrics"] is None
    if none and metrics is not None:
        arguments["metrics"] = metrics._user_metrics
        arguments["weighted_metrics"] = metrics._user_weighted_metrics
    return arguments


def metric_directions(model: keras.Model) -> dict[str, bool]:
    """Return a dict from the names of compiled metrics to "a larger value is better".

    It has the metrics whose direction Keras states, which EarlyStopping uses as well.
    Before `fit` or `evaluate` has built the metrics of the model, it is empty.
    """
    found = {x.name: getattr(x, "_direction", None) for x in built_metrics(model)}
    return {name: way == "up" for name, way in found.items() if way in ("up", "down")}


def built_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """Return the compiled metrics of a model; empty before Keras has built them."""
    return getattr(getattr(model, "_compile_metrics", None), "metrics", None) or []


def is_weighted(model: keras.Model, name: str) -> bool:
    """Return whether a compiled metric takes the sample weights."""
    metrics = getattr(model, "_compile_metrics", None)
    weighted = getattr(metrics, "_flat_weighted_metrics", None) or []
    return any(
        metric.name == name for part in weighted if part for metric in part.metrics
    )


def weight_penalty(model: keras.Model) -> float:
    """Return what the regularizers of trainable weights add to the loss."""
    penalties = [
        variable.regularizer(keras.ops.convert_to_tensor(variable))
        for variable in model.trainable_variables
        if variable.regularizer is not None
    ]
    return float(sum(penalties)) if penalties else 0.0


def untrained(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that no gradient changes: statistics, seeds, counts."""
    learnable = {
        id(variable)
        for layer in flat_layers(model)
        for variable in layer._trainable_variables
    }
    return [variable for variable in model.variables if id(variable) not in learnable]


def running_callbacks() -> Iterator[keras.callbacks.Callback]:
    """Yield the callbacks of the current `fit` in order, to call from set_model().

    Keras does not give a callback access to the other callbacks.
    """
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList):
            yield from owner.callbacks
            return
        frame = frame.f_back


class Epoch(NamedTuple):
    """An epoch of a running `fit`: index from 0, number of epochs, steps per epoch."""

    number: int
    epochs: int
    steps: int | None


def running_epoch(model: keras.Model) -> Epoch | None:
    """Return the epoch that `fit` of `model` starts now, or None outside of `fit`.

    Call this in `reset_metrics`, which `fit` calls at the start of each epoch. Keras
    passes the number of epochs and steps to callbacks, but not to the model.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_name != "reset_metrics":
        frame = frame.f_back
    while frame.f_code.co_name == "reset_metrics":  # of subclasses too
        frame = frame.f_back
    variables = frame.f_locals
    if frame.f_code.co_name != "fit" or variables.get("self") is not model:
        return None
    iterator = variables["epoch_iterator"]
    # Keras's count of the first epoch, for data of unknown length, is one too high.
    batches = iterator.steps_per_epoch or iterator.data_adapter.num_batches
    return Epoch(variables["epoch"], variables["epochs"], batches)


def label_loss(model: keras.Model, y: Any, outputs: Any, sample_weight: Any) -> Any:
    """Return the compiled loss of `model` for the given outputs."""
    return model._compile_loss(y, outputs, sample_weight)


def added_loss(model: keras.Model) -> Any:
    """Return the sum of `model.losses`, scaled as Keras adds it to the loss, or 0."""
    return sum(model._aggregate_additional_loss(each) for each in model.losses)


def loss_of_function(function: Any) -> keras.losses.Loss:
    """Return a function of a loss as an object, as `compile` makes it."""
    return LossFunctionWrapper(function)


def unscaled(value: Any) -> Any:
    """Return a loss on one replica before the division by the number of replicas."""
    return unscale_loss_for_distribution(value)


@contextlib.contextmanager
def masks_predicted(model: keras.Model) -> Iterator[bool]:
    """Within the block, make `predict_on_batch` return `(outputs, masks)` if possible.

    Yield whether this is possible: a model that defines its own `predict_step` is not
    changed. `masks` is a dictionary of the Keras masks by the key or index of the
    output, or by `""` for a single tensor. Keras itself drops these masks. The predict
    function must not be traced before the block, and must not be kept after it.
    """
    is_stock = type(model).predict_step is keras.Model.predict_step
    if not is_stock or keras.backend.backend() != "tensorflow":
        yield False
        return
    step = model.predict_step

    def with_masks(data: Any) -> tuple[Any, dict]:
        outputs = step(data)
        pairs = {"": outputs}.items()
        if isinstance(outputs, dict):
            pairs = outputs.items()
        elif isinstance(outputs, list | tuple):
            pairs = enumerate(outputs)
        masks = {str(key): getattr(x, "_keras_mask", None) for key, x in pairs}
        return outputs, {key: mask for key, mask in masks.items() if mask is not None}

    # Hides the method, and Keras does not track the attribute.
    model.__dict__["predict_step"] = with_masks
    try:
        yield True
    finally:
        del model.__dict__["predict_step"]
