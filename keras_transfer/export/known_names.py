"""The names of the adapters in a graph, and the number of each name in a request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_transfer.export.growing import growing
from keras_transfer.export.served_adapters import BASE

INPUT = "adapter"  # name of the additional input of each signature
SHOWN = 20  # names in an error


class KnownNames:
    """The names in a variable, whose number a checkpoint can change.

    Args:
        names: Names of the adapters, without the name of the model itself.
        unknown: As in `ServedAdapters`.
    """

    def __init__(self, names: Sequence[str], unknown: str) -> None:
        self.unknown = unknown
        known = np.array([BASE, *names], object)
        self.variable = growing(known, "adapters_names")

    def has(self, names: tf.Tensor) -> tf.Tensor:
        """Return whether each name of a request is known."""
        return tf.reduce_any(self._same(names), axis=-1)

    def index(self, names: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
        """Return the number of the adapter of each example, 0 for no adapter.

        A request raises an error if `inputs` has another number of rows, or if a name
        is unknown and the model should not answer it.
        """
        text = (
            "The request names an unknown adapter. The empty string means the model "
            "without an adapter. Known adapters are"
        )
        checks = [
            tf.debugging.Assert(
                tf.equal(tf.shape(names)[0], tf.shape(inputs)[0]),
                [f"{INPUT!r} must name one adapter for each example. Names:"]
                + [tf.shape(names)[0], "examples:", tf.shape(inputs)[0]],
            ),
        ]
        if self.unknown == "error":
            there = self.has(names)
            wrong = tf.boolean_mask(names, ~there)
            found = [text, self.variable[1:], "Unknown:", wrong]
            good = tf.reduce_all(there)
            checks.append(tf.debugging.Assert(good, found, summarize=SHOWN))
        with tf.control_dependencies(checks):
            # For an unknown name, all are 0, and the first is the model itself.
            same = tf.cast(self._same(names), tf.int32)
            return tf.argmax(same, axis=-1, output_type=tf.int32)

    def _same(self, names: tf.Tensor) -> tf.Tensor:
        return tf.equal(names[:, None], self.variable.read_value()[None])
