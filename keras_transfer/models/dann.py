"""DANN: domain-adversarial training of a network with gradient reversal."""

from __future__ import annotations

import keras

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.domain_head import domain_penalty
from keras_transfer.models.domain_head import LOGS
from keras_transfer.models.domain_head import make_domain_head
from keras_transfer.models.domain_head import reversed_logits
from keras_transfer.models.two_streams import Domain


@keras.saving.register_keras_serializable(package="keras_transfer")
class DANN(DomainAdaptation):
    """Domain-adversarial training: the features predict the label, but not the domain.

    A domain head is trained to distinguish source and target by the features. The
    gradient of its loss is reversed before the feature extractor, so the features are
    trained to make the domains indistinguishable. With features f, label head g, domain
    head d and strength s:

        label loss    L_y = mean over the source of CE(g(f(x)), y)
        domain loss   L_d = 1/2 mean over the source of BCE(d(f(x)), 0)
                          + 1/2 mean over the target of BCE(d(f(x)), 1)
        g minimizes L_y,  d minimizes L_d,  f minimizes L_y - s c L_d
        c = max(0, 1 - L_d / log 2), without a gradient of its own

    The lead c is not in the paper, where it is 1. It is 1 if the domain head is always
    right, and 0 if it is no better than chance, whose loss is log 2. Without it,
    features that change faster than the domain head raise L_d far above chance, which
    no longer brings the domains closer and destroys what the label head needs.

    Both domains go through the feature extractor in one batch, so a trainable
    BatchNormalization normalizes them together. To keep its statistics fixed, use
    `kt.backbones.FrozenBackbone`.

    Use DANN if only one domain has labels, for example rendered images but not
    photographs, or reviews of one product but not of another. Create the data with
    `kt.data.domain_dataset`. Compile the model with the loss and metrics of the labels.
    `fit` also logs `domain_loss`, `domain_accuracy` (0.5 if the domain head cannot
    distinguish the domains) and `strength`. A call on plain input, `predict`,
    `evaluate` on `(x, y)` and `export` use only the feature extractor and the label
    head. If `validation_data` has target labels, as in
    `({"source": xs, "target": xt}, {"source": ys, "target": yt})`, `fit` logs
    `val_target_accuracy`. Target labels in the training data raise an error.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, as in
            `kt.backbones.features`. Its inputs are the inputs of this model.
        label_head: A layer or model that maps features `(batch, width)` to outputs
            `(batch, classes)`.
        domain_head: A layer or model that maps features to one logit per example.
            Defaults to None: the features with a root mean square of 1, a Dense layer
            of 100 units with ReLU, and a Dense layer of 1 unit.
        strength: Strength of the reversal, at least 0: a float, a `keras.Variable`, or
            a schedule over the optimizer's steps. Defaults to None, which is Ganin's
            schedule `2 / (1 + exp(-10 p)) - 1`. p is the completed share of all steps
            of the running `fit`. p is computed in the graph from
            `optimizer.iterations`, so it is correct after a resume.
        total_steps: Int, updates until p = 1. Defaults to None, which takes the steps
            of the running `fit`. The data must then have a known number of batches.
        name: Name of the model.

    Input shape:
        The input shape of the feature extractor. In `fit`, a dictionary of two inputs
        of this shape, `"source"` and `"target"`.

    Output shape:
        The output shape of the label head, `(batch, classes)`.

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
        TypeError: If an argument has the wrong type.
        ValueError: If the features are not vectors, if the domain head does not give
            one logit, or if the strength is out of range. In `fit`, if the data has
            only one domain, contains target labels or has an unknown length.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks", JMLR
        17(59), arXiv 1505.07818.
    """

    arguments = (*DomainAdaptation.arguments, "domain_head")
    follows_lead = True
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

        def run(features: object, training: bool) -> object:
            return self.domain_head(features, training=training)

        return reversed_logits(self, (source, target), run, training)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the loss of the domain head, and record its accuracy."""
        return domain_penalty(self, compared["source"], compared["target"])
