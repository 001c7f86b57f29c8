"""AFN: features of both domains whose norm grows."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.feature_norm import FeatureNorm
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import join


@keras.saving.register_keras_serializable(package="keras_transfer")
class AFN(DomainAdaptation):
    """Learn features whose norm grows step by step in both domains.

    Networks give examples that differ from the source features of a small norm. The
    stepwise adaptive feature norm asks each feature vector f, of either domain, to be
    longer than it is by d; s is the strength:

        L = CE(source) + s (mean over the source of (|f| - |f|' - d)^2
                            + the same over the target)

    with |f|' the norm of this step without gradient. No domain classifier and no pair
    of domains is needed, so that it is the steadiest of the methods. The paper drops
    out features before the last layer, which is for the label head to do. `fit` logs
    `norm_loss`, which is 2 d^2 by its making, `feature_norm`, and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`.
        strength: As in `DANN`, but the weight of the loss. Defaults to 0.05.
        step: By how much a norm is to grow, d, positive, in the unit of the features.
            Defaults to 1.
        total_steps: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.AFN(features, keras.layers.Dense(2), step=0.5)
        ```
        It is compiled and fitted as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if the step is not positive.

    Reference:
        Xu, Li, Yang and Lin, 2019, "Larger Norm More Transferable: An Adaptive Feature
        Norm Approach for Unsupervised Domain Adaptation", arXiv 1811.07456.
    """

    arguments = (*DomainAdaptation.arguments, "step")
    logs = ("norm_loss", "feature_norm")

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        strength: Strength = 0.05,
        step: float = 1.0,
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
        self.step = positive("step", step)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return how far the norms are from what they are to be."""
        both = ops.cast(join(source.features, target.features), "float32")
        norm = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(both)), axis=-1))
        self.record("feature_norm", ops.mean(norm), norm)
        loss = FeatureNorm(step=self.step)(source.features, target.features)
        return {"norm_loss": (loss, self.strength_now())}
