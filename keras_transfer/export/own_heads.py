"""The own layers of several adapters at one host, chosen for each example."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer.adapters.own_layer import OwnLayer
from keras_transfer.export.growing import filled
from keras_transfer.export.growing import growing
from keras_transfer.export.growing import rows_of

# Activations with results of 0 or more: a missing class gets the probability 0.
NOT_NEGATIVE = ("hard_sigmoid", "relu", "relu6", "sigmoid", "softmax", "softplus")


class OwnHeads:
    """Computes one layer with the weights of each adapter and chooses by example.

    The weights of all adapters are stacked, so the graph fits any number of adapters.
    It computes the layer once for each adapter that the batch names.

    If a head has fewer outputs than the widest head, its outputs are filled up. The
    fill value is 0 after a softmax or sigmoid, else the lowest number of the dtype,
    which a softmax turns into 0.

    Args:
        host: The layer.
        own: A list with the part of each adapter, or None for an adapter that does not
            replace this layer.
        where: Path of the layer.
        last: Whether the layer is a Dense that gives the outputs of the model, so an
            adapter can have another number of outputs.
    """

    def __init__(
        self,
        host: keras.Layer,
        own: Sequence[OwnLayer | None],
        where: str,
        *,
        last: bool = False,
    ) -> None:
        self.host = host
        self.own = list(own)
        # The first width is the model's own. Empty if all heads have the same width.
        self.widths: list[int] = []
        if any(part is not None and part.other_width for part in own):
            self.widths = [host.units] + [
                host.units if part is None or part.units is None else part.units
                for part in own
            ]
        self.last = last or bool(self.widths)
        self.widest = max(self.widths or [host.units]) if self.last else None
        activation = getattr(host, "activation", None)
        self.not_negative = getattr(activation, "__name__", "") in NOT_NEGATIVE
        # Row of each adapter, and with another width the number of outputs of each row.
        self.rows: tf.Variable | None = None
        self.sizes: tf.Variable | None = None
        self.stacks: dict[str, tf.Variable] = {}
        present = [part for part in own if part is not None]
        if present:
            self._stack(present, where)

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """The variables other than the stacked weights, by the end of their names."""
        sizes = {} if self.sizes is None else {"sizes": self.sizes}
        return {} if self.rows is None else {"rows": self.rows, **sizes}

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
        if self.rows is None:
            return outputs
        row = tf.gather(self.rows, index)
        (rows,) = tf.unique(tf.boolean_mask(row, row >= 0))[:1]

        def chosen(number: tf.Tensor, *old: tf.Tensor) -> tuple[tf.Tensor, ...]:
            new = keras.tree.flatten(self._computed(compute, rows[number]))
            mine = tf.equal(row, rows[number])
            found = [_where(mine, *each) for each in zip(new, old, strict=True)]
            for each, before in zip(found, old, strict=True):
                each.set_shape(before.shape)
            return number + 1, *found

        _, *found = tf.while_loop(
            lambda number, *_: number < tf.size(rows),
            chosen,
            [tf.constant(0), *keras.tree.flatten(outputs)],
        )
        return keras.tree.pack_sequence_as(outputs, found)

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
        widths = [[0, 0]] * (outputs.shape.rank - 1) + [[0, lacks]]
        return tf.pad(outputs, widths, constant_values=self._least(outputs))

    def _stack(self, present: Sequence[OwnLayer], where: str) -> None:
        """Create the variables, and the part that computes with a row of them."""
        units = self.widest if self.widths else None
        self.part = OwnLayer(units=units, name="served")
        self.part.create(self.host)
        self.rows = growing(rows_of(self.own, present), f"{where}/adapters_rows")
        for name, variable in self.part.named_weights.items():
            values = [_keras.value(part.named_weights[name]) for part in present]
            if self.widths:
                values = [filled(each, self.widest, -1) for each in values]
            dtype = keras.backend.standardize_dtype(variable.dtype)
            values = np.stack(values).astype(dtype)
            self.stacks[name] = growing(values, f"{where}/adapters_{name}")
        if self.last:
            sizes = [part.units or self.host.units for part in present]
            sizes = np.array(sizes, "int64")
            self.sizes = growing(sizes, f"{where}/adapters_sizes")

    def _computed(self, compute: Callable, row: tf.Tensor) -> object:
        """Return the outputs with the weights of one row."""
        values = [
            (self.part.named_weights[name], tf.gather(stack, row))
            for name, stack in self.stacks.items()
        ]
        settings = []
        if self.last:
            there = tf.range(self.widest, dtype="int64") < tf.gather(self.sizes, row)
            activation = self.host.activation

            def masked(logits: tf.Tensor) -> tf.Tensor:
                logits = tf.where(there, logits, logits.dtype.min)
                outputs = logits if activation is None else activation(logits)
                return tf.where(there, outputs, self._least(outputs))

            settings = [(self.host, {"activation": masked})]
        with (
            keras.StatelessScope(state_mapping=values),
            _keras.exchanged(self, (), settings),
        ):
            return self.part.computed(self.host, compute)

    def _least(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the value of a class that a head does not have."""
        least = 0.0 if self.not_negative else outputs.dtype.min
        return tf.cast(least, outputs.dtype)


def labels_by_adapter(
    labels: Mapping[str, Sequence[str]], names: Sequence[str], heads: Sequence[OwnHeads]
) -> tuple[Callable, tf.Variable]:
    """Return a function that adds `label` and `label_id` to outputs, by adapter.

    The function takes the outputs by name and the number of the adapter of each
    example, 0 for no adapter. The variable has a row of names for each adapter.

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

    width = max(map(len, labels.values()))
    rows = [[*labels.get(x, ()), *[""] * width][:width] for x in ("", *names)]
    table = growing(np.array(rows, object), "adapters_labels")

    def finish(outputs: dict[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
        shapes = {name: tuple(each.shape) for name, each in outputs.items()}
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
        best = tf.argmax(scores, axis=-1)
        places = tf.stack([tf.cast(index, best.dtype), best], axis=-1)
        return {**outputs, "label": tf.gather_nd(table, places), "label_id": best}

    return finish, table


def _where(rows: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(rows, [-1, *[1] * (new.shape.rank - 1)]), new, old)
