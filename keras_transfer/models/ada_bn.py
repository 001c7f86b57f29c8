"""AdaBN: BatchNorm statistics of the target replace the statistics of the source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.models.source_only import SourceOnly


@keras.saving.register_keras_serializable(package="keras_transfer")
class AdaBN(SourceOnly):
    """Train on the source, then use the BatchNorm statistics of the target.

    With statistics of the target, the BatchNorm layers remove the differences between
    the domains in the mean and variance of each channel. This step trains nothing.
    First call `fit`, which trains on the source and ignores the target. Then call
    `adapt`, which runs the target through the model and replaces each moving mean and
    variance by the values over all target examples. `adapt_batch_norm` does the same
    for any model.

    Args:
        feature_extractor: As in `DANN`, with a `BatchNormalization`.
        label_head: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `SourceOnly`.

    Output shape:
        As in `SourceOnly`.

    Example:
        ```python
        norm = keras.layers.BatchNormalization()
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), norm])
        model = kt.models.AdaBN(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        model.fit(xs, ys, epochs=2, verbose=0)
        model.adapt(xt)
        ```

    Raises:
        TypeError: As in `SourceOnly`.
        ValueError: As in `SourceOnly`, and if there is no BatchNormalization.

    Reference:
        Li, Wang, Shi, Liu and Hou, 2016, "Revisiting Batch Normalization For Practical
        Domain Adaptation", arXiv 1603.04779.
    """

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        name: str | None = None,
    ):
        super().__init__(feature_extractor, label_head, name=name)
        _batch_norms(self)

    def adapt(self, target: object, batch_size: int = 128) -> None:
        """Replace the BatchNorm statistics, as `adapt_batch_norm` does.

        Args:
            target: Examples without labels, as in `adapt_batch_norm`.
            batch_size: Int of at least 2, examples per batch. Defaults to 128.
        """
        adapt_batch_norm(self, target, batch_size)


def adapt_batch_norm(model: keras.Model, target: object, batch_size: int = 128) -> None:
    """Give each BatchNormalization the statistics of another domain.

    The function makes one pass over the target. Each batch is normalized with its own
    statistics, as in training, but dropout is off. The mean and variance of each batch
    are weighted by its number of examples. The result is the mean and variance over all
    examples, including the differences between the means of the batches. Nothing else
    changes in the model. If the pass fails, the model is unchanged.

    Args:
        model: A built model with at least one `BatchNormalization`. Frozen layers are
            adapted too.
        target: Examples without labels: an array, a dictionary of arrays, or a batched
            `tf.data.Dataset` of these.
        batch_size: Int of at least 2, examples per batch, for arrays only. Defaults to
            128.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        layer = keras.layers.BatchNormalization()
        model = keras.Sequential([keras.Input((1,)), layer])
        kt.models.adapt_batch_norm(model, np.array([[1.0], [3.0]]))
        assert layer.moving_mean.numpy() == 2.0
        ```

    Raises:
        ValueError: If the model has no BatchNormalization, if the target is empty, has
            only one example or has labels, if the batch size is below 2, or if the
            statistics of the target are not finite.

    Reference:
        Li, Wang, Shi, Liu and Hou, 2016, "Revisiting Batch Normalization For Practical
        Domain Adaptation", arXiv 1603.04779, algorithm 1.
    """
    replace_statistics(model, _batch_norms(model), target, batch_size)


def replace_statistics(
    model: keras.Model, layers: Sequence[keras.Layer], target: object, batch_size: int
) -> None:
    """Give these BatchNormalization layers of a model the statistics of `target`."""
    moments = {id(layer): Moments() for layer in layers}

    def call(layer: keras.Layer, original: Callable, x: object, **kwargs) -> object:
        outputs = original(x, **kwargs | {"training": True})
        mean, variance = map(_keras.value, _statistics(layer))
        mask = kwargs.get("mask")
        count = len(x) if mask is None else float(ops.sum(ops.cast(mask, "float32")))
        moments[id(layer)].add(count, mean, variance)
        return outputs

    with _keras.flags_kept(model), _settings_kept(layers):
        for layer in layers:
            _keras.set_flag(layer, True)
            layer.momentum = 0.0  # use only the statistics of the batch
        with _keras.calls_through(layers, call):
            for batch in _batches(target, batch_size):
                model(batch, training=False)
    new = [moments[id(layer)].result(layer.name) for layer in layers]
    for layer, values in zip(layers, new, strict=True):
        _assign(layer, values)


class Moments:
    """Mean and variance over all batches of one layer, in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def add(self, count: float, mean: np.ndarray, variance: np.ndarray) -> None:
        """Add a batch of `count` examples."""
        mean, variance = mean.astype("float64"), variance.astype("float64")
        if not count:  # the whole batch is masked
            return
        self.count += count
        share = count / self.count
        self.mean = self.mean + share * (mean - self.mean)
        self.square = self.square + share * (variance + mean**2 - self.square)

    def result(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the variance.

        Raises:
            ValueError: If there were fewer than two examples, or if the mean or the
                variance is not finite.
        """
        if self.count < 2:
            raise ValueError(
                f"'{name}' got {self.count} examples of the target, but statistics "
                "need at least 2. Pass more examples, and use every BatchNormalization "
                "in the model's call."
            )
        variance = np.maximum(self.square - self.mean**2, 0.0)
        if not (np.isfinite(self.mean).all() and np.isfinite(variance).all()):
            raise ValueError(
                f"The statistics of '{name}' on the target are not finite. Check the "
                "target for NaN and infinite values. The model is unchanged."
            )
        return self.mean, variance


@contextlib.contextmanager
def _settings_kept(layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Restore the momentum and the statistics of the layers at the end."""
    before = [
        (x, x.momentum, [_keras.value(v) for v in _statistics(x)]) for x in layers
    ]
    try:
        yield
    finally:
        for layer, momentum, values in before:
            layer.momentum = momentum
            _assign(layer, values)


def _statistics(layer: keras.Layer) -> tuple[keras.Variable, keras.Variable]:
    return layer.moving_mean, layer.moving_variance


def _assign(layer: keras.Layer, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(_statistics(layer), values, strict=True):
        variable.assign(value)


def _batch_norms(model: keras.Model) -> list[keras.Layer]:
    layers = batch_norms(model)
    if not layers:
        raise ValueError(
            f"'{model.name}' has no BatchNormalization, so there are no statistics to "
            "adapt. Choose another method, such as kt.models.DANN."
        )
    return layers


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    """Return the BatchNormalization layers of a model, at any depth."""
    kind = keras.layers.BatchNormalization
    return [each for each in _keras.flat_layers(model) if isinstance(each, kind)]


def _batches(target: object, batch_size: int) -> Iterator[object]:
    """Yield the batches of arrays or of a dataset."""
    if isinstance(target, tuple):
        raise ValueError(
            f"The target is a tuple of {len(target)}, but it must have no labels. Pass "
            "the examples only."
        )
    if not hasattr(target, "element_spec"):
        if batch_size < 2:
            raise ValueError(
                f"batch_size is {batch_size}, but a batch with fewer than 2 examples "
                "has no variance. Pass 2 or more."
            )
        target = keras.tree.map_structure(np.asarray, target)
        size = len(keras.tree.flatten(target)[0])
        for start in range(0, size, batch_size):
            stop = start + batch_size
            # One example has no variance, so the last example joins the batch before.
            stop = size if size - stop == 1 else stop
            yield keras.tree.map_structure(lambda x: x[start:stop], target)  # noqa: B023
            if stop == size:
                return
    elif isinstance(target.element_spec, tuple):
        raise ValueError(
            "The target is a dataset of tuples, but it must have no labels. Pass "
            "target.map(lambda x, y: x)."
        )
    else:
        yield from target
