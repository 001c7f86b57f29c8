"""BatchLoss: base class of the losses that return one number for a whole batch."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transfer")
class BatchLoss(keras.losses.Loss):
    """Base class of losses with one value for two batches, not one for each example.

    Call the loss as `loss(source, target)`. Under `tf.distribute` each replica
    computes the loss of its own share of the batch and divides it by the number of
    replicas. Keras sums the gradients over the replicas, so the result is their mean.
    The loss is computed in float32. A subclass defines `value`.

    Args:
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.
    """

    def __init__(self, *, name: str | None = None):
        # In half precision a sum over a batch would lose digits.
        super().__init__(name=name, dtype="float32")

    def __call__(
        self, source: object, target: object, sample_weight: object = None
    ) -> object:
        """Return the loss of two batches, a float32 scalar."""
        if sample_weight is not None:
            raise ValueError(
                f"{self.name} got a sample_weight, but this loss is one number for the "
                "whole batch, so it cannot weight the examples. Leave out "
                "sample_weight."
            )
        # Keras cannot convert None to a tensor, but it accepts an empty tuple.
        return super().__call__(() if source is None else source, target)

    def call(self, source: object, target: object) -> object:
        """Return the value as a vector of length 1.

        Keras divides a vector by the number of replicas, but not a scalar: the
        function `reduce_values` of its losses returns a scalar unchanged.
        """
        return ops.reshape(self.value(source, target), (1,))

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's batches as a scalar."""
        raise NotImplementedError

    def get_config(self) -> dict:
        """Return the name; the reduction and the dtype cannot be chosen."""
        return {"name": self.name}


def check_matrix(name: str, x: object, *, rows: int = 1, columns: int = 1) -> None:
    """Raise an error unless `x` is a matrix with at least `rows` and `columns`."""
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2:
        what = type(x).__name__ if shape is None else f"of shape {tuple(shape)}"
        raise ValueError(
            f"{name} is {what}, but this loss needs a matrix (batch, size), with one "
            "row for each example. Pool or flatten it first."
        )
    for axis, least, noun in ((0, rows, "row"), (1, columns, "column")):
        if shape[axis] is not None and shape[axis] < least:
            raise ValueError(
                f"{name} has the shape {tuple(shape)}, but this loss is not defined "
                f"for fewer than {least} {noun}s. Pass at least {least} {noun}s."
            )


def check_features(source: object, target: object, *, rows: int = 1) -> None:
    """Raise an error unless both are matrices with the same number of columns."""
    check_matrix("source", source, rows=rows)
    check_matrix("target", target, rows=rows)
    if differ(source.shape[1:], target.shape[1:]):
        raise ValueError(
            f"source has the shape {tuple(source.shape)} and target has the shape "
            f"{tuple(target.shape)}, but both need the same number of columns. Take "
            "the features of both domains from the same layer."
        )


def check_pair(name: str, value: object, first: str, second: str) -> None:
    """Raise an error unless `value` is a pair."""
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise ValueError(
            f"{name} is {value!r}, but this loss needs the pair ({first}, {second})."
        )


def differ(first: tuple, second: tuple) -> bool:
    """Return whether two shapes differ in a dimension that both of them define."""
    return len(first) != len(second) or any(
        a != b for a, b in zip(first, second, strict=True) if None not in (a, b)
    )


def log_probabilities(outputs: object, from_logits: bool) -> object:
    """Return the logarithm of the class probabilities, finite for probability 0."""
    if from_logits:
        return ops.log_softmax(outputs)
    return ops.log(ops.maximum(outputs, keras.config.epsilon()))


def probabilities(outputs: object, from_logits: bool) -> object:
    """Return the class probabilities."""
    return ops.softmax(outputs) if from_logits else outputs
