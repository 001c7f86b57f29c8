"""MaskedMean and LastToken: reduce tokens to one vector, without the padding."""

import keras

from keras_transfer.layers.kept_positions import last_of
from keras_transfer.layers.kept_positions import mean_of


@keras.saving.register_keras_serializable(package="keras_transfer")
class MaskedMean(keras.Layer):
    """Mean over the positions that the mask keeps, or zeros if it keeps no position.

    `y = sum_t m_t x_t / max(1, sum_t m_t)`

    The sum is computed in float32 for every compute dtype, because a long sum
    overflows in float16. For a row without any token, this layer returns zeros, while
    `keras.layers.GlobalAveragePooling1D` returns NaN.

    Args:
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Input shape:
        `(batch, positions, features)`, and a mask `(batch, positions)`.

    Output shape:
        `(batch, features)`.

    Example:
        ```python
        import numpy as np
        from keras_transfer.backbones.pooling import MaskedMean

        x = np.array([[[1.0], [3.0], [100.0]]])
        y = MaskedMean()(x, mask=np.array([[1, 1, 0]]))
        assert float(y[0, 0]) == 2.0
        ```

    Reference:
        Reimers and Gurevych, 2019, "Sentence-BERT", arXiv 1908.10084.
    """

    def __init__(self, **kwargs: object):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: object = None) -> None:
        """Nothing to build."""
        self.built = True

    def call(self, inputs: object, mask: object = None) -> object:
        """Return the mean of the rows that `mask` keeps."""
        return mean_of(inputs, mask)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape without the positions."""
        return (input_shape[0], input_shape[-1])

    def compute_mask(self, inputs: object, previous_mask: object) -> None:
        """Return no mask: there are no positions left."""
        return None

    def get_config(self) -> dict:
        """Return name and dtype; Keras's automatic config cannot store a policy."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="keras_transfer")
class LastToken(keras.Layer):
    """The last position that the mask keeps, or zeros if it keeps no position.

    In a causal model, only this position depends on the whole text. The padding may be
    on either side.

    Args:
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Input shape:
        `(batch, positions, features)`, and a mask `(batch, positions)`.

    Output shape:
        `(batch, features)`.

    Example:
        ```python
        import numpy as np
        from keras_transfer.backbones.pooling import LastToken

        x = np.array([[[1.0], [3.0], [100.0]]])
        y = LastToken()(x, mask=np.array([[1, 1, 0]]))
        assert float(y[0, 0]) == 3.0
        ```

    Reference:
        Radford et al., 2018, "Improving Language Understanding by Generative
        Pre-Training" (it uses the state of the last token); no arXiv number.
    """

    def __init__(self, **kwargs: object):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: object = None) -> None:
        """Nothing to build."""
        self.built = True

    def call(self, inputs: object, mask: object = None) -> object:
        """Return the last row that `mask` keeps."""
        return last_of(inputs, mask)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape without the positions."""
        return (input_shape[0], input_shape[-1])

    def compute_mask(self, inputs: object, previous_mask: object) -> None:
        """Return no mask: there are no positions left."""
        return None

    def get_config(self) -> dict:
        """Return name and dtype; Keras's automatic config cannot store a policy."""
        return super().get_config()
