"""MCD: two label heads that differ where the target is not understood."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import reverse_gradient
from keras_transfer.losses.classifier_discrepancy import ClassifierDiscrepancy
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.second_head import make_second_head
from keras_transfer.models.strength import Strength
from keras_transfer.models.two_streams import is_two_streams
from keras_transfer.models.two_streams import split_labels


@keras.saving.register_keras_serializable(package="keras_transfer")
class MCD(DomainAdaptation):
    """Learn features on which two label heads agree about the target.

    Both heads learn the labels of the source; on the target they are trained to differ
    as far as they can, and the feature extractor to make them agree. With p1 and p2
    their probabilities, and s the strength:

        L = CE(p1, source) + CE(p2, source) - D,  D = mean over the target of |p1 - p2|
        both heads minimise L; the features minimise CE1 + CE2 + s D

    The paper trains in turn, with several steps of the features for one of the heads;
    here the gradient reversal does both in one step, as in the paper's experiments on
    segmentation. `predict` gives the outputs of `label_head`. `fit` logs
    `discrepancy_loss`, which is -D, `second_head_loss` and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`, two classes or more.
        second_head: The other label head. Defaults to None: the same layers with other
            initial weights.
        strength: Strength of the reversal, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps; None for Ganin's
            rise from 0 to 1 over the running fit, the default.
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
        model = kt.models.MCD(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, both heads are the same or do not
            fit, or the strength is out of range; in `fit`, if the data has one domain
            only, or labels of the target.

    Reference:
        Saito, Watanabe, Ushiku and Harada, 2018, "Maximum Classifier Discrepancy for
        Unsupervised Domain Adaptation", arXiv 1712.02560.
    """

    logs = ("discrepancy_loss", "second_head_loss")
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        second_head: keras.Layer | None = None,
        strength: Strength = None,
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
        self.second_head = make_second_head(self, second_head)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the second head's outputs, and both heads' behind the reversal."""
        # Both domains in one batch, so that BatchNormalization sees what the loss of
        # the labels saw.
        features = reverse_gradient(target.features, self.strength_now())
        features = ops.concatenate([source.features, features])
        first, second = (
            head(features, training=training)
            for head in (self.label_head, self.second_head)
        )
        count = ops.shape(source.features)[0]
        return {
            "source": second[:count],
            "first": first[count:],
            "second": second[count:],
        }

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the discrepancy of the heads on the target, with a minus."""
        discrepancy = ClassifierDiscrepancy(from_logits=False)
        heads = (self.probabilities(compared[each]) for each in ("first", "second"))
        return {"discrepancy_loss": (-discrepancy(*heads), 1.0)}

    def compute_loss(
        self,
        x: object = None,
        y: object = None,
        y_pred: object = None,
        sample_weight: object = None,
        training: bool = True,
    ) -> object:
        """Return the loss of the base, and of two streams that of the second head."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not is_two_streams(x):
            return loss
        labels, _ = split_labels(y)
        outputs = y_pred["compared"]["source"]
        second = _keras.label_loss(self, labels, outputs, sample_weight)
        self.record("second_head_loss", _keras.unscaled(second), outputs)
        return loss + second

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        head = keras.saving.serialize_keras_object(self.second_head)
        return super().get_config() | {"second_head": head}
