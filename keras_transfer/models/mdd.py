"""MDD: an adversary that leaves the label head on the target, by a margin."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import reverse_gradient
from keras_transfer.losses.margin_disparity import MarginDisparity
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.second_head import make_second_head
from keras_transfer.models.strength import Strength


@keras.saving.register_keras_serializable(package="keras_transfer")
class MDD(DomainAdaptation):
    """Learn features on which no second head can leave the label head on the target.

    A second head, the adversary a, learns to say what the label head says on the source
    and something else on the target; the reversed gradient makes features on which it
    cannot. With h the class that the label head gives, m the margin, s the strength:

        L_a = m mean over the source of -log a_h + mean over the target of -log(1 - a_h)
        a minimises L_a;  the features minimise CE(source) - s L_a

    The paper proves a bound on the target's error from this disparity. `fit` logs
    `disparity_loss`, which is L_a, and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`, two classes or more.
        adversary: The second head. Defaults to None: the layers of the label head with
            other initial weights.
        strength: Strength of the reversal, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps; None for Ganin's
            rise from 0 to 0.1 over the running fit, the default.
        margin: How much the source counts, m, positive, without unit; the paper takes
            2 to 4. Defaults to 4.
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
        model = kt.models.MDD(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, the heads do not fit, or the
            strength is out of range; in `fit`, if the data has one domain only, or
            labels of the target.

    Reference:
        Zhang, Liu, Long and Jordan, 2019, "Bridging Theory and Algorithm for Domain
        Adaptation", arXiv 1904.05801.
    """

    full_strength = 0.1  # as in the authors' code
    logs = ("disparity_loss",)
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        adversary: keras.Layer | None = None,
        strength: Strength = None,
        *,
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
        self.adversary = make_second_head(self, adversary)
        self.margin = positive("margin", margin)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the adversary's outputs by domain."""
        features = ops.concatenate([source.features, target.features])
        reversed_features = reverse_gradient(features, self.strength_now())
        outputs = self.adversary(reversed_features, training=training)
        count = ops.shape(source.features)[0]
        return {"source": outputs[:count], "target": outputs[count:]}

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the loss of the adversary."""
        pairs = [
            (self.logits(domain.outputs), self.logits(compared[name]))
            for name, domain in (("source", source), ("target", target))
        ]
        return {"disparity_loss": (MarginDisparity(margin=self.margin)(*pairs), 1.0)}

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        head = keras.saving.serialize_keras_object(self.adversary)
        return super().get_config() | {"adversary": head, "margin": self.margin}
