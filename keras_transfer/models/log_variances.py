"""LogVariances: a trainable log variance for each task."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transfer")
class LogVariances(keras.layers.Layer):
    """Holds `s_i = log(variance_i)` of each task, which start at 0.

    A layer of its own, so that the variables are in the group of the head.

    Args:
        count: Int, the number of tasks.
        **kwargs: As for every Keras layer.
    """

    def __init__(self, count: int, **kwargs: object):
        super().__init__(**kwargs)
        self.count = count
        self.values = self.add_weight(
            (count,), "zeros", "float32", name="values", autocast=False
        )
        self.built = True

    def call(self) -> object:
        """Return the log variances."""
        return ops.convert_to_tensor(self.values)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "count": self.count}
