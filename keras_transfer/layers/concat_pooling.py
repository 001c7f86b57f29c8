"""ConcatPooling: the last, the largest and the mean state of a sequence, in a row."""

import keras
from keras import ops

from keras_transfer.layers.kept_positions import largest_of
from keras_transfer.layers.kept_positions import last_of
from keras_transfer.layers.kept_positions import mean_of


@keras.saving.register_keras_serializable(package="keras_transfer")
class ConcatPooling(keras.Layer):
    """Concatenate the last, the largest and the mean state of a sequence.

    A text of hundreds of words is often decided by a few of them, and the last state
    of a recurrent network may have forgotten them. With the states h_1 ... h_T:

        y = [h_T, max_t h_t, mean_t h_t]

    Only positions that the mask keeps count: h_T is the last of them, and padding
    enters neither the maximum nor the mean. The padding may be on either side. A row
    without any token gives zeros. The layer fits every backbone that returns a
    sequence: `kt.models.TransferClassifier(backbone, 2, pooling="concat")` uses it.

    Args:
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Input shape:
        `(batch, positions, features)`, and a mask `(batch, positions)`.

    Output shape:
        `(batch, 3 * features)`.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        x = np.array([[[4.0], [2.0], [100.0]]])
        y = kt.layers.ConcatPooling()(x, mask=np.array([[1, 1, 0]]))
        assert y.numpy().tolist() == [[2.0, 4.0, 3.0]]
        ```

    Raises:
        ValueError: If the input does not have three axes.

    Reference:
        Howard and Ruder, 2018, "Universal Language Model Fine-tuning for Text
        Classification", arXiv 1801.06146, section 3.3.
    """

    def __init__(self, **kwargs: object):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        """Check that there is an axis of positions."""
        if len(input_shape) != 3:
            raise ValueError(
                f"The input of ConcatPooling has the shape {tuple(input_shape)}, but "
                "it pools over the positions of a sequence. Pass a tensor of shape "
                "(batch, positions, features), such as the output of an LSTM with "
                "return_sequences=True."
            )
        self.built = True

    def call(self, inputs: object, mask: object = None) -> object:
        """Return the three vectors of the positions that `mask` keeps, in a row."""
        parts = [each(inputs, mask) for each in (last_of, largest_of, mean_of)]
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape without the positions, and three times as wide."""
        width = input_shape[-1]
        return (input_shape[0], None if width is None else 3 * width)

    def compute_mask(self, inputs: object, previous_mask: object) -> None:
        """Return no mask: there are no positions left."""
        return None

    def get_config(self) -> dict:
        """Return name and dtype; Keras's automatic config cannot store a policy."""
        return super().get_config()
