"""DeepCORAL: outputs of both domains with the same covariance."""

from __future__ import annotations

import keras

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.coral import CORAL
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.strength import Strength


@keras.saving.register_keras_serializable(package="keras_transfer")
class DeepCORAL(DomainAdaptation):
    """Learn outputs whose covariance is the same in both domains.

    The mildest of the alignments: second moments only, one loss more and no layer. With
    C_s and C_t the covariances of the label head's d outputs over a batch of each
    domain, and s the strength:

        L = CE(source) + s ||C_s - C_t||^2 / (4 d^2)

    with the squared Frobenius norm. As in the paper it is taken of the last layer's
    outputs, as they are. `fit` logs `coral_loss` and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
        strength: Weight of the loss, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps. Defaults to 1.
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
        model = kt.models.DeepCORAL(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, or the strength is out of range; in
            `fit`, if the data has one domain only, or labels of the target.

    Reference:
        Sun and Saenko, 2016, "Deep CORAL: Correlation Alignment for Deep Domain
        Adaptation", arXiv 1607.01719.
    """

    logs = ("coral_loss",)

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        strength: Strength = 1.0,
        *,
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
