"""ClassPrototypes: the layer that scores vectors by how near they are to classes."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import positive

DISTANCES = ("euclidean", "cosine")
SMALL = 1e-12  # a squared length that counts as zero


@keras.saving.register_keras_serializable(package="keras_transfer")
class ClassPrototypes(keras.Layer):
    """Scores vectors by their distance to one vector for each class, the prototype.

    For a vector f and the prototype c_k of class k, the scores are

        -||f - c_k||^2 / temperature    for `"euclidean"`,
        cos(f, c_k) / temperature       for `"cosine"`.

    The prototypes are weights that are not trained. The number of classes changes with
    `set_prototypes`. A model that calls this layer must then be traced again.

    Args:
        distance: `"euclidean"` or `"cosine"`. Defaults to `"euclidean"`.
        temperature: Float above 0. Defaults to 1.0.
        **kwargs: `name` and `dtype`, as for every Keras layer. The scores are float32
            by default, also in mixed precision.

    Input shape:
        `(batch, width)`.

    Output shape:
        `(batch, classes)`.

    Example:
        ```python
        import numpy as np
        from keras_transfer.models.class_prototypes import ClassPrototypes

        layer = ClassPrototypes()
        layer.build((None, 2))
        layer.set_prototypes(np.array([[0.0, 0.0], [3.0, 0.0]]))
        assert layer(np.array([[1.0, 0.0]])).numpy().tolist() == [[-1.0, -4.0]]
        ```

    Raises:
        ValueError: If an argument is out of range, or when called without a class.

    Reference:
        Snell et al., 2017, "Prototypical Networks for Few-shot Learning",
        arXiv 1703.05175.
    """

    def __init__(
        self,
        distance: str = "euclidean",
        temperature: float = 1.0,
        **kwargs: object,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.distance = one_of("distance", distance, DISTANCES)
        self.temperature = positive("temperature", temperature)

    def build(self, input_shape: tuple) -> None:
        """Create the threshold, and the prototypes of no class."""
        settings = dict(
            trainable=False,
            autocast=False,
            dtype="float32",
            aggregation="only_first_replica",
        )
        # Not -inf, which XLA and JSON treat in their own ways.
        lowest = keras.initializers.Constant(float(np.finfo("float32").min))
        self.unknown_below = self.add_weight(
            shape=(), initializer=lowest, name="unknown_below", **settings
        )
        self.prototypes = self.add_weight(
            shape=(0, input_shape[-1]),
            initializer="zeros",
            name="prototypes",
            **settings,
        )
        self.built = True

    def set_prototypes(self, matrix: np.ndarray) -> None:
        """Replace all prototypes by the rows of a matrix `(classes, width)`."""
        if tuple(self.prototypes.shape) != matrix.shape:
            specs = {"prototypes": (matrix.shape, "float32")}
            _keras.replace_weight(self, "prototypes", specs)
        self.prototypes.assign(matrix)

    def call(self, inputs: object) -> object:
        """Return the scores of the classes."""
        if not self.prototypes.shape[0]:
            raise ValueError(
                "The model has no classes, so it has no scores. Call "
                "model.add_class(name, ...) for each class first."
            )
        return self.scores(inputs, ops.convert_to_tensor(self.prototypes))

    def scores(self, vectors: object, prototypes: object) -> object:
        """Return the scores `(..., rows, classes)` of vectors `(..., rows, width)`.

        Args:
            vectors: Float32 tensor.
            prototypes: Float32 tensor `(..., classes, width)`.
        """
        transposed = [*range(len(prototypes.shape) - 2), -1, -2]
        transposed = [axis % len(prototypes.shape) for axis in transposed]
        if self.distance == "cosine":
            products = ops.matmul(
                _unit(vectors), ops.transpose(_unit(prototypes), transposed)
            )
            return products / self.temperature
        # Distances do not change if all vectors move. Near the origin, the sums of
        # squares lose fewer digits.
        center = ops.stop_gradient(ops.mean(prototypes, axis=-2, keepdims=True))
        vectors, prototypes = vectors - center, prototypes - center
        products = ops.matmul(vectors, ops.transpose(prototypes, transposed))
        of_prototypes = ops.sum(ops.square(prototypes), axis=-1)
        squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True) - 2 * products
        squares = squares + ops.expand_dims(of_prototypes, -2)
        return -ops.maximum(squares, 0.0) / self.temperature

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the scores. The number of classes can change."""
        return (*input_shape[:-1], None)

    def get_config(self) -> dict:
        """Return the arguments. The model knows the classes."""
        return {
            **super().get_config(),
            "distance": self.distance,
            "temperature": self.temperature,
        }


def _unit(vectors: object) -> object:
    """Return vectors of length 1. A vector of zeros stays as it is."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, SMALL))
