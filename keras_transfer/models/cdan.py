"""CDAN: adversarial training on features and predictions together."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import reverse_gradient
from keras_transfer.losses.domain_classification import DomainClassification
from keras_transfer.models.dann import domain_accuracy
from keras_transfer.models.dann import make_domain_head
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.strength import Strength

MOST = 4096  # products of features and classes that are used as they are
RANDOM = 1024  # width of the random map where there are more


@keras.saving.register_keras_serializable(package="keras_transfer")
class CDAN(DomainAdaptation):
    """Learn features from which, with the predicted class, no domain can be told.

    As `DANN`, but the domain head sees the outer product of the features f and the
    probabilities p, all products f_i p_j, so that each class is aligned with itself.
    Where these are more than 4096, it sees `(R f) * (S p) / sqrt(1024)` with two fixed
    random matrices of normal numbers that give 1024 each, as in the paper. No gradient
    flows through p. With `entropy=True` (CDAN+E) an example counts
    `1 + exp(-entropy(p))`, normalised over each domain's batch: the surer, the more.
    `fit` logs `domain_loss`, `domain_accuracy` and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`, two classes or more.
        domain_head: A layer or model from the products to one logit an example.
            Defaults to a Dense layer of 100 units with ReLU and one of 1 unit.
        strength: Strength of the reversal, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps; None for Ganin's
            rise from 0 to 1 over the running fit, the default.
        entropy: Whether surer examples count more (CDAN+E). Defaults to False.
        total_steps: Updates over which a strength of None rises. Defaults to None:
            those of the running fit, which must know its number of batches.
        name: Name of the model.

    Input shape:
        That of the feature extractor; in `fit` a dictionary of two such inputs,
        `"source"` and `"target"`.

    Output shape:
        That of the label head, `(batch, classes)`.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        features = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8, activation="relu")]
        )
        model = kt.models.CDAN(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, a head has the wrong outputs, or the
            strength is out of range; in `fit`, if the data has one domain only, or
            labels of the target.

    Reference:
        Long, Cao, Wang and Jordan, 2018, "Conditional Adversarial Domain Adaptation",
        arXiv 1705.10667.
    """

    logs = ("domain_loss", "domain_accuracy")
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        domain_head: keras.Layer | None = None,
        strength: Strength = None,
        *,
        entropy: bool = False,
        total_steps: int | None = None,
        name: str | None = None,
    ):
        super().__init__(
            feature_extractor,
            label_head,
            strength=strength,
            total_steps=total_steps,
            name=name,
        )
        width = self.width * self.classes
        self.entropy = bool(entropy)
        self.random_maps = None
        if width > MOST:
            width = RANDOM
            self.random_maps = [_RandomMap(), _RandomMap()]
            for each, size in zip(
                self.random_maps, (self.width, self.classes), strict=True
            ):
                each.build((None, size))
        self.domain_head = make_domain_head(self, domain_head, width)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return by domain the logits of the domain head and the examples' weights."""
        features = ops.concatenate([source.features, target.features])
        outputs = ops.concatenate([source.outputs, target.outputs])
        p = ops.stop_gradient(self.probabilities(outputs))
        products = self._products(reverse_gradient(features, self.strength_now()), p)
        logits = self.domain_head(products, training=training)
        weights = ops.ones_like(p[:, 0])
        if self.entropy:
            weights = 1.0 + ops.exp(ops.sum(p * ops.log(ops.maximum(p, 1e-7)), axis=-1))
        count = ops.shape(source.features)[0]
        return {
            "source": (logits[:count], weights[:count]),
            "target": (logits[count:], weights[count:]),
        }

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the domain head's loss, and record how often it is right."""
        pairs = compared["source"], compared["target"]
        logits = [each for each, _ in pairs]
        self.record("domain_accuracy", domain_accuracy(*logits), logits[0])
        return {"domain_loss": (DomainClassification()(*pairs), 1.0)}

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        head = keras.saving.serialize_keras_object(self.domain_head)
        return super().get_config() | {"domain_head": head, "entropy": self.entropy}

    def _products(self, features: object, p: object) -> object:
        features = ops.cast(features, "float32")
        if self.random_maps is None:
            return ops.reshape(
                features[:, :, None] * p[:, None, :], (-1, self.width * self.classes)
            )
        of_features, of_classes = self.random_maps
        return of_features(features) * of_classes(p) / RANDOM**0.5


class _RandomMap(keras.Layer):
    """A fixed random matrix: a weight that no flag of a layer above can thaw."""

    def __init__(self) -> None:
        super().__init__(dtype="float32")

    def build(self, input_shape: tuple) -> None:
        normal = keras.initializers.RandomNormal(stddev=1.0)
        self.kernel = self.add_weight(
            (input_shape[-1], RANDOM), normal, trainable=False, name="kernel"
        )

    def call(self, inputs: object) -> object:
        return ops.matmul(inputs, self.kernel)
