"""ImportanceWeighting: each source example is weighted by its odds in the target."""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.analysis.domains.importance_weights import COLLAPSED
from keras_transfer.analysis.domains.importance_weights import DomainOverlapWarning
from keras_transfer.analysis.domains.importance_weights import SEPARABLE
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.models.domain_head import domain_penalty
from keras_transfer.models.domain_head import LOGS
from keras_transfer.models.domain_head import make_domain_head
from keras_transfer.models.two_domain_model import TwoDomainModel
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import is_two_streams
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import split


@keras.saving.register_keras_serializable(package="keras_transfer")
class ImportanceWeighting(TwoDomainModel):
    """Weight each source example by how much more likely it is in the target.

    Use it for a covariate shift: the task is the same in both domains, but the examples
    have different frequencies. A domain head d is trained to distinguish the domains by
    the features, without changing the features. The odds of d estimate the ratio of the
    densities of target and source. These odds weight the loss of the labels. They are
    normalized over each batch of n examples:

        w_i = exp(d(f_i)) / (mean over the batch of exp(d(f_j)))
        L = mean over the source of w_i CE_i + L_d

    Only the weighted loss trains the features. `fit` logs the effective sample size
    (sum w)^2 / (n sum w^2) as `effective_sample_size`. It is the share of the batch
    that effectively counts. The model warns with a `DomainOverlapWarning` if this share
    is below 0.1 over an epoch (impossible for batches of fewer than 10 examples), or if
    the domain head is wrong on less than 5 % of the examples. If the domains do not
    overlap, weights cannot help. Then use a method that aligns the domains, such as
    `DANN`. For weights that are computed once on fixed features, see
    `kt.analysis.importance_weights`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`.
        domain_head: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.ImportanceWeighting(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
        assert 0 < history["effective_sample_size"][0] <= 1
        ```

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, except for the strength.

    Reference:
        Sugiyama, Krauledat and Mueller, 2007, "Covariate Shift Adaptation by Importance
        Weighted Cross Validation", JMLR 8; Bickel, Brueckner and Scheffer, 2009,
        "Discriminative Learning Under Covariate Shift", JMLR 10.
    """

    arguments = (*TwoDomainModel.arguments, "domain_head")
    logs = (*LOGS, "effective_sample_size")

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        domain_head: keras.Layer | None = None,
        name: str | None = None,
    ):
        super().__init__(feature_extractor, label_head, name=name)
        self.domain_head = make_domain_head(self, domain_head)

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the logits of the domain head by domain."""
        features = ops.stop_gradient(join(source.features, target.features))
        logits = self.domain_head(features, training=training)
        return split(logits, source.size)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the loss of the domain head, and record the effective sample size."""
        weights = _weights(compared["source"])
        share = 1.0 / ops.mean(ops.square(weights))  # the mean of the weights is 1
        self.record("effective_sample_size", share, weights)
        return domain_penalty(self, compared["source"], compared["target"])

    def label_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> object:
        """Return the loss of the labels, which is weighted in training."""
        if training and is_two_streams(x):
            weights = _weights(y_pred["compared"]["source"])
            if sample_weight is not None:
                given = ops.cast(sample_weight, weights.dtype)
                weights = weights * ops.reshape(given, (-1,))
            sample_weight = weights
        return super().label_loss(x, y, y_pred, sample_weight, training)

    def fit(self, *args: object, **kwargs: object) -> keras.callbacks.History:
        """Train like any model, and warn if the weights collapsed in the last epoch."""
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
        for metric in (size, accuracy):
            metric.reset_state()  # each epoch warns only once
        if seen and (share < COLLAPSED or right > 1 - SEPARABLE):
            warnings.warn(
                f"The effective sample size is {share:.1%} of a batch, and the domain "
                f"head is right on {right:.1%} of the examples. The domains hardly "
                "overlap, so only a few source examples have large weights, or the "
                "weights are not reliable. Use features in which the domains are "
                "closer, or a method that aligns the domains, such as kt.models.DANN.",
                DomainOverlapWarning,
                stacklevel=3,
            )


def _weights(logits: object) -> object:
    """Return the odds of the target, normalized over the batch to a mean of 1."""
    logits = ops.stop_gradient(ops.cast(logits[:, 0], "float32"))
    count = ops.cast(ops.shape(logits)[0], "float32")
    return ops.softmax(logits, axis=-1) * count
