"""DANN: domain-adversarial training of a network, by gradient reversal."""

from __future__ import annotations

import keras

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import reverse_gradient
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.domain_head import domain_penalty
from keras_transfer.models.domain_head import LOGS
from keras_transfer.models.domain_head import make_domain_head
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import split


@keras.saving.register_keras_serializable(package="keras_transfer")
class DANN(DomainAdaptation):
    """Learn features that show the label, but not the domain.

    A domain head learns to distinguish source and target by the features; the
    gradient of its loss is reversed on its way into the feature extractor, which so
    learns to mislead it. With features f, label head g, domain head d, strength s:

        label loss    L_y = mean over the source of CE(g(f(x)), y)
        domain loss   L_d = 1/2 mean over the source of BCE(d(f(x)), 0)
                          + 1/2 mean over the target of BCE(d(f(x)), 1)
        g minimizes L_y,  d minimizes L_d,  f minimizes L_y - s L_d

    Both domains run through the extractor side by side, so that a BatchNormalization
    that trains normalizes them together; `kt.backbones.FrozenBackbone` keeps it fixed.

    Use it where a task has labels in one domain only: photographs next to renderings,
    reviews of another product. `kt.data.domain_dataset` makes its data. Compile it
    with the loss and metrics of the labels; `fit` logs `domain_loss`,
    `domain_accuracy` (0.5 where the domains are confused) and `strength` as well. A
    call on plain input, `predict`, `evaluate` on `(x, y)`, and `export` are those of
    the label branch. Labels of the target given in `validation_data`, as
    `({"source": xs, "target": xt}, {"source": ys, "target": yt})`, are shown as
    `target_accuracy`; given in training they are refused.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
        domain_head: A layer or model from features to one logit an example. Defaults
            to a Dense layer of 100 units with ReLU and one of 1 unit.
        strength: Strength of the reversal, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps. Defaults to
            None: Ganin's `2 / (1 + exp(-10 p)) - 1`, where p is the share of epochs x
            steps of the running `fit` that is done. It is computed in the graph from
            `optimizer.iterations`, so that it is right after a resume.
        total_steps: Updates until p = 1. Defaults to None: those of the running fit,
            which must know its number of batches.
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
        model = kt.models.DANN(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If the features are not vectors, the domain head does not give one
            logit, or the strength is out of range; in `fit`, if the data has one
            domain only, or labels of the target, or does not know its length.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks", JMLR
        17(59), arXiv 1505.07818.
    """

    arguments = (*DomainAdaptation.arguments, "domain_head")
    logs = LOGS

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        domain_head: keras.Layer | None = None,
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
        self.domain_head = make_domain_head(self, domain_head)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the logits of the domain head by domain."""
        features = join(source.features, target.features)
        reversed_features = reverse_gradient(features, self.strength_now())
        logits = self.domain_head(reversed_features, training=training)
        return split(logits, source.size)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the domain head's loss, and record how often it is right."""
        return domain_penalty(self, compared["source"], compared["target"])
