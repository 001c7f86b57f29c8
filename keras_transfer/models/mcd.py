"""MCD: domain adaptation by the discrepancy of two label heads on the target."""

from __future__ import annotations

from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import reverse_gradient
from keras_transfer.losses.classifier_discrepancy import ClassifierDiscrepancy
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.label_heads import make_second_head
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import is_two_streams
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import split
from keras_transfer.models.two_streams import split_labels


@keras.saving.register_keras_serializable(package="keras_transfer")
class MCD(DomainAdaptation):
    """Domain adaptation by the maximum discrepancy of two label heads.

    Both heads are trained on the labels of the source. On the target, the heads are
    trained to disagree as much as possible, and the feature extractor is trained to
    make them agree. With p1 and p2 the probabilities of the heads, and s the strength:

        L = CE(p1, source) + CE(p2, source) - D,  D = mean over the target of |p1 - p2|
        both heads minimize L; the features minimize CE1 + CE2 + s D

    The paper trains heads and features alternately, with several steps of the features
    for each step of the heads. Here gradient reversal trains both in one step, as in
    the paper's experiments on segmentation. `predict` returns the outputs of
    `label_head`. `fit` logs `discrepancy_loss`, which is -D, `second_head_loss` and
    `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`, with at least two classes.
        second_head: The other label head, a layer or model. Defaults to None: a copy of
            `label_head` with new initial weights.
        strength: As in `DANN`.
        total_steps: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.MCD(features, keras.layers.Dense(2))
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if the heads have the same weights or their
            outputs do not match.

    Reference:
        Saito, Watanabe, Ushiku and Harada, 2018, "Maximum Classifier Discrepancy for
        Unsupervised Domain Adaptation", arXiv 1712.02560.
    """

    arguments = (*DomainAdaptation.arguments, "second_head")
    logs = ("discrepancy_loss", "second_head_loss")
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        second_head: keras.Layer | None = None,
        strength: Strength = None,
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
        self.second_head = make_second_head(self, second_head)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the second head's source outputs, and both heads' target outputs.

        The target features pass the gradient reversal before the heads.
        """
        # Both domains in one batch, so BatchNormalization in a head has the same
        # statistics as for the loss of the labels.
        features = reverse_gradient(target.features, self.strength_now())
        features = join(source.features, features)
        first, second = (
            split(head(features, training=training), source.size)
            for head in (self.label_head, self.second_head)
        )
        return {
            "source": second["source"],
            "first": first["target"],
            "second": second["target"],
        }

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return minus the discrepancy of the heads on the target."""
        discrepancy = ClassifierDiscrepancy(from_logits=False)
        heads = (self.probabilities(compared[name]) for name in ("first", "second"))
        return {"discrepancy_loss": (-discrepancy(*heads), 1.0)}

    def label_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> object:
        """Return the loss of the labels, plus the second head's for two domains."""
        loss = super().label_loss(x, y, y_pred, sample_weight, training)
        if not is_two_streams(x):
            return loss
        labels, _ = split_labels(y)
        outputs = y_pred["compared"]["source"]
        second = _keras.label_loss(self, labels, outputs, sample_weight)
        self.record("second_head_loss", _keras.unscaled(second), outputs)
        return loss + second
