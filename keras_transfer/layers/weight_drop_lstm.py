"""WeightDropLSTM: an LSTM with dropout on its recurrent weights."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import dropout_rate


@keras.saving.register_keras_serializable(package="keras_transfer")
class WeightDropLSTM(keras.layers.LSTM):
    """An LSTM that drops entries of its recurrent kernel, once for each batch.

    Dropout on the state of an LSTM destroys what the state remembers. This layer drops
    weights instead (DropConnect). In training, each batch draws one mask for the
    recurrent kernel U, which holds for all sequences and all their positions. With the
    rate p of `weight_dropout` and a mask M of zeros (probability p) and ones:

        U' = M * U / (1 - p)

    The layer is a `keras.layers.LSTM` in all other respects: the same weights under the
    same names, the fused computation of a GPU, masks, and states. In inference the
    two are equal. Each replica and each call of a training step draws its own mask. An
    adapter of the recurrent kernel is added after the dropout.

    Args:
        units: Int of at least 1, the size of the output and of the state.
        weight_dropout: Float in [0, 1), the rate of recurrent weights to drop. Defaults
            to 0.5.
        **kwargs: Arguments of `keras.layers.LSTM`, such as `return_sequences`,
            `return_state`, `seed`, `name` and `dtype`.

    Input shape:
        `(batch, positions, features)`, and optionally a mask `(batch, positions)`. The
        call takes an `initial_state`, a list of two tensors `(batch, units)`.

    Output shape:
        As in `keras.layers.LSTM`: `(batch, units)`, or `(batch, positions, units)` with
        `return_sequences=True`. With `return_state=True`, also both states, each of
        shape `(batch, units)`.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        layer = kt.layers.WeightDropLSTM(3, weight_dropout=0.5, seed=1)
        x = np.ones((2, 5, 4))
        assert (layer(x) == layer(x)).numpy().all()
        assert (layer(x, training=True) != layer(x)).numpy().any()
        ```

    Raises:
        ValueError: If `units` or `weight_dropout` is out of range.

    Reference:
        Merity, Keskar and Socher, 2018, "Regularizing and Optimizing LSTM Language
        Models", arXiv 1708.02182, section 2; Wan et al., 2013, "Regularization of
        Neural Networks using DropConnect".
    """

    def __init__(self, units: int, weight_dropout: float = 0.5, **kwargs: object):
        super().__init__(units, **kwargs)
        self.weight_dropout = dropout_rate("weight_dropout", weight_dropout)
        self._weight_seeds = keras.random.SeedGenerator(kwargs.get("seed"))

    def call(
        self,
        sequences: object,
        initial_state: list | None = None,
        mask: object = None,
        training: bool = False,
    ) -> object:
        """Return the outputs, with a new mask of the recurrent kernel if `training`."""

        def outputs() -> object:
            return super(WeightDropLSTM, self).call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )

        if not training or not self.weight_dropout:
            return outputs()
        with _keras.substituted(self.cell, "recurrent_kernel", self._dropped):
            return outputs()

    def _dropped(self, kernel: object) -> object:
        kernel = ops.convert_to_tensor(kernel)
        return keras.random.dropout(
            kernel, self.weight_dropout, seed=self._weight_seeds
        )

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"weight_dropout": self.weight_dropout}
