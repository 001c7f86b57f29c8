"""BatchLoss: the base of the losses that are one number for a whole batch."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transfer")
class BatchLoss(keras.losses.Loss):
    """A loss that two batches have together, not one for each example.

    Called as `loss(source, target)`. Under `tf.distribute` each replica computes the
    loss of its own share of the batch and divides it by the number of replicas, so
    that the sum over the replicas, which Keras takes of gradients, is their mean. All
    is computed in float32. A subclass defines `value`.

    Args:
        name: Name of the loss; None makes one from the class.
    """

    def __init__(self, *, name: str | None = None):
        # In half precision a sum over a batch loses its digits, whatever floatx is.
        super().__init__(name=name, dtype="float32")

    def __call__(
        self, source: object, target: object, sample_weight: object = None
    ) -> object:
        """Return the loss of two batches, a float32 scalar."""
        if sample_weight is not None:
            raise ValueError(
                f"{self.name} was given a sample_weight, but it is one number for the "
                "whole batch, so there is nothing to weigh. Leave sample_weight out."
            )
        # Keras cannot make a tensor of None; an empty tuple holds none.
        return super().__call__(() if source is None else source, target)

    def call(self, source: object, target: object) -> object:
        """Return the value as a vector of length 1.

        Keras divides a vector by the number of replicas, but not a scalar:
        `reduce_values` of its losses hands that back as it is.
        """
        return ops.reshape(self.value(source, target), (1,))

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's batches as a scalar."""
        raise NotImplementedError

    def get_config(self) -> dict:
        """Return the name; the reduction and the dtype cannot be chosen."""
        return {"name": self.name}


def check_matrix(name: str, x: object, *, rows: int = 1, columns: int = 1) -> None:
    """Raise unless `x` is a matrix of at least so many rows and columns."""
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2:
        what = type(x).__name__ if shape is None else f"of shape {tuple(shape)}"
        raise ValueError(
            f"{name} is {what}, but this loss needs a matrix (batch, size), one row "
            "for each example. Pool or flatten it first."
        )
    for axis, least, noun in ((0, rows, "row"), (1, columns, "column")):
        if shape[axis] is not None and shape[axis] < least:
            raise ValueError(
                f"{name} has the shape {tuple(shape)}, but this loss needs at least "
                f"{least} {noun}s: it is not defined for fewer."
            )


def check_features(source: object, target: object, *, rows: int = 1) -> None:
    """Raise unless both are matrices with the same number of columns."""
    check_matrix("source", source, rows=rows)
    check_matrix("target", target, rows=rows)
    if differ(source.shape[1:], target.shape[1:]):
        raise ValueError(
            f"source has the shape {tuple(source.shape)} and target "
            f"{tuple(target.shape)}: both need the same number of columns. Take the "
            "features of both domains from the same layer."
        )


def check_pair(name: str, value: object, first: str, second: str) -> None:
    """Raise unless `value` is a pair."""
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise ValueError(
            f"{name} is {value!r}, but this loss needs the pair ({first}, {second})."
        )


def differ(first: tuple, second: tuple) -> bool:
    """Return whether two shapes differ where both are known."""
    return len(first) != len(second) or any(
        a != b for a, b in zip(first, second, strict=True) if None not in (a, b)
    )


def log_probabilities(outputs: object, from_logits: bool) -> object:
    """Return the logarithm of the class probabilities, finite at probability 0."""
    if from_logits:
        return ops.log_softmax(outputs)
    return ops.log(ops.maximum(outputs, keras.config.epsilon()))


def probabilities(outputs: object, from_logits: bool) -> object:
    """Return the class probabilities."""
    return ops.softmax(outputs) if from_logits else outputs
