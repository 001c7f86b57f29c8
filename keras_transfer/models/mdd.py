"""MDD: domain adaptation by the margin disparity discrepancy of a second head."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import reverse_gradient
from keras_transfer.losses.margin_disparity import MarginDisparity
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.domain_head import normalization
from keras_transfer.models.label_heads import make_second_head
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import split


@keras.saving.register_keras_serializable(package="keras_transfer")
class MDD(DomainAdaptation):
    """Domain adaptation by the margin disparity discrepancy of a second head.

    The second head, the adversary a, is trained to predict the same class as the label
    head on the source, and another class on the target. The reversed gradient trains
    the features so that the adversary fails. With h the class that the label head
    predicts, m the margin, and s the strength:

        L_a = m mean over the source of -log a_h + mean over the target of -log(1 - a_h)
        a minimizes L_a;  the features minimize CE(source) - s c L_a
        c = max(0, 1 - L_a / L_0),  L_0 = m log(1 + 1 / m) + log(1 + m)

    The lead c of the adversary is not in the paper, where it is 1. L_0 is the loss of
    the best adversary if the domains cannot be distinguished. As in `DANN`, c keeps the
    features from changing faster than the adversary learns.

    The paper proves that this disparity bounds the error on the target. `fit` logs
    `disparity_loss`, which is L_a, and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`, with at least two classes.
        adversary: The second head, a layer or model. Defaults to None: a copy of
            `label_head` with new initial weights, on features with a root mean square
            of 1.
        strength: As in `DANN`, but None rises to 0.1.
        margin: Float above 0, the weight m of the source. The paper uses 2 to 4.
            Defaults to 4.0.
        total_steps: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.MDD(features, keras.layers.Dense(2), margin=3.0)
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if the heads do not match or the margin is not
            above 0.

    Reference:
        Zhang, Liu, Long and Jordan, 2019, "Bridging Theory and Algorithm for Domain
        Adaptation", arXiv 1904.05801.
    """

    arguments = (*DomainAdaptation.arguments, "adversary", "margin")
    follows_lead = True
    full_strength = 0.1  # as in the authors' code
    logs = ("disparity_loss",)
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        adversary: keras.Layer | None = None,
        strength: Strength = None,
        margin: float = 4.0,
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
        if adversary is None:
            second = make_second_head(self, None)
            layers = [*normalization(self.width), second]
            adversary = keras.Sequential(layers, name="adversary")
        self.adversary = make_second_head(self, adversary)
        self.margin = positive("margin", margin)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the outputs of the adversary by domain."""
        features, strength = join(source.features, target.features), self.strength_now()
        if training:
            fixed = self.adversary(ops.stop_gradient(features), training=False)
            pairs = self._pairs(source, target, split(fixed, source.size))
            loss = MarginDisparity(margin=self.margin).value(*pairs)
            strength = self.strength_by_lead(loss, at_chance(self.margin))
        outputs = self.adversary(
            reverse_gradient(features, strength), training=training
        )
        return split(outputs, source.size)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the loss of the adversary."""
        pairs = self._pairs(source, target, compared)
        return {"disparity_loss": (MarginDisparity(margin=self.margin)(*pairs), 1.0)}

    def _pairs(self, source: Domain, target: Domain, adversary: dict) -> list[tuple]:
        """Return the logits of the label head and the adversary, for each domain."""
        return [
            (self.logits(domain.outputs), self.logits(adversary[name]))
            for name, domain in (("source", source), ("target", target))
        ]


def at_chance(margin: float) -> float:
    """Return the loss of the best adversary if the domains cannot be distinguished.

    It gives the predicted class the probability margin / (1 + margin) everywhere.
    """
    return margin * math.log1p(1 / margin) + math.log1p(margin)
