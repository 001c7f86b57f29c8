"""DomainClassification: how well a classifier distinguishes source from target."""

import keras
from keras import ops

from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import differ


@keras.saving.register_keras_serializable(package="keras_transfer")
class DomainClassification(BatchLoss):
    """Cross-entropy of a domain classifier; source is 0, target is 1 (DANN, CDAN).

    The domain classifier minimizes this loss. With a `GradientReversal` in front of
    the classifier, the feature extractor maximizes it:

    `L = 1/2 (mean_s w log(1 + exp(z)) + mean_t w log(1 + exp(-z)))`

    `z` is the logit of "target". `mean_s` and `mean_t` are the means over the source
    batch and the target batch, which count equally for any batch sizes. `w` is the
    weight of an example, scaled to mean 1 in each batch; without weights `w = 1`. If
    the classifier cannot distinguish the domains, the loss is `log 2`. CDAN+E uses
    `w = 1 + exp(-H)` with the entropy `H` of the prediction. Gradients flow into
    weights that come from a model. To stop them, pass `ops.stop_gradient(w)`.

    Call the loss as `loss(source, target)`. Each argument is the logits, or a pair
    (logits, weights), of shape `(batch, 1)` or `(batch,)`. The two batches may differ
    in size.

    Args:
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        loss = kt.losses.DomainClassification()
        unsure = loss(np.zeros((3, 1)), np.zeros((5, 1)))
        assert abs(float(unsure) - np.log(2)) < 1e-6
        weighted = loss((np.zeros((3, 1)), np.array([1.0, 2.0, 3.0])), np.zeros((5, 1)))
        assert abs(float(weighted) - np.log(2)) < 1e-6
        ```

    Raises:
        ValueError: When called, if the shapes do not fit.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks", arXiv
        1505.07818; with weights Long, Cao, Wang and Jordan, 2018, "Conditional
        Adversarial Domain Adaptation", arXiv 1705.10667.
    """

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's batches as a scalar."""
        source, source_weights = _parts("source", source)
        target, target_weights = _parts("target", target)
        of_source = _mean(ops.softplus(source), source_weights)
        of_target = _mean(ops.softplus(-target), target_weights)
        return 0.5 * (of_source + of_target)


def _parts(name: str, value: object) -> tuple[object, object]:
    # Logits and weights as vectors; weights may be None.
    if not isinstance(value, list | tuple):
        return _vector(f"{name} logits", value), None
    if len(value) != 2:
        raise ValueError(
            f"{name} has {len(value)} parts, but this loss reads one or two. Pass the "
            "logits, or the pair (logits, weights)."
        )
    logits = _vector(f"{name} logits", value[0])
    weights = _vector(f"{name} weights", value[1])
    if differ(logits.shape, weights.shape):
        raise ValueError(
            f"{name} has {logits.shape[0]} logits, but {weights.shape[0]} weights. "
            "Pass one weight for each example."
        )
    return logits, weights


def _vector(name: str, x: object) -> object:
    shape = tuple(x.shape)
    if not (len(shape) == 1 or len(shape) == 2 and shape[1] == 1) or shape[0] == 0:
        raise ValueError(
            f"The {name} have the shape {shape}, but this loss needs one number for "
            "each example: (batch, 1) or (batch,). Give the domain classifier one unit "
            "without an activation."
        )
    return x if len(shape) == 1 else ops.squeeze(x, axis=1)


def _mean(losses: object, weights: object) -> object:
    if weights is None:
        return ops.mean(losses)
    # If all weights are 0, no example counts.
    return ops.divide_no_nan(ops.sum(weights * losses), ops.sum(weights))
