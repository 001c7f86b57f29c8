"""EmbeddingDropout: dropout of whole words instead of single values."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import whole_number


@keras.saving.register_keras_serializable(package="keras_transfer")
class EmbeddingDropout(keras.layers.Layer):
    """Drop whole words: zero all values of a word, wherever it occurs in the batch.

    Put it after an embedding, with the token ids. In training, each word w of the
    vocabulary draws one m_w, which is 0 with the probability `rate` and 1 otherwise.
    The vector e of the word at a position becomes

        y = m_w e / (1 - rate)

    So a dropped word disappears from the whole batch, as if its row of the embedding
    matrix were zero. In inference the layer is the identity. A tied output layer keeps
    the full matrix.

    Args:
        input_dim: Int of at least 1, the size of the vocabulary, as in
            `keras.layers.Embedding`. Ids must be below it.
        rate: Float in [0, 1), the fraction of words to drop.
        seed: Integer, the seed of the random numbers, or `None` to follow
            `keras.utils.set_random_seed`. Defaults to `None`.
        **kwargs: `name` and `dtype`, as for every layer.

    Input shape:
        List of the vectors `(batch, positions, features)` and the token ids
        `(batch, positions)`.

    Output shape:
        `(batch, positions, features)`.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        ids = np.array([[1, 2, 1]])
        vectors = keras.layers.Embedding(5, 4)(ids)
        y = kt.layers.EmbeddingDropout(5, rate=0.5)([vectors, ids], training=True)
        assert (y[0, 0] == y[0, 2]).numpy().all()  # the same word
        ```

    Raises:
        TypeError: If the input is not a list of vectors and ids.
        ValueError: If `input_dim` or `rate` is out of range, or if the ids do not have
            the shape of the vectors without their last axis.

    Reference:
        Merity, Keskar and Socher, 2018, "Regularizing and Optimizing LSTM Language
        Models", arXiv 1708.02182, section 4.3; Gal and Ghahramani, 2016, "A
        Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
        arXiv 1512.05287.
    """

    def __init__(
        self, input_dim: int, rate: float, *, seed: int | None = None, **kwargs: object
    ):
        super().__init__(**kwargs)
        self.input_dim = whole_number(
            "input_dim", input_dim, why="it is the size of the vocabulary"
        )
        self.rate = dropout_rate("rate", rate)
        self.seed = None if seed is None else whole_number("seed", seed, None)
        self._seeds = keras.random.SeedGenerator(self.seed)
        self.supports_masking = True

    def build(self, input_shape: list) -> None:
        """Check that there are vectors and ids of the same shape."""
        pair = isinstance(input_shape, list | tuple) and len(input_shape) == 2
        if not pair or not all(isinstance(x, list | tuple) for x in input_shape):
            raise TypeError(
                f"The input of EmbeddingDropout has the shape {input_shape}, but it "
                "needs two tensors. Pass a list of the vectors and the token ids: "
                "layer([embedding(ids), ids])."
            )
        vectors, ids = (tuple(shape) for shape in input_shape)
        if vectors[:-1] != ids:
            raise ValueError(
                f"The ids have the shape {ids}, but the vectors have the shape "
                f"{vectors}, so the ids must have the shape {vectors[:-1]}. Pass the "
                "ids that the embedding looked up: layer([embedding(ids), ids])."
            )
        self.built = True

    def call(self, inputs: list, training: bool = False) -> object:
        """Return the vectors, without those of dropped words if `training`."""
        vectors, ids = inputs
        vectors = ops.cast(vectors, self.compute_dtype)
        if not training or not self.rate:
            return vectors
        ones = ops.ones((self.input_dim,), dtype=self.compute_dtype)
        kept = keras.random.dropout(ones, self.rate, seed=self._seeds)
        return vectors * ops.take(kept, ops.cast(ids, "int32"), axis=0)[..., None]

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return the shape of the vectors."""
        return tuple(input_shape[0])

    def compute_mask(self, inputs: list, mask: object = None) -> object:
        """Return the mask of the vectors."""
        return mask[0] if isinstance(mask, list | tuple) else mask

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {
            "input_dim": self.input_dim,
            "rate": self.rate,
            "seed": self.seed,
        }
