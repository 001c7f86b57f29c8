"""AFN: features of both domains whose norm grows."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.feature_norm import FeatureNorm
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.strength import Strength


@keras.saving.register_keras_serializable(package="keras_transfer")
class AFN(DomainAdaptation):
    """Learn features whose norm grows step by step in both domains.

    Networks give examples that are unlike the source features of a small norm. The
    stepwise adaptive feature norm asks each feature vector f, of either domain, to be
    longer than it is by d; s is the strength:

        L = CE(source) + s (mean over the source of (|f| - |f|' - d)^2
                            + the same over the target)

    with |f|' the norm of this step without gradient. No domain classifier and no pair
    of domains is needed, so that it is the steadiest of the methods. The paper drops
    out features before the last layer, which is for the label head to do. `fit` logs
    `norm_loss`, which is 2 d^2 by its making, `feature_norm`, and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
        strength: Weight of the loss, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps. Defaults to
            0.05.
        step: By how much a norm is to grow, d, positive, in the unit of the features.
            Defaults to 1.
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
        model = kt.models.AFN(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, the step is not positive, or the
            strength is out of range; in `fit`, if the data has one domain only, or
            labels of the target.

    Reference:
        Xu, Li, Yang and Lin, 2019, "Larger Norm More Transferable: An Adaptive Feature
        Norm Approach for Unsupervised Domain Adaptation", arXiv 1811.07456.
    """

    logs = ("norm_loss", "feature_norm")

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        strength: Strength = 0.05,
        *,
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
        both = ops.cast(ops.concatenate([source.features, target.features]), "float32")
        norm = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(both)), axis=-1))
        self.record("feature_norm", ops.mean(norm), norm)
        loss = FeatureNorm(step=self.step)(source.features, target.features)
        return {"norm_loss": (loss, self.strength_now())}

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        return super().get_config() | {"step": self.step}
