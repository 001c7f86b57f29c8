"""NextTokenLoss: the loss of a language model, added inside another model."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transfer")
class NextTokenLoss(keras.layers.Layer):
    """Adds the cross-entropy of each next token to the loss, in training only.

    Args:
        embedding: A built `keras.layers.ReversibleEmbedding` of the model, which gives
            the logits. It is not a layer of this layer.
        weight: Float, the factor of the loss.
        **kwargs: `name`.
    """

    def __init__(
        self, embedding: keras.layers.Layer, weight: float, **kwargs: object
    ) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False} | kwargs)
        self.weight = weight
        self.supports_masking = True
        self._embedding = lambda: embedding  # hidden from Keras
        self.built = True

    def call(
        self, states: object, token_ids: object, mask: object, training: bool = False
    ) -> object:
        """Add the loss, and return the states.

        Args:
            states: `(batch, tokens, features)`.
            token_ids: `(batch, tokens)`.
            mask: `(batch, tokens)`, 0 for padding.
            training: Whether the loss is added.
        """
        if training:
            logits = self._embedding()(states[:, :-1], reverse=True)
            losses = keras.losses.sparse_categorical_crossentropy(
                token_ids[:, 1:], ops.cast(logits, "float32"), from_logits=True
            )
            kept = ops.cast(mask, "bool")
            kept = ops.logical_and(kept[:, 1:], kept[:, :-1])
            total = ops.sum(ops.where(kept, losses, ops.zeros_like(losses)))
            count = ops.sum(ops.cast(kept, "float32"))
            self.add_loss(self.weight * total / ops.maximum(count, 1.0))
        return states
