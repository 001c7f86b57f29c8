"""DeepCORAL: domain adaptation by equal covariances of the outputs."""

from __future__ import annotations

import keras

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.coral import CORAL
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.two_streams import Domain


@keras.saving.register_keras_serializable(package="keras_transfer")
class DeepCORAL(DomainAdaptation):
    """Domain adaptation that makes the covariance of the outputs equal.

    DeepCORAL aligns only the second moments of the domains. It adds one loss and no
    layer. With C_s and C_t the covariances of the label head's d outputs over a batch
    of each domain, and s the strength:

        L = CE(source) + s ||C_s - C_t||^2 / (4 d^2)

    The norm is the Frobenius norm. As in the paper, the loss uses the outputs of the
    last layer without any change. `fit` logs `coral_loss` and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`.
        strength: As in `DANN`, but the weight of the loss. Defaults to 1.0.
        total_steps: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.DeepCORAL(features, keras.layers.Dense(2), strength=0.5)
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, except for the domain head.

    Reference:
        Sun and Saenko, 2016, "Deep CORAL: Correlation Alignment for Deep Domain
        Adaptation", arXiv 1607.01719.
    """

    logs = ("coral_loss",)

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        strength: Strength = 1.0,
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

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the distance of the covariances."""
        loss = CORAL()(source.outputs, target.outputs)
        return {"coral_loss": (loss, self.strength_now())}
