"""MCC: predictions on the target that do not waver between classes."""

from __future__ import annotations

import keras

from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.class_confusion import ClassConfusion
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.strength import Strength


@keras.saving.register_keras_serializable(package="keras_transfer")
class MCC(DomainAdaptation):
    """Learn predictions on the target that do not confuse one class with another.

    Minimum class confusion looks at the target's predictions alone. With P the softmax
    of a batch's logits divided by a temperature, W its examples' weights, more for the
    surer ones, C = P' W P with rows that sum to 1, and s the strength:

        L = CE(source) + s (sum of C outside its diagonal) / classes

    No domain classifier, no other layer. `fit` logs `confusion_loss` and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`, two classes or more.
        strength: Weight of the loss, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps. Defaults to 1.
        temperature: What the logits are divided by, positive, without unit. Defaults
            to 2.5.
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
        model = kt.models.MCC(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, the label head has one output, or
            the strength is out of range; in `fit`, if the data has one domain only, or
            labels of the target.

    Reference:
        Jin, Wang, Long and Wang, 2020, "Minimum Class Confusion for Versatile Domain
        Adaptation", arXiv 1912.03699.
    """

    logs = ("confusion_loss",)
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        strength: Strength = 1.0,
        *,
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

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        return super().get_config() | {"temperature": self.temperature}
