"""MarkedState: a hidden state with the Keras mask of its padding."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transfer")
class MarkedState(keras.layers.Layer):
    """Return a tensor unchanged, with a padding mask as its Keras mask.

    keras-hub's backbones take the mask as an input and return tensors without a mask,
    so a later layer, such as an average or an LSTM, would also read the padding.

    Args:
        **kwargs: `name`, as for every Keras layer.

    Input shape:
        A tensor; or a list of a tensor `(batch, positions, features)` and the mask
        `(batch, positions)`, in which 0 is padding.

    Output shape:
        The shape of the tensor.

    Example:
        ```python
        import numpy as np
        from keras_transfer.backbones.marked_state import MarkedState

        state, mask = np.ones((1, 3, 2)), np.array([[1, 1, 0]])
        marked = MarkedState()([state, mask])
        assert marked.shape == (1, 3, 2)
        ```

    Reference:
        Keras, "Understanding masking & padding", keras.io/guides.
    """

    def __init__(self, **kwargs: object):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def build(self, input_shape: object = None) -> None:
        """Build the layer, which has no weights."""
        self.built = True

    def call(self, inputs: object) -> object:
        """Return the tensor."""
        # The mask is an attribute of the tensor, so the input itself must not get one.
        return ops.copy(inputs[0] if isinstance(inputs, list | tuple) else inputs)

    def compute_mask(self, inputs: object, previous_mask: object) -> object:
        """Return the mask, or the own mask of a single tensor."""
        if isinstance(inputs, list | tuple):
            return ops.cast(inputs[1], "bool")
        return previous_mask

    def compute_output_shape(self, input_shape: object) -> tuple:
        """Return the shape of the tensor."""
        first = input_shape[0]
        return tuple(first if isinstance(first, list | tuple) else input_shape)

    def get_config(self) -> dict:
        """Return name and dtype."""
        return super().get_config()
