"""VADA: adversarial training with confident and smooth predictions."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.conditional_entropy import ConditionalEntropy
from keras_transfer.models.dann import DANN
from keras_transfer.models.domain_adaptation import Strength
from keras_transfer.models.two_domain_model import TwoDomainModel
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import split
from keras_transfer.models.two_streams import STREAMS

PROBE = 1e-2  # length of the first random step, as a share of the radius
LOGS = ("entropy_loss", "source_smoothness_loss", "target_smoothness_loss")


@keras.saving.register_keras_serializable(package="keras_transfer")
class VADA(DANN):
    """Domain-adversarial training with confident and smooth predictions.

    VADA assumes that classes form clusters, and that no decision boundary crosses a
    cluster. It adds two terms to the losses of `DANN`: the entropy H of the predictions
    on the target, and the change V of the predictions under the worst small step r of
    an input. This is virtual adversarial training, with V = KL(p(x) || p(x + r)) and
    |r| = radius:

        L = CE(source) + L_d + w_s mean V(source) + w_t mean (H + V)(target)

    One power iteration finds r. If the inputs are not a single float array, such as
    token ids, the step is applied to the features instead. `fit` logs the four losses,
    `domain_accuracy` and `strength`. The second phase of the paper (DIRT-T) is not
    implemented.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`, with at least two classes.
        domain_head: As in `DANN`.
        strength: As in `DANN`. The paper uses 0.01. With this value, a network without
            normalization predicted one class for most of MNIST-M.
        radius: Float above 0, the Euclidean length of r, in units of the inputs (of the
            features, for token ids). Defaults to 3.5, the paper's value for images with
            pixels of about -1 to 1.
        smoothing: Pair of floats of at least 0, the weights (w_s, w_t). Defaults to
            (1.0, 0.1).
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.VADA(features, keras.layers.Dense(2), radius=0.5)
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if the label head has one output, the radius is
            not above 0, or `smoothing` is not a pair of weights.

    Reference:
        Shu, Bui, Narui and Ermon, 2018, "A DIRT-T Approach to Unsupervised Domain
        Adaptation", arXiv 1802.08735; Miyato et al., 2018, "Virtual Adversarial
        Training", arXiv 1704.03976.
    """

    arguments = (
        *TwoDomainModel.arguments,
        "domain_head",
        "strength",
        "radius",
        "smoothing",
    )
    logs = (*DANN.logs, *LOGS)
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        domain_head: keras.Layer | None = None,
        strength: Strength = None,
        radius: float = 3.5,
        smoothing: tuple[float, float] = (1.0, 0.1),
        name: str | None = None,
    ):
        super().__init__(
            feature_extractor,
            label_head,
            domain_head=domain_head,
            strength=strength,
            name=name,
        )
        self.radius = positive("radius", radius)
        if len(smoothing) != 2 or not all(0 <= x < 1e9 for x in smoothing):
            raise ValueError(
                f"smoothing is {smoothing!r}, but it must be a pair of weights of at "
                "least 0, for source and target. Pass a pair such as (1.0, 0.1)."
            )
        self.smoothing = tuple(float(weight) for weight in smoothing)
        self._random = keras.random.SeedGenerator()

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return the arrays of DANN, and the change V of each example."""
        # Both domains in one batch, as in the forward pass. Separate batches would
        # change the statistics of BatchNormalization.
        both = Domain(*join(source, target))
        divergence = split(self._divergence(both, training), source.size)
        return super().compare(source, target, training) | {
            f"{name}_smoothness": divergence[name] for name in STREAMS
        }

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the losses of DANN, the entropy loss and the smoothness losses."""
        losses = super().penalties(source, target, compared)
        entropy = ConditionalEntropy()(None, self.logits(target.outputs))
        losses["entropy_loss"] = (entropy, self.smoothing[1])
        for name, weight in zip(STREAMS, self.smoothing, strict=True):
            smoothness = ExampleMean()(None, compared[f"{name}_smoothness"])
            losses[f"{name}_smoothness_loss"] = (smoothness, weight)
        return losses

    def _divergence(self, domain: Domain, training: bool) -> object:
        """Return KL(p(x) || p(x + r)) of each example."""
        x, run = domain.features, self.label_head
        if isinstance(domain.inputs, dict | list | tuple) or not _is_float(
            domain.inputs
        ):
            # A small step is not possible for token ids.
            return self._worst(x, domain.outputs, lambda z: run(z, training=training))
        x = ops.convert_to_tensor(domain.inputs)
        return self._worst(
            x,
            domain.outputs,
            lambda z: self._network()(z, training=training)[1],
        )

    def _worst(self, x: object, outputs: object, run: object) -> object:
        # The first step is too short for half precision. float64 inputs are cast too.
        x = ops.cast(x, "float32")
        fixed = ops.stop_gradient(self.logits(outputs))

        def divergence(z: object) -> object:
            return _divergence(fixed, self.logits(run(z)))

        start = keras.random.normal(ops.shape(x), dtype=x.dtype, seed=self._random)
        start = _of_length(start, PROBE * self.radius)
        slope = _keras.gradient(
            lambda step: ops.sum(divergence(ops.stop_gradient(x) + step)), start
        )
        return divergence(x + _of_length(slope, self.radius))


@keras.saving.register_keras_serializable(package="keras_transfer")
class ExampleMean(BatchLoss):
    """The mean of the second argument, as a loss that is summed over replicas."""

    def value(self, source: object, target: object) -> object:
        """Return the mean on one replica."""
        return ops.mean(target)


def _is_float(x: object) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


def _divergence(logits: object, others: object) -> object:
    first, second = ops.log_softmax(logits), ops.log_softmax(others)
    return ops.sum(ops.exp(first) * (first - second), axis=-1)


def _of_length(step: object, length: float) -> object:
    step = ops.cast(step, "float32")
    axes = tuple(range(1, len(step.shape)))
    # First divide by the largest entry, because squares of tiny values are 0 in
    # float32.
    largest = ops.max(ops.abs(step), axis=axes, keepdims=True)
    step = step / ops.maximum(largest, 1e-30)
    norm = ops.sqrt(ops.sum(ops.square(step), axis=axes, keepdims=True))
    return length * step / ops.maximum(norm, 1e-12)
