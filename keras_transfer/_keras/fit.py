"""Keras's private side of training: what compile() was given, where `fit` stands."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras
from keras.src.losses.loss import unscale_loss_for_distribution

from keras_transfer._keras.layers import flat_layers


def compile_arguments(model: keras.Model) -> dict:
    """Return what was passed to compile(), the objects themselves.

    Where it was called again without a loss or metrics, Keras keeps the earlier ones.
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


def untrained(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that no gradient may change: statistics, seeds, counts."""
    able = {id(v) for each in flat_layers(model) for v in each._trainable_variables}
    return [variable for variable in model.variables if id(variable) not in able]


def running_callbacks() -> Iterator[keras.callbacks.Callback]:
    """Yield the callbacks of the `fit` whose set_model() is being called, in order.

    Keras gives a callback no way to see its neighbors.
    """
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList):
            yield from owner.callbacks
            return
        frame = frame.f_back


class Epoch(NamedTuple):
    """An epoch of a running `fit`: its number from 0, of how many, of which length."""

    number: int
    epochs: int
    steps: int | None


def running_epoch(model: keras.Model) -> Epoch | None:
    """Return the epoch that the `fit` of `model` begins; None if it begins none.

    To be called in `reset_metrics`, which `fit` calls at the beginning of each epoch.
    Keras tells callbacks the number of epochs and steps, but not the model.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_name != "reset_metrics":
        frame = frame.f_back
    while frame.f_code.co_name == "reset_metrics":  # of subclasses too
        frame = frame.f_back
    found = frame.f_locals
    if frame.f_code.co_name != "fit" or found.get("self") is not model:
        return None
    iterator = found["epoch_iterator"]
    # Where the data does not know, Keras counts in the first epoch, one too many.
    batches = iterator.steps_per_epoch or iterator.data_adapter.num_batches
    return Epoch(found["epoch"], found["epochs"], batches)


def label_loss(model: keras.Model, y: Any, outputs: Any, sample_weight: Any) -> Any:
    """Return the compiled loss of other outputs than those of `model`."""
    return model._compile_loss(y, outputs, sample_weight)


def unscaled(value: Any) -> Any:
    """Return the value of a loss as it is on one replica, before it is shared out."""
    return unscale_loss_for_distribution(value)


def gradient(function: Any, x: Any) -> Any:
    """Return the gradient of a scalar `function` at a tensor, as a constant."""
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(
            f"Gradients inside a model need TensorFlow, not {keras.backend.backend()}."
        )
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tf.stop_gradient(tape.gradient(value, x))


@contextlib.contextmanager
def masks_predicted(model: keras.Model) -> Iterator[bool]:
    """Within the block, `predict_on_batch` gives `(outputs, masks)`; say whether.

    The masks are those of `outputs` that have one: by key, by index, or by `""` for
    one tensor. Keras drops them. A model with a `predict_step` of its own is left as it
    is. No function may be traced before, or be kept after.
    """
    able = type(model).predict_step is keras.Model.predict_step
    if not able or keras.backend.backend() != "tensorflow":
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
        masks = {str(key): getattr(each, "_keras_mask", None) for key, each in pairs}
        return outputs, {key: each for key, each in masks.items() if each is not None}

    # In front of the method, and past Keras's tracking of attributes.
    model.__dict__["predict_step"] = with_masks
    try:
        yield True
    finally:
        del model.__dict__["predict_step"]


def is_finite_for(model: keras.Model, x: Any) -> bool:
    """Return whether outputs for inputs `x`, and gradients of weights, are finite."""
    import tensorflow as tf

    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        outputs = keras.tree.flatten(model(x, training=False))
        value = sum(tf.reduce_sum(tf.cast(each, "float32")) for each in outputs)
    found = [*outputs, *tape.gradient(value, variables)]
    found = [tf.convert_to_tensor(each) for each in found if each is not None]
    return all(bool(tf.reduce_all(tf.math.is_finite(each))) for each in found)
