"""The own layers of several adapters at one host, chosen for each example."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.adapters.own_layer import OwnLayer

# Activations with results of 0 or more: a missing class gets the probability 0.
NOT_NEGATIVE = ("hard_sigmoid", "relu", "relu6", "sigmoid", "softmax", "softplus")


class OwnHeads:
    """Computes one layer with the weights of each adapter and chooses by example.

    If a head has fewer outputs than the widest head, its outputs are filled up. The
    fill value is 0 after a softmax or sigmoid, else the lowest number of the dtype,
    which a softmax turns into 0.

    Args:
        host: The layer.
        own: A list with the part of each adapter, or None for an adapter that does not
            replace this layer.
    """

    def __init__(self, host: keras.Layer, own: Sequence[OwnLayer | None]) -> None:
        self.host = host
        self.own = list(own)
        # The first width is the model's own. Empty if all heads have the same width.
        self.widths: list[int] = []
        if any(part is not None and part.other_width for part in own):
            self.widths = [host.units] + [
                host.units if part is None or part.units is None else part.units
                for part in own
            ]

    def each_its_own(
        self, otherwise: Callable, compute: Callable, index: tf.Tensor
    ) -> object:
        """Return the outputs, computed for each example with its own adapter.

        Args:
            otherwise: Function that returns the outputs without an adapter's weights.
            compute: Function that returns the outputs with the host's current weights.
            index: The number of the adapter of each example, 0 for no adapter.
        """
        outputs = self.filled(otherwise())
        for number, part in enumerate(self.own, 1):
            if part is not None:
                mine = self.filled(part.computed(self.host, compute))
                rows = tf.equal(index, number)
                outputs = keras.tree.map_structure(
                    lambda new, old, rows=rows: _where(rows, new, old), mine, outputs
                )
        return outputs

    def only(self, otherwise: Callable, compute: Callable, number: int) -> object:
        """Return the outputs of the adapter with this number, 0 for no adapter."""
        part = self.own[number - 1] if number else None
        return self.filled(
            otherwise() if part is None else part.computed(self.host, compute)
        )

    def filled(self, outputs: object) -> object:
        """Return outputs of any head, filled up to the width of the widest head."""
        if not self.widths:
            return outputs
        lacks = max(self.widths) - outputs.shape[-1]
        name = getattr(self.host.activation, "__name__", "")
        least = 0.0 if name in NOT_NEGATIVE else outputs.dtype.min
        widths = [[0, 0]] * (outputs.shape.rank - 1) + [[0, lacks]]
        return tf.pad(outputs, widths, constant_values=tf.cast(least, outputs.dtype))


def labels_by_adapter(
    labels: Mapping[str, Sequence[str]], names: Sequence[str], heads: Sequence[OwnHeads]
) -> Callable:
    """Return a function that adds `label` and `label_id` to outputs, by adapter.

    The function takes the outputs by name and the number of the adapter of each
    example, 0 for no adapter.

    Args:
        labels: Class names by the adapter's name. The key `""` means the model without
            an adapter. If it is missing, the labels of this model are empty.
        names: Names of the adapters.
        heads: The layers that the adapters replace.

    Raises:
        ValueError: If an adapter is missing or unknown, or if the number of names
            differs from the number of classes.
    """
    unknown = sorted(set(labels) - {"", *names})
    missing = sorted(set(names) - set(labels))
    if unknown or missing:
        raise ValueError(
            f"labels has the keys {unknown}, which are not exported, and lacks the "
            f"keys {missing}. Pass a list for each of {list(names)}, and optionally "
            "for '', the model without an adapter."
        )
    widths = next((each.widths for each in heads if each.widths), [])
    for number, name in enumerate(["", *names]):
        own = list(labels.get(name, ()))
        if name in labels and (len(own) < 2 or len(set(own)) < len(own)):
            raise ValueError(
                f"labels[{name!r}] is {own!r}. Pass the name of each class once, at "
                "least two names, in the order of the logits."
            )
        if name in labels and widths and len(own) != widths[number]:
            raise ValueError(
                f"labels[{name!r}] has {len(own)} names, but the head of {name!r} has "
                f"{widths[number]} outputs."
            )

    def finish(outputs: dict[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
        shapes = {name: tuple(each.shape) for name, each in outputs.items()}
        width = max(map(len, labels.values()))
        scores = next(iter(outputs.values()))
        if len(outputs) != 1 or len(scores.shape) != 2 or scores.shape[-1] != width:
            raise ValueError(
                f"labels has up to {width} names, but the model's outputs are "
                f"{shapes}. The model must have one output, of shape (batch, {width})."
            )
        if not widths and len({len(each) for each in labels.values()}) > 1:
            raise ValueError(
                f"labels has {[len(each) for each in labels.values()]} names, but each "
                f"adapter gives {width} outputs. Pass a name for each output."
            )
        rows = [[*labels.get(x, ()), *[""] * width][:width] for x in ("", *names)]
        best = tf.argmax(scores, axis=-1)
        places = tf.stack([tf.cast(index, best.dtype), best], axis=-1)
        label = tf.gather_nd(tf.constant(np.array(rows, object), tf.string), places)
        return {**outputs, "label": label, "label_id": best}

    return finish


def _where(rows: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(rows, [-1, *[1] * (new.shape.rank - 1)]), new, old)
