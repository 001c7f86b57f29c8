"""Perplexity: the exponential of the mean cross-entropy of words."""

import keras
from keras import ops

PADDING = 0  # the id that is not a word


class Perplexity(keras.metrics.MeanMetricWrapper):
    """The exponential of the mean cross-entropy, in nats, without padding.

    A model that knows nothing about V words has the perplexity V.

    Args:
        name: Name in the logs. Defaults to `"perplexity"`.
    """

    def __init__(self, name: str = "perplexity"):
        super().__init__(cross_entropy, name)

    def update_state(
        self, y_true: object, y_pred: object, sample_weight: object = None
    ) -> None:
        """Add the words of a batch."""
        words = ops.cast(ops.not_equal(y_true, PADDING), "float32")
        if sample_weight is not None:
            words = words * per_word(sample_weight, y_true)
        super().update_state(y_true, y_pred, words)

    def result(self) -> object:
        """Return the perplexity of all words so far."""
        return ops.exp(super().result())

    def get_config(self) -> dict:
        """Return the name."""
        return {"name": self.name}


def cross_entropy(y_true: object, y_pred: object) -> object:
    """Return the cross-entropy of each position, from logits."""
    return keras.losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=True
    )


def per_word(sample_weight: object, y_true: object) -> object:
    """Return a weight for each word, from weights of words or of rows; None is None."""
    if sample_weight is None:
        return None
    weights = ops.cast(sample_weight, "float32")
    if len(weights.shape) == 1:  # Keras cannot combine these with its mask of words
        weights = weights[:, None]
    return weights * ops.ones(ops.shape(y_true), "float32")
