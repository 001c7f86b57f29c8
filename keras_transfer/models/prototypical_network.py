"""PrototypicalNetwork: classes that a few examples define, without a trained head."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer._arguments import whole_number
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.data.labels import listed
from keras_transfer.models.episode_batch import check_replicas
from keras_transfer.models.episode_batch import is_episode
from keras_transfer.models.episode_batch import is_plain
from keras_transfer.models.episode_batch import sizes
from keras_transfer.models.nearest_class_model import BATCH_SIZE
from keras_transfer.models.nearest_class_model import NearestClassModel

TEMPERATURES = {"euclidean": 1.0, "cosine": 0.1}


@keras.saving.register_keras_serializable(package="keras_transfer")
class PrototypicalNetwork(NearestClassModel):
    """A few-shot classifier: the nearest mean of the examples of a class, in features.

    The prototype of a class k is the mean of the features of its support examples,

        c_k = 1 / |S_k| sum_{x in S_k} f(x),

    and the score of the class for an example x is `-||f(x) - c_k||^2 / temperature`,
    or the cosine of the two divided by the temperature. The softmax of the scores are
    probabilities, but they are not calibrated.

    It works at once on any pretrained backbone: `add_class(name, examples)` computes a
    prototype, and the next `predict` has one more column. `fit` trains the backbone
    for this use on episodes, the data of `kt.data.episodes`, with the cross-entropy of
    the query examples under the prototypes of the support examples. Its classes differ
    from those that are added later. `evaluate` takes episodes, or plain examples with
    the numbers of the added classes. In training, the support and query examples of a
    batch run through the network together, as in the authors' code, so a
    BatchNormalization sees both.

    Prototypes do not follow when the backbone trains, so `fit` refuses a model that
    has classes and weights to train. Remove the classes, and add them again after it.

    Classes, prototypes and the threshold of `fit_unknown` are saved with the model.
    The signatures of `kt.export_serving` return the name of the nearest class as
    `label`, or `"unknown"` below the threshold. A `keras.Model` of your own around
    this model keeps the number of classes with which it was traced: compile it again
    when classes change.

    Args:
        backbone: As in `kt.models.TransferClassifier`. The paper's is four blocks of
            convolution, BatchNormalization, ReLU and pooling, and Flatten.
        distance: `"euclidean"`, as in the paper, or `"cosine"`. Defaults to
            `"euclidean"`.
        temperature: Float above 0, by which the scores are divided. It changes the
            training, but not which class is nearest. Defaults to None: 1.0 for
            `"euclidean"`, and 0.1 for `"cosine"`, whose scores would otherwise be too
            close for a softmax.
        pooling: As in `kt.backbones.features`. Defaults to `"auto"`.
        name: Name of the model.

    Input shape:
        The input shape of the backbone. In `fit`, a dict of `"support"`,
        `(episodes, way, shot, ...)`, and `"query"`, `(episodes, queries, ...)`.

    Output shape:
        `(batch, classes)`, larger is nearer. `(episodes, queries, way)` for episodes.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        backbone = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        model = kt.models.PrototypicalNetwork(backbone)
        model.add_class("left", np.array([[-1.0, 0.0], [-3.0, 0.0]]))
        model.add_class("right", np.array([[2.0, 0.0]]))
        assert model.classify(np.array([[1.0, 0.0], [-1.0, 5.0]])) == ["right", "left"]

        # Training of the backbone, on other classes:
        x, y = np.random.rand(20, 2), np.repeat([0, 1], 10)
        model = kt.models.PrototypicalNetwork(
            keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        )
        model.compile("adam", metrics=["accuracy"])
        data = kt.data.episodes(x, y, way=2, shot=1, query=3, num_episodes=5)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        ```

    Raises:
        TypeError: If the backbone is not a model, or is a Task that already has a head.
        ValueError: If the backbone is not built or its features are not vectors, or if
            another argument is out of range.

    Reference:
        Snell et al., 2017, "Prototypical Networks for Few-shot Learning",
        arXiv 1703.05175.
    """

    def __init__(
        self,
        backbone: keras.Model | FrozenBackbone,
        *,
        distance: str = "euclidean",
        temperature: float | None = None,
        pooling: str | None = "auto",
        name: str | None = None,
    ):
        if temperature is None:
            temperature = TEMPERATURES.get(distance, 1.0)
        super().__init__(
            backbone,
            distance=distance,
            temperature=temperature,
            pooling=pooling,
            name=name,
        )
        self.input_spec = None  # the spec of one input would reject episodes

    def add_class(
        self, name: str, examples: Any, batch_size: int = BATCH_SIZE
    ) -> PrototypicalNetwork:
        """Add a class from its examples, and return the model.

        Args:
            name: Its name, which no other class has.
            examples: One or more examples, as `predict` takes them.
            batch_size: Number of examples that run at once. Defaults to 32.

        Raises:
            ValueError: If the name is taken, if there is no example, if the examples
                have another shape, or if their features are not finite.
        """
        whole_number("batch_size", batch_size)
        name = self._check_new(name)
        examples = self._checked_support(name, examples)
        self._append(name, self._vectors(examples, batch_size).mean(0))
        return self

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any
    ) -> None:
        """Configure the training, as for every model, with the cross-entropy as loss.

        Args:
            optimizer: As in `keras.Model.compile`.
            loss: Defaults to None, the cross-entropy of the scores.
            **kwargs: Other arguments of `keras.Model.compile`.
        """
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        super().compile(optimizer, loss, **kwargs)

    def compile_from_config(self, config: dict) -> None:
        """Compile a loaded model as it was compiled when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train on episodes, as every model trains on a dataset.

        Args:
            x: The result of `kt.data.episodes`, or another form of such episodes.
            *args: As in `keras.Model.fit`.
            **kwargs: As in `keras.Model.fit`.

        Raises:
            ValueError: If the data are plain examples, the model has classes and
                weights to train, or a batch has fewer episodes than replicas.
        """
        # Before the step runs: on JAX it first runs as if it were not training.
        if is_plain(x):
            raise _plain_examples()
        self._check_no_classes()
        check_replicas(self, x)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the loss and the metrics, as every model does.

        Args:
            x: Episodes, as in `fit`, or plain examples.
            *args: As in `keras.Model.evaluate`: the numbers of the classes.
            **kwargs: As in `keras.Model.evaluate`.

        Raises:
            ValueError: As in `fit`.
        """
        check_replicas(self, x)
        return super().evaluate(x, *args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> object:
        """Return the scores of the classes, or of the classes of each episode."""
        if training and not is_episode(inputs):
            raise _plain_examples()
        if not is_episode(inputs):
            return super().call(inputs, training=training, mask=mask)
        support, query = inputs["support"], inputs["query"]
        way, shot, queries = sizes(support, query)
        rows = keras.tree.map_structure(lambda *each: _joined(*each), support, query)
        features = ops.cast(self._network()(rows, training=training), "float32")
        width = features.shape[-1]
        count = ops.shape(keras.tree.flatten(support)[0])[0] * way * shot
        of_support = ops.reshape(features[:count], (-1, way, shot, width))
        of_query = ops.reshape(features[count:], (-1, queries, width))
        return self._classes.scores(of_query, ops.mean(of_support, axis=2))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the cross-entropy of the query examples of the episodes."""
        if training:
            self._check_no_classes()
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _check_no_classes(self) -> None:
        if self.class_names and self.trainable_variables:
            raise ValueError(
                f"The model has the classes {listed(self.class_names)}. Their "
                "prototypes would stay those of the weights before the training. "
                "Call remove_class for each, and add_class again after `fit`."
            )

    def get_config(self) -> dict:
        """Return the arguments, the trainable flags and the names of the classes."""
        return {**super().get_config(), "distance": self._classes.distance}

    def _checked_support(self, name: str, examples: Any) -> Any:
        """Return the examples of a class as arrays in the form of the inputs."""
        wanted = self.input if isinstance(self.input, dict) else {"inputs": self.input}
        given = examples if isinstance(examples, dict) else {"inputs": examples}
        if set(wanted) != set(given):
            raise ValueError(
                f"The examples of {name!r} are {sorted(given)}, but the model takes "
                f"{sorted(wanted)}. Preprocess them as for `predict`."
            )
        found = {key: np.asarray(given[key]) for key in wanted}
        counts = {len(each) if each.ndim else 0 for each in found.values()}
        if counts == {0} or len(counts) > 1:
            raise ValueError(
                f"The examples of {name!r} are {sorted(counts)} rows. Pass an array "
                "with one row for each example, at least one."
            )
        for key, each in found.items():
            shapes = tuple(wanted[key].shape[1:]), each.shape[1:]
            fits = len(shapes[0]) == len(shapes[1]) and all(
                a in (None, b) for a, b in zip(*shapes, strict=True)
            )
            if not fits:
                raise ValueError(
                    f"The examples of {name!r} have the shape {each.shape}, but the "
                    f"model takes {tuple(wanted[key].shape)}. Pass a batch of examples "
                    "of the model's shape; for one example, examples[None]."
                )
        return found if isinstance(self.input, dict) else found["inputs"]


def _plain_examples() -> ValueError:
    return ValueError(
        "A PrototypicalNetwork trains on episodes, but `fit` got plain examples. Pass "
        "kt.data.episodes(x, y, way, shot, query). Without training, call "
        "add_class(name, examples) for each class."
    )


def _joined(support: object, query: object) -> object:
    """Return the examples of all episodes as the rows of one batch."""
    return ops.concatenate(
        [
            ops.reshape(support, (-1, *support.shape[3:])),
            ops.reshape(query, (-1, *query.shape[2:])),
        ]
    )
