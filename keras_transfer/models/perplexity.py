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

    def result(self) -> object:
        """Return the perplexity of all words so far."""
        return ops.exp(super().result())

    def get_config(self) -> dict:
        """Return the name."""
        return {"name": self.name}


def cross_entropy(y_true: object, y_pred: object) -> object:
    """Return the cross-entropy of each position, from logits."""
    return keras.losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=True, ignore_class=PADDING
    )
