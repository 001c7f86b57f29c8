"""MCC: domain adaptation by minimum class confusion on the target."""

from __future__ import annotations

import keras

from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.class_confusion import ClassConfusion
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.two_streams import Domain


@keras.saving.register_keras_serializable(package="keras_transfer")
class MCC(DomainAdaptation):
    """Domain adaptation by minimum class confusion of the predictions on the target.

    The loss uses only the predictions on the target. P is the softmax of the logits of
    a batch, divided by a temperature. W are the weights of the examples, which are
    larger for confident predictions. C = P' W P, with rows normalized to sum 1. With s
    the strength:

        L = CE(source) + s (sum of C outside its diagonal) / classes

    The method has no domain classifier and adds no layer. `fit` logs `confusion_loss`
    and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`, with at least two classes.
        strength: As in `DANN`, but the weight of the loss. Defaults to 1.0.
        temperature: Float above 0, the divisor of the logits. Defaults to 2.5.
        total_steps: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.MCC(features, keras.layers.Dense(2), temperature=2.0)
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if the label head has one output or the
            temperature is not above 0.

    Reference:
        Jin, Wang, Long and Wang, 2020, "Minimum Class Confusion for Versatile Domain
        Adaptation", arXiv 1912.03699.
    """

    arguments = (*DomainAdaptation.arguments, "temperature")
    logs = ("confusion_loss",)
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        strength: Strength = 1.0,
        temperature: float = 2.5,
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
        self.temperature = positive("temperature", temperature)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the class confusion of the target."""
        confusion = ClassConfusion(temperature=self.temperature)
        loss = confusion(None, self.logits(target.outputs))
        return {"confusion_loss": (loss, self.strength_now())}
