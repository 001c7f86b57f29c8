"""AdaBN: BatchNorm statistics of the target in place of the source's."""

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
    """Learn on the source; then let BatchNorm take its statistics from the target.

    What differs between domains in the mean and variance of a channel is taken out by
    the layers that exist for it. Nothing is trained for that: after the source's
    labels have been learned (`fit`, which ignores the target), `adapt` runs the target
    through and replaces each moving mean and variance by that of all its examples.
    `adapt_batch_norm` does the same to any model.

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
        """Take the statistics of `target`, unlabeled; see `adapt_batch_norm`."""
        adapt_batch_norm(self, target, batch_size)


def adapt_batch_norm(model: keras.Model, target: object, batch_size: int = 128) -> None:
    """Replace the statistics of each BatchNormalization by those of another domain.

    One pass over the target: each batch runs through normalized by its own statistics,
    as in training, while dropout is off, and its mean and variance count by its number
    of examples; the variance is that of all examples, with what the means of batches
    differ by. Nothing else changes, and where the pass fails nothing does.

    Args:
        model: A built model with one `BatchNormalization` or more. Frozen ones are
            adapted as well.
        target: Examples without labels: an array, a dictionary of arrays, or a batched
            `tf.data.Dataset` of them.
        batch_size: Examples a batch, for arrays, 2 or more. Defaults to 128.

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
        ValueError: If the model has no BatchNormalization, the target is empty, has one
            example or labels, the batch size is below 2, or the statistics of the
            target are not finite.

    Reference:
        Li, Wang, Shi, Liu and Hou, 2016, "Revisiting Batch Normalization For Practical
        Domain Adaptation", arXiv 1603.04779, algorithm 1.
    """
    layers = _batch_norms(model)
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
            layer.momentum = 0.0  # the moving statistics become those of the batch
        with _keras.calls_through(layers, call):
            for batch in _batches(target, batch_size):
                model(batch, training=False)
    new = [moments[id(layer)].result(layer.name) for layer in layers]
    for layer, values in zip(layers, new, strict=True):
        _assign(layer, values)


class Moments:
    """Mean and variance of all batches of one layer, in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def add(self, count: float, mean: np.ndarray, variance: np.ndarray) -> None:
        """Take in a batch."""
        mean, variance = mean.astype("float64"), variance.astype("float64")
        if not count:  # all of it is masked
            return
        self.count += count
        share = count / self.count
        self.mean = self.mean + share * (mean - self.mean)
        self.square = self.square + share * (variance + mean**2 - self.square)

    def result(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the variance.

        Raises:
            ValueError: If there was no example or only one, or they are not finite.
        """
        if self.count < 2:
            raise ValueError(
                f"'{name}' has seen {self.count} examples of the target. Statistics "
                "need two or more, and all layers must be used in the model's call."
            )
        variance = np.maximum(self.square - self.mean**2, 0.0)
        if not (np.isfinite(self.mean).all() and np.isfinite(variance).all()):
            raise ValueError(
                f"The statistics of '{name}' on the target are not finite. Look for "
                "NaN or infinities in the target; the model is as it was."
            )
        return self.mean, variance


@contextlib.contextmanager
def _settings_kept(layers: list[keras.Layer]) -> Iterator[None]:
    """Give the layers their momentum and statistics back at the end."""
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
    layers = [
        layer
        for layer in _keras.flat_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not layers:
        raise ValueError(
            f"'{model.name}' has no BatchNormalization, whose statistics could be "
            "adapted. Choose another method, such as kt.models.DANN."
        )
    return layers


def _batches(target: object, batch_size: int) -> Iterator[object]:
    """Yield the batches of arrays or of a dataset."""
    if isinstance(target, tuple):
        raise ValueError(
            f"The target is a tuple of {len(target)}. Labels have no place here: pass "
            "the examples alone."
        )
    if not hasattr(target, "element_spec"):
        if batch_size < 2:
            raise ValueError(
                f"batch_size is {batch_size}. A batch has no variance with fewer than "
                "2 examples."
            )
        target = keras.tree.map_structure(np.asarray, target)
        size = len(keras.tree.flatten(target)[0])
        for start in range(0, size, batch_size):
            stop = start + batch_size
            # Of one example there is no variance: it joins the batch before it.
            stop = size if size - stop == 1 else stop
            yield keras.tree.map_structure(lambda x: x[start:stop], target)  # noqa: B023
            if stop == size:
                return
    elif isinstance(target.element_spec, tuple):
        raise ValueError(
            "The target is a dataset of tuples. Labels have no place here: pass "
            "target.map(lambda x, y: x)."
        )
    else:
        yield from target
