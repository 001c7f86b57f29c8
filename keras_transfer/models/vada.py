"""VADA: adversarial training with predictions that are sure, and smooth."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import positive
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.conditional_entropy import ConditionalEntropy
from keras_transfer.models.dann import DANN
from keras_transfer.models.domain import Domain
from keras_transfer.models.strength import Strength

PROBE = 1e-2  # length of the trial step, as a share of the radius
LOGS = ("entropy_loss", "source_smoothness_loss", "target_smoothness_loss")


@keras.saving.register_keras_serializable(package="keras_transfer")
class VADA(DANN):
    """Learn as DANN does, with sure and smooth predictions on the target.

    Classes are taken to lie in clusters, which no boundary is to cross. To the losses
    of `DANN` are added the entropy H of the target's predictions, and by how much these
    change under the worst small step r of an input (virtual adversarial
    training, V = KL(p(x) || p(x + r)) with |r| = radius):

        L = CE(source) + L_d + w_s mean V(source) + w_t mean (H + V)(target)

    r is found by one power iteration. Where the inputs are no single float array, as
    with token ids, the step is taken in the features instead. `fit` logs the four
    losses, `domain_accuracy` and `strength`. The paper's second phase (DIRT-T) is not
    here.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`, two classes or more.
        domain_head: A layer or model from features to one logit an example. Defaults to
            a Dense layer of 100 units with ReLU and one of 1 unit.
        strength: Strength of the reversal, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps; None for Ganin's
            rise from 0 to 1 over the running fit, the default. The paper has 0.01, with
            which a network without normalisation gave most of MNIST-M one class.
        radius: Euclidean length of r, positive, in the unit of the inputs (of the
            features, for token ids). Defaults to 3.5, the paper's for images of pixels
            in [-1, 1] or so.
        smoothing: The weights (w_s, w_t), 0 or more. Defaults to (1, 0.1).
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
        model = kt.models.VADA(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, a head has the wrong outputs, or the
            strength is out of range; in `fit`, if the data has one domain only, or
            labels of the target.

    Reference:
        Shu, Bui, Narui and Ermon, 2018, "A DIRT-T Approach to Unsupervised Domain
        Adaptation", arXiv 1802.08735; Miyato et al., 2018, "Virtual Adversarial
        Training", arXiv 1704.03976.
    """

    logs = (*DANN.logs, *LOGS)
    least_classes = 2

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        domain_head: keras.Layer | None = None,
        strength: Strength = None,
        *,
        radius: float = 3.5,
        smoothing: tuple[float, float] = (1.0, 0.1),
        name: str | None = None,
    ):
        super().__init__(
            feature_extractor, label_head, domain_head, strength, name=name
        )
        self.radius = positive("radius", radius)
        if len(smoothing) != 2 or not all(0 <= each < 1e9 for each in smoothing):
            raise ValueError(
                f"smoothing is {smoothing!r}. It is a pair of weights, of source and "
                "target, 0 or more."
            )
        self.smoothing = tuple(float(each) for each in smoothing)
        self._random = keras.random.SeedGenerator()

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return what DANN compares, and for each example how far it is from smooth."""
        # Both domains in one batch, as in the pass that they are compared with: apart,
        # BatchNormalization would see another distribution.
        both = Domain(
            *keras.tree.map_structure(lambda *x: ops.concatenate(x), source, target)
        )
        divergence, count = self._divergence(both, training), ops.shape(source[1])[0]
        return super().compare(source, target, training) | {
            "source_smoothness": divergence[:count],
            "target_smoothness": divergence[count:],
        }

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the losses of DANN, of entropy and of smoothness."""
        of_source, of_target = self.smoothing
        entropy = ConditionalEntropy()(None, self.logits(target.outputs))
        mean = ExampleMean()
        return super().penalties(source, target, compared) | {
            "entropy_loss": (entropy, of_target),
            "source_smoothness_loss": (
                mean(None, compared["source_smoothness"]),
                of_source,
            ),
            "target_smoothness_loss": (
                mean(None, compared["target_smoothness"]),
                of_target,
            ),
        }

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        config = super().get_config()
        del config["total_steps"]
        return config | {"radius": self.radius, "smoothing": list(self.smoothing)}

    def _divergence(self, domain: Domain, training: bool) -> object:
        """Return KL(p(x) || p(x + r)) of each example."""
        x, run = domain.features, self.label_head
        if isinstance(domain.inputs, dict | list | tuple) or not _is_float(
            domain.inputs
        ):
            # Token ids cannot be moved a little.
            return self._worst(x, domain.outputs, lambda z: run(z, training=training))
        x = ops.convert_to_tensor(domain.inputs)
        return self._worst(
            x,
            domain.outputs,
            lambda z: self._network()(z, training=training)[1],
        )

    def _worst(self, x: object, outputs: object, run: object) -> object:
        # The trial step is too short for half precision; float64 data has it alike.
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
    """The mean of the second argument, as a loss that adds up over replicas."""

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
    # By the largest entry first: the squares of a tiny slope are 0 in float32.
    largest = ops.max(ops.abs(step), axis=axes, keepdims=True)
    step = step / ops.maximum(largest, 1e-30)
    norm = ops.sqrt(ops.sum(ops.square(step), axis=axes, keepdims=True))
    return length * step / ops.maximum(norm, 1e-12)
