"""MCD: two label heads that differ where the target is not understood."""

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
    """Learn features on which two label heads agree about the target.

    Both heads learn the labels of the source; on the target they are trained to differ
    as far as they can, and the feature extractor to make them agree. With p1 and p2
    their probabilities, and s the strength:

        L = CE(p1, source) + CE(p2, source) - D,  D = mean over the target of |p1 - p2|
        both heads minimize L; the features minimize CE1 + CE2 + s D

    The paper trains in turn, with several steps of the features for one of the heads;
    here the gradient reversal does both in one step, as in the paper's experiments on
    segmentation. `predict` gives the outputs of `label_head`. `fit` logs
    `discrepancy_loss`, which is -D, `second_head_loss` and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`, for two classes or more.
        second_head: The other label head. Defaults to None: the same layers with other
            initial weights.
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
        It is compiled and fitted as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if both heads are the same or do not fit.

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
        """Return the second head's outputs, and both heads' behind the reversal."""
        # Both domains in one batch, so that BatchNormalization sees what the loss of
        # the labels saw.
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
        """Return the discrepancy of the heads on the target, with a minus."""
        discrepancy = ClassifierDiscrepancy(from_logits=False)
        heads = (self.probabilities(compared[name]) for name in ("first", "second"))
        return {"discrepancy_loss": (-discrepancy(*heads), 1.0)}

    def label_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> object:
        """Return the loss of the labels, and of two streams that of the second head."""
        loss = super().label_loss(x, y, y_pred, sample_weight, training)
        if not is_two_streams(x):
            return loss
        labels, _ = split_labels(y)
        outputs = y_pred["compared"]["source"]
        second = _keras.label_loss(self, labels, outputs, sample_weight)
        self.record("second_head_loss", _keras.unscaled(second), outputs)
        return loss + second
