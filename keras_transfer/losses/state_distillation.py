"""StateDistillation and AttentionDistillation: match blocks of teacher and student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_transfer._arguments import one_of

COSINE, MSE = "cosine", "mse"


class BlockDistillation(keras.distillation.DistillationLoss):
    """Base of the losses between pairs of blocks.

    Args:
        blocks: Dict from blocks of the teacher to blocks of the student.
    """

    def __init__(self, blocks: Mapping[str, str]):
        names = [*blocks, *blocks.values()] if isinstance(blocks, Mapping) else []
        if not names or not all(isinstance(each, str) for each in names):
            raise ValueError(
                f"blocks={blocks!r} names no pairs of blocks. Pass a dict from blocks "
                "of the teacher to blocks of the student, by their names in "
                "kt.layer_groups, such as {'transformer_layer_1': "
                "'transformer_layer_0'}."
            )
        self.blocks = dict(blocks)

    def compute_loss(
        self,
        teacher_outputs: list,
        student_outputs: list,
        mask: Any = None,
        **kwargs: object,
    ) -> object:
        """Return the mean over the pairs, of the positions that are not padding.

        Args:
            teacher_outputs: List of a tensor for each pair.
            student_outputs: List of tensors of the same shapes.
            mask: Padding mask `(batch, positions)`, or None.
            **kwargs: Not used, as in Keras.
        """
        pairs = list(zip(teacher_outputs, student_outputs, strict=True))
        return sum(_mean(self.distance(*pair), mask) for pair in pairs) / len(pairs)

    def distance(self, teacher: Any, student: Any) -> object:
        """Return a loss for each position."""
        raise NotImplementedError

    def get_config(self) -> dict:
        """Return the arguments."""
        return {"blocks": dict(self.blocks)}

    @classmethod
    def from_config(cls, config: dict) -> BlockDistillation:
        """Return the loss of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_transfer")
class StateDistillation(BlockDistillation):
    """Match hidden states of blocks of a teacher and a student.

    The loss of a position is `1 - cos(h_t, h_s)`, as in DistilBERT, or the mean of
    `(h_t - h_s)^2`, as in TinyBERT. Pass it to `kt.models.StateDistiller`, which reads
    the states inside the backbones, and learns a projection of the student's states if
    their widths differ.

    Args:
        blocks: Dict from blocks of the teacher to blocks of the student, by their names
            in `kt.layer_groups`.
        loss: `"cosine"` or `"mse"`. Defaults to `"cosine"`.

    Raises:
        ValueError: If `blocks` is not a dict of names, or `loss` is unknown.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        states = kt.losses.StateDistillation({"block_1": "block_0"})
        teacher, student = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 2.0]]])
        assert float(states.compute_loss([teacher], [student])) == 1.0
        assert float(states.compute_loss([student], [student])) < 1e-6
        ```

    Reference:
        Sanh et al. 2019, DistilBERT, a distilled version of BERT, arXiv:1910.01108.
        Jiao et al. 2019, TinyBERT, arXiv:1909.10351.
    """

    def __init__(self, blocks: Mapping[str, str], loss: str = COSINE):
        super().__init__(blocks)
        self.loss = one_of("loss", loss, (COSINE, MSE))

    def distance(self, teacher: Any, student: Any) -> object:
        """Return the loss of each position."""
        teacher, student = (ops.cast(x, "float32") for x in (teacher, student))
        if self.loss == MSE:
            return ops.mean(ops.square(teacher - student), axis=-1)
        teacher, student = (ops.normalize(x, axis=-1) for x in (teacher, student))
        return 1.0 - ops.sum(teacher * student, axis=-1)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"loss": self.loss}


@keras.saving.register_keras_serializable(package="keras_transfer")
class AttentionDistillation(BlockDistillation):
    """Match the attention of blocks of a teacher and a student.

    The loss of a position is the sum of `(a_t - a_s)^2` over the positions that it
    attends to. `a` is the mean over the heads, so teacher and student can have
    different numbers of heads. Pass it to `kt.models.StateDistiller`.

    Args:
        blocks: Dict from blocks of the teacher to blocks of the student, by their names
            in `kt.layer_groups`. Each has to contain one
            `keras.layers.MultiHeadAttention`, as in BERT, RoBERTa and DistilBERT.

    Raises:
        ValueError: If `blocks` is not a dict of names.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        attention = kt.losses.AttentionDistillation({"block_1": "block_0"})
        teacher, student = np.array([[[1.0, 0.0]]]), np.array([[[0.5, 0.5]]])
        assert float(attention.compute_loss([teacher], [student])) == 0.5
        ```

    Reference:
        Jiao et al. 2019, TinyBERT, arXiv:1909.10351.
    """

    def distance(self, teacher: Any, student: Any) -> object:
        """Return the loss of each position."""
        teacher, student = (ops.cast(x, "float32") for x in (teacher, student))
        return ops.sum(ops.square(teacher - student), axis=-1)


def _mean(values: Any, mask: Any) -> object:
    """Return the mean over examples and the positions that are not padding."""
    if mask is None:
        return ops.mean(values)
    weight = ops.cast(mask, "float32")
    return ops.sum(values * weight) / ops.maximum(ops.sum(weight), 1.0)
