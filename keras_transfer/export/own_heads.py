"""The layers that several adapters have for themselves at one host, by example."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.adapters.own_layer import OwnLayer

# Activations whose results are 0 or more: what is not there has 0, a probability.
NOT_NEGATIVE = ("hard_sigmoid", "relu", "relu6", "sigmoid", "softmax", "softplus")


class OwnHeads:
    """What one layer computes with the weights of each adapter, and which one counts.

    Of a head of fewer outputs than the widest the rest is filled up: with probabilities
    of 0 behind a softmax or sigmoid, else with the least number of the dtype, of which
    a softmax makes 0.

    Args:
        host: The layer.
        own: One part an adapter, None where it has none here.
    """

    def __init__(self, host: keras.Layer, own: Sequence[OwnLayer | None]) -> None:
        self.host = host
        self.own = list(own)
        # Of the model without an adapter first; empty where all have one width.
        self.widths: list[int] = []
        if any(part is not None and part.other_width for part in own):
            self.widths = [host.units] + [
                host.units if part is None or part.units is None else part.units
                for part in own
            ]

    def each_its_own(
        self, otherwise: Callable, compute: Callable, index: tf.Tensor
    ) -> object:
        """Return the outputs, those of each example by its own adapter.

        Args:
            otherwise: What the host computes without weights of an adapter.
            compute: What its class computes with the weights that it has.
            index: The adapter of each example, 0 for none.
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
        """Return the outputs of one adapter, by its number; 0 for none."""
        part = self.own[number - 1] if number else None
        return self.filled(
            otherwise() if part is None else part.computed(self.host, compute)
        )

    def filled(self, outputs: object) -> object:
        """Return outputs of the widest head, of those of any."""
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
    """Return what adds `label` and `label_id` to outputs, by the adapters' own names.

    It is called with the outputs by name and the adapter of each example, 0 for none.

    Args:
        labels: Names of the classes by the adapter's name; `""` for the model without,
            whose label is empty if it is left out.
        names: Names of the adapters.
        heads: Where the adapters have layers of their own.

    Raises:
        ValueError: If one is missing, unknown, or has another number of classes.
    """
    unknown = sorted(set(labels) - {"", *names})
    missing = sorted(set(names) - set(labels))
    if unknown or missing:
        raise ValueError(
            f"labels has names for {unknown}, which are not exported, and none for "
            f"{missing}. Give a list for each of {list(names)}, and for '' where the "
            "model without an adapter is asked too."
        )
    widths = next((each.widths for each in heads if each.widths), [])
    for number, name in enumerate(["", *names]):
        own = list(labels.get(name, ()))
        if name in labels and (len(own) < 2 or len(set(own)) < len(own)):
            raise ValueError(
                f"labels[{name!r}] is {own!r}. Give the name of each class once, two "
                "or more, in the order of the outputs."
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
                f"{shapes}. There must be one, of the shape (batch, {width})."
            )
        if not widths and len({len(each) for each in labels.values()}) > 1:
            raise ValueError(
                f"labels has {[len(each) for each in labels.values()]} names, but each "
                f"adapter gives {width} outputs."
            )
        rows = [[*labels.get(x, ()), *[""] * width][:width] for x in ("", *names)]
        best = tf.argmax(scores, axis=-1)
        places = tf.stack([tf.cast(index, best.dtype), best], axis=-1)
        label = tf.gather_nd(tf.constant(np.array(rows, object), tf.string), places)
        return {**outputs, "label": label, "label_id": best}

    return finish


def _where(rows: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(rows, [-1, *[1] * (new.shape.rank - 1)]), new, old)
