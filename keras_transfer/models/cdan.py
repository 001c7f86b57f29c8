"""CDAN: adversarial training on the products of features and predictions."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.domain_head import domain_penalty
from keras_transfer.models.domain_head import LOGS
from keras_transfer.models.domain_head import make_domain_head
from keras_transfer.models.domain_head import reversed_logits
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import split
from keras_transfer.models.two_streams import STREAMS

MOST = 4096  # the largest number of products that is used without a random map
RANDOM = 1024  # width of the random map for more products


@keras.saving.register_keras_serializable(package="keras_transfer")
class CDAN(DomainAdaptation):
    """Domain adaptation by adversarial training on features and predictions together.

    CDAN is like `DANN`, but its domain head gets the outer product of the features f
    and the probabilities p, which is all products f_i p_j. Each class is therefore
    aligned with the same class in the other domain. If there are more than 4096
    products, the domain head gets `(R f) * (S p) / sqrt(1024)` instead, as in the
    paper. R and S are fixed random normal matrices with 1024 outputs each. No gradient
    flows through p. With `entropy=True` (CDAN+E), an example has the weight
    `1 + exp(-entropy(p))`, normalized over the batch of each domain, so confident
    predictions count more. The strength follows the lead of the domain head, as in
    `DANN`. `fit` logs `domain_loss`, `domain_accuracy` and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`, with at least two classes.
        domain_head: A layer or model that maps the products to one logit per example.
            Defaults to None: the products with a root mean square of 1, a Dense layer
            of 100 units with ReLU, and a Dense layer of 1 unit.
        strength: As in `DANN`.
        entropy: Bool, whether examples with confident predictions count more (CDAN+E).
            Defaults to False.
        total_steps: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.CDAN(features, keras.layers.Dense(2), entropy=True)
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if the label head has one output.

    Reference:
        Long, Cao, Wang and Jordan, 2018, "Conditional Adversarial Domain Adaptation",
        arXiv 1705.10667.
    """

    arguments = (*DomainAdaptation.arguments, "domain_head", "entropy")
    follows_lead = True
    logs = LOGS
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        domain_head: keras.Layer | None = None,
        strength: Strength = None,
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
            self.random_maps[0].build((None, self.width))
            self.random_maps[1].build((None, self.classes))
        self.domain_head = make_domain_head(self, domain_head, width)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the logits of the domain head and the example weights by domain."""
        outputs = join(source.outputs, target.outputs)
        p = ops.stop_gradient(self.probabilities(outputs))

        def run(features: object, training: bool) -> object:
            return self.domain_head(self._products(features, p), training=training)

        logits = reversed_logits(self, (source, target), run, training)
        weights = ops.ones_like(p[:, 0])
        if self.entropy:
            weights = 1.0 + ops.exp(ops.sum(p * ops.log(ops.maximum(p, 1e-7)), axis=-1))
        weights = split(weights, source.size)
        return {name: (logits[name], weights[name]) for name in STREAMS}

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the loss of the domain head, and record its accuracy."""
        logits, weights = zip(compared["source"], compared["target"], strict=True)
        return domain_penalty(self, *logits, *weights)

    def _products(self, features: object, p: object) -> object:
        features = ops.cast(features, "float32")
        if self.random_maps is None:
            return ops.reshape(
                features[:, :, None] * p[:, None, :], (-1, self.width * self.classes)
            )
        of_features, of_classes = self.random_maps
        return of_features(features) * of_classes(p) / RANDOM**0.5


class _RandomMap(keras.Layer):
    """Multiply by a fixed random matrix, which no trainable flag can unfreeze."""

    def __init__(self) -> None:
        super().__init__(dtype="float32")

    def build(self, input_shape: tuple) -> None:
        normal = keras.initializers.RandomNormal(stddev=1.0)
        self.kernel = self.add_weight(
            (input_shape[-1], RANDOM), normal, trainable=False, name="kernel"
        )

    def call(self, inputs: object) -> object:
        return ops.matmul(inputs, self.kernel)
