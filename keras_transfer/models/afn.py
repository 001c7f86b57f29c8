"""AFN: training increases the feature norm of both domains step by step."""

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
    """Domain adaptation that increases the norm of the features step by step.

    Networks give features with a small norm to examples that differ from the source.
    The stepwise adaptive feature norm increases the norm of each feature vector f of
    both domains by d. With s the strength:

        L = CE(source) + s (mean over the source of (|f| - |f|' - d)^2
                            + the same over the target)

    |f|' is the norm of f in the current step, without gradient. The method has no
    domain classifier and does not compare the domains, so its training is stable. The
    paper applies dropout to the features before the last layer. Add this dropout to the
    label head. `fit` logs `norm_loss`, which always equals 2 d^2, `feature_norm` and
    `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`.
        strength: As in `DANN`, but the weight of the loss. Defaults to 0.05.
        step: Float above 0, the increase d of the norm, in units of the features.
            Defaults to 1.0.
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
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if `step` is not above 0.

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
        """Return the loss of the feature norm, and record the mean norm."""
        both = ops.cast(join(source.features, target.features), "float32")
        norm = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(both)), axis=-1))
        self.record("feature_norm", ops.mean(norm), norm)
        loss = FeatureNorm(step=self.step)(source.features, target.features)
        return {"norm_loss": (loss, self.strength_now())}
