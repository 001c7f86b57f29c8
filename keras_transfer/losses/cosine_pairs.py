"""CosinePairs: embeddings of one class point one way, and of other classes apart."""

import keras
from keras import ops

TINY = 1e-12


@keras.saving.register_keras_serializable(package="keras_transfer")
class CosinePairs(keras.losses.Loss):
    """The squared error of cosine similarities between the examples of a batch.

    A few labels make many pairs: with `n` labels, `n (n - 1) / 2`. An encoder that
    learns from pairs is less likely to overfit than a classifier (SetFit). For the
    embeddings `u_i` of a batch with labels `y_i`, the loss of example `i` is

    `L_i = 1/2 mean_{j: y_j = y_i} (1 - cos(u_i, u_j))^2
    + 1/2 mean_{j: y_j != y_i} cos(u_i, u_j)^2`

    with the means over all other examples of the batch. So pairs of one class and pairs
    of two classes count equally, however many classes there are. A mean over no pairs
    is 0. SetFit draws single pairs, with the same targets 1 and 0. All pairs of a batch
    need fewer passes of the encoder.

    `kt.fine_tune(strategy="contrastive")` trains with this loss. You can also compile
    `kt.backbones.features(backbone)` with it. On several replicas, the pairs are those
    of each replica's share of the batch. A sample weight multiplies `L_i`; the example
    counts fully in the losses of the others.

    Args:
        reduction: As in `keras.losses.Loss`. Defaults to `"sum_over_batch_size"`.
        name: String, the name of the loss. Defaults to `"cosine_pairs"`.
        dtype: Dtype of the result, as in `keras.losses.Loss`. It is computed in
            float32. Defaults to None: `keras.config.floatx()`.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        loss = kt.losses.CosinePairs()
        right = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        assert float(loss(np.array([0, 0, 1]), right)) == 0.0
        assert float(loss(np.array([0, 1, 1]), right)) > 0.5
        ```

    Raises:
        ValueError: When called, if the embeddings are not `(batch, features)`, or the
            labels are not class numbers `(batch,)` or `(batch, 1)` or one-hot rows
            `(batch, classes)`.

    Reference:
        Tunstall et al. 2022, Efficient Few-Shot Learning Without Prompts,
        arXiv:2209.11055 (SetFit), with the loss of Reimers and Gurevych 2019,
        Sentence-BERT, arXiv:1908.10084.
    """

    def __init__(
        self,
        *,
        reduction: str = "sum_over_batch_size",
        name: str = "cosine_pairs",
        dtype: object = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: object, y_pred: object) -> object:
        """Return the loss of each example, `(batch,)`.

        Args:
            y_true: The labels.
            y_pred: The embeddings `(batch, features)`.
        """
        if len(y_pred.shape) != 2 or y_pred.shape[0] == 0:
            raise ValueError(
                f"The embeddings have the shape {tuple(y_pred.shape)}, but CosinePairs "
                "needs one vector for each example, `(batch, features)`. Pool them, "
                "such as by kt.backbones.features."
            )
        classes = _class_numbers(y_true)
        same = ops.equal(classes[:, None], classes[None, :])
        vectors = ops.cast(y_pred, "float32")
        squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
        vectors = vectors * ops.rsqrt(ops.maximum(squares, TINY))
        cosines = ops.matmul(vectors, ops.transpose(vectors))
        errors = ops.square(1.0 - cosines)
        same, other = (ops.cast(x, "float32") for x in (same, ops.logical_not(same)))
        # The diagonal is not a pair.
        near = ops.sum(errors * same, axis=-1) - ops.diagonal(errors)
        near = near / ops.maximum(ops.sum(same, axis=-1) - 1.0, 1.0)
        far = ops.sum(ops.square(cosines) * other, axis=-1)
        far = far / ops.maximum(ops.sum(other, axis=-1), 1.0)
        return ops.cast(0.5 * (near + far), self.dtype)


def _class_numbers(labels: object) -> object:
    if len(labels.shape) == 1:
        return labels
    if len(labels.shape) != 2:
        raise ValueError(
            f"The labels have the shape {tuple(labels.shape)}, but CosinePairs needs "
            "one class for each example: `(batch,)`, `(batch, 1)` or one-hot rows."
        )
    return labels[:, 0] if labels.shape[1] == 1 else ops.argmax(labels, axis=-1)
