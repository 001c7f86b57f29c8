"""ImportanceWeighting: labels of the source, weighed by their odds in the target."""

from __future__ import annotations

import warnings

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.analysis.domains.importance_weights import COLLAPSED
from keras_transfer.analysis.domains.importance_weights import DomainOverlapWarning
from keras_transfer.analysis.domains.importance_weights import SEPARABLE
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.domain_classification import DomainClassification
from keras_transfer.models.dann import domain_accuracy
from keras_transfer.models.dann import make_domain_head
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.two_streams import is_two_streams


@keras.saving.register_keras_serializable(package="keras_transfer")
class ImportanceWeighting(DomainAdaptation):
    """Weigh each example of the source by how much likelier the target makes it.

    For a covariate shift: the same question in both domains, other frequencies of the
    examples. A domain head d learns to tell the domains by the features, without
    changing these; its odds are the ratio of the densities, by which the loss of the
    labels is weighed, normalised over each batch of n:

        w_i = exp(d(f_i)) / (mean over the batch of exp(d(f_j)))
        L = mean over the source of w_i CE_i + L_d

    What trains the features is the weighted loss alone. The effective sample size
    (sum w)^2 / (n sum w^2), shown as `effective_sample_size`, is the share of the batch
    that counts. If it is below 0.1 over an epoch (which that of a batch
    of fewer than 10 cannot be), or the domain head errs on less than 5 % of the
    examples, there is a `DomainOverlapWarning`: where the domains do not overlap no
    weight can help, and an alignment such as `DANN` is wanted. For weights that are
    reckoned once on fixed features see `kt.analysis.importance_weights`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
        domain_head: A layer or model from features to one logit an example. Defaults
            to a Dense layer of 100 units with ReLU and one of 1 unit.
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
        model = kt.models.ImportanceWeighting(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
        assert 0 < history["effective_sample_size"][0] <= 1
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, or the domain head does not give one
            logit; in `fit`, if the data has one domain only, or labels of the target.

    Reference:
        Sugiyama, Krauledat and Mueller, 2007, "Covariate Shift Adaptation by Importance
        Weighted Cross Validation", JMLR 8; Bickel, Brueckner and Scheffer, 2009,
        "Discriminative Learning Under Covariate Shift", JMLR 10.
    """

    logs = ("domain_loss", "domain_accuracy", "effective_sample_size")

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        domain_head: keras.Layer | None = None,
        *,
        name: str | None = None,
    ):
        super().__init__(feature_extractor, label_head, strength=1.0, name=name)
        self.domain_head = make_domain_head(self, domain_head)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the logits of the domain head by domain."""
        features = ops.concatenate([source.features, target.features])
        logits = self.domain_head(ops.stop_gradient(features), training=training)
        count = ops.shape(source.features)[0]
        return {"source": logits[:count], "target": logits[count:]}

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the domain head's loss, and record what the weights are worth."""
        logits = compared["source"], compared["target"]
        self.record("domain_accuracy", domain_accuracy(*logits), logits[0])
        weights = _weights(compared["source"])
        share = 1.0 / ops.mean(ops.square(weights))  # the mean of the weights is 1
        self.record("effective_sample_size", share, weights)
        return {"domain_loss": (DomainClassification()(*logits), 1.0)}

    def compute_loss(
        self,
        x: object = None,
        y: object = None,
        y_pred: object = None,
        sample_weight: object = None,
        training: bool = True,
    ) -> object:
        """Return the loss; in training that of the labels is weighed."""
        if training and is_two_streams(x):
            weights = _weights(y_pred["compared"]["source"])
            if sample_weight is not None:
                given = ops.cast(sample_weight, weights.dtype)
                weights = weights * ops.reshape(given, (-1,))
            sample_weight = weights
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(
        self, x: object, y: object, y_pred: object, sample_weight: object = None
    ) -> dict:
        """Return the metrics; there is no strength here."""
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        found.pop("strength", None)
        return found

    def fit(self, *args: object, **kwargs: object) -> keras.callbacks.History:
        """Train as any model does, and warn if the weights collapsed at the end."""
        history = super().fit(*args, **kwargs)
        self._warn_if_collapsed()
        return history

    def reset_metrics(self) -> None:
        """Reset the metrics, and warn if the weights of the last epoch collapsed."""
        self._warn_if_collapsed()
        super().reset_metrics()

    def _warn_if_collapsed(self) -> None:
        size, accuracy = (
            self._means[name] for name in ("effective_sample_size", "domain_accuracy")
        )
        seen = float(_keras.value(size.count)) > 0
        share, right = (float(_keras.value(x.result())) for x in (size, accuracy))
        for each in (size, accuracy):
            each.reset_state()  # so that each epoch is told of once
        if seen and (share < COLLAPSED or right > 1 - SEPARABLE):
            warnings.warn(
                f"The effective sample size is {share:.1%} of a batch, and the domain "
                f"head is right on {right:.1%} of the examples: the domains hardly "
                "overlap, so that the weights lie on few examples of the source or "
                "say little. Take features in which the domains are closer, or a "
                "method that aligns them, such as kt.models.DANN.",
                DomainOverlapWarning,
                stacklevel=3,
            )

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        config = super().get_config()
        del config["strength"], config["total_steps"]
        head = keras.saving.serialize_keras_object(self.domain_head)
        return config | {"domain_head": head}


def _weights(logits: object) -> object:
    """Return the odds of the target, normalised over the batch to a mean of 1."""
    logits = ops.stop_gradient(ops.cast(logits[:, 0], "float32"))
    count = ops.cast(ops.shape(logits)[0], "float32")
    return ops.softmax(logits, axis=-1) * count
