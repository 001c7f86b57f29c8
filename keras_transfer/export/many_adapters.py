"""Several adapters in one graph: each example of a batch names its adapter."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.own_layer import OwnLayer
from keras_transfer.backbones.layer_paths import located
from keras_transfer.export.described import manifest_of
from keras_transfer.export.described import variables_of
from keras_transfer.export.graph import forward
from keras_transfer.export.known_names import INPUT
from keras_transfer.export.known_names import KnownNames
from keras_transfer.export.manifest import Manifest
from keras_transfer.export.own_heads import labels_by_adapter
from keras_transfer.export.own_heads import OwnHeads
from keras_transfer.export.request import Entry
from keras_transfer.export.request import named
from keras_transfer.export.served_adapters import BASE
from keras_transfer.export.served_adapters import checked_names
from keras_transfer.export.served_adapters import ServedAdapters
from keras_transfer.export.stacked_pairs import StackedPairs
from keras_transfer.saving.own_layers import is_last

KNOWN = "adapter_known"  # name of the additional output with `unknown="base"`
HOOKS = ("on_inputs", "on_outputs", "on_result")
PROBE = 2  # rows of the batch that checks the shapes


class ManyAdapters:
    """Several low-rank adapters of one model, of which each example chooses one.

    Each signature gets one more input, `adapter`, a string for each example: the name
    of an adapter, or `""` for the model without an adapter. A batch can mix adapters.
    If adapters have their own layers, such as heads, the graph contains the layers of
    all adapters, and each example uses the layers of its adapter. The graph contains
    every other weight once. The pairs are copies, and the model does not change.

    The names, the pairs and the own layers are variables whose first axis has no fixed
    size. So the graph also fits a checkpoint with more adapters, see `add_adapter`.

    This class replaces `Folded`. `forward` traces the model, or a model that shares
    its layers. `entry` and `requests` add the names to an entry and to requests.
    `reference` computes the outputs to compare with.

    Args:
        model: A model with adapters.
        adapters: Names of the adapters to export, or a `ServedAdapters`.

    Raises:
        TypeError: If the names are not a list of strings.
        ValueError: If a name is unknown or repeated, or if an adapter changes more than
            the low-rank pairs of a LoRA, RsLoRA or LoHa and its own layers.
    """

    def __init__(
        self, model: keras.Model, adapters: Sequence[str] | ServedAdapters
    ) -> None:
        if not isinstance(adapters, ServedAdapters):
            adapters = ServedAdapters(adapters)
        self.model = model
        self.unknown = adapters.unknown
        self.names = checked_names(model, adapters.names)
        self.known = KnownNames(self.names, self.unknown)
        self.labels: tf.Variable | None = None
        self.index: tf.Tensor | None = None  # set only while a graph is traced
        self.number = 0  # the adapter in use if `index` is None
        self.heads: list[OwnHeads] = []
        self.stacks: list[StackedPairs] = []
        self.hooks: list[tuple[Part, Mapping[str, Callable]]] = []
        for path, layer in located(model).items():
            parts = parts_of(layer)
            own = [part for part in parts if part.replaces]
            parts = [part for part in parts if not part.replaces]
            if own:
                self.hooks += zip(own, self._own_hooks(layer, own, path or layer.name))
            there = {part.name: part for part in parts}
            pairs = [there.get(name) for name in self.names]
            # The parts of adapters that are not exported do nothing.
            hooks = [dict.fromkeys(HOOKS, _unchanged) for _ in parts]
            if any(pair is not None for pair in pairs):
                stack = StackedPairs(layer, pairs, path or layer.name)
                self.stacks.append(stack)
                hooks[0]["on_outputs"] = self._hook(stack, path)
            self.hooks += zip(parts, hooks)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model compute with the stacked pairs inside the block."""
        with self._hooked(self.hooks):
            yield

    def compute(self, network: Callable, inputs: object) -> object:
        """Return the outputs of a network with the stacked pairs."""
        with self.applied():
            return network(inputs, training=False)

    def _own_applied(self) -> contextlib.AbstractContextManager:
        """Inside the block, let the adapters' own layers use adapter `self.number`."""
        return self._hooked([each for each in self.hooks if each[0].replaces])

    @contextlib.contextmanager
    def _hooked(self, hooks: Sequence[tuple[Part, Mapping]]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for part, functions in hooks:
                # `__dict__` overrides the methods and bypasses Keras's tracking.
                part.__dict__.update(functions)
                for name in functions:
                    stack.callback(part.__dict__.pop, name)
            yield

    def entry(self, entry: Entry) -> Entry:
        """Return the entry with the names of the adapters as one more input.

        Raises:
            ValueError: If the model has an input with the same name.
        """
        if INPUT in entry.specs:
            raise ValueError(
                f"The model has an input {INPUT!r}, but with adapters= this input "
                "contains the names of the adapters. Rename the model's input."
            )

        def prepare(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            names, rest = _split(tensors)
            return {**named(entry.prepare(rest), "inputs"), INPUT: names}

        def complete(
            request: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]
        ) -> dict[str, tf.Tensor]:
            names, rest = _split(request)
            outputs = entry.complete(rest, outputs)
            if self.unknown == "error":
                return outputs
            if KNOWN in outputs:
                raise ValueError(
                    f"The model has an output {KNOWN!r}, but with unknown='base' this "
                    "output says which names are known. Rename the model's output."
                )
            return {**outputs, KNOWN: self.known.has(names)}

        spec = tf.TensorSpec((None,), tf.string, name=INPUT)
        specs = {**entry.specs, INPUT: spec}
        return dataclasses.replace(
            entry, specs=specs, prepare=prepare, complete=complete
        )

    def forward(self, network: keras.Model, plain: Entry, single: str) -> Callable:
        """Return a TensorFlow function as `graph.forward` does, with adapter names.

        Args:
            network: The model, or a model that shares its layers.
            plain: The entry of the network's own inputs, without the adapter names.
            single: Name of an output that has no name.

        Raises:
            ValueError: If the first axis of an adapted layer's inputs is not the batch.
        """
        call = self._network(network, plain)
        self._probe(call, plain)
        return forward(call, self.entry(plain), single, self)

    def reference(self, network: keras.Model, plain: Entry) -> Callable:
        """Return a function that runs each adapter separately, for the comparison."""

        def call(inputs: dict[str, tf.Tensor], training: bool = False) -> object:
            names, rest = _split(inputs)
            names = np.array([each.decode() for each in names.numpy()])
            order, found = [], []
            for name in dict.fromkeys(names):
                (rows,) = np.nonzero(names == name)
                some = {k: tf.gather(each, rows) for k, each in rest.items()}
                gates = [
                    (part.gate, tf.constant(float(part.name == name)))
                    for _, part in all_parts(self.model)
                ]
                self.number = [BASE, *self.names].index(str(name))
                with keras.StatelessScope(state_mapping=gates), self._own_applied():
                    found.append(network(plain.prepare(some), training=training))
                order.append(rows)
            self.number = 0
            back = np.argsort(np.concatenate(order))
            return keras.tree.map_structure(
                lambda *each: tf.gather(tf.concat(each, axis=0), back), *found
            )

        return call

    def takes(self, labels: object) -> bool:
        """Return whether labels are by adapter, or None with different heads."""
        if isinstance(labels, Mapping):
            return bool(set(labels) & {BASE, *self.names})
        return labels is None and bool(self.heads)

    def labeled(self, compute: Callable, labels: Mapping | None) -> Callable:
        """Return `compute` with labels from the class names of each adapter.

        Raises:
            ValueError: If the labels do not fit the adapters.
        """
        if labels is None:
            return compute
        finish, self.labels = labels_by_adapter(labels, self.names, self.heads)

        def call(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            names = inputs[INPUT]
            return finish(compute(inputs), self.known.index(names, names))

        return call

    def variables(self) -> dict[str, tf.Variable]:
        """Return the variables that change with the adapters, by name."""
        return variables_of(self.known.variable, self.labels, self.stacks, self.heads)

    def manifest(self) -> Manifest:
        """Return the description of these variables for `add_adapter`."""
        return manifest_of(self.model, self.stacks, self.heads)

    def requests(self, requests: Mapping[str, Mapping]) -> dict[str, dict]:
        """Return requests that repeat each example for no and for each adapter."""
        names = [BASE, *self.names]
        found = {}
        for signature, arrays in requests.items():
            rows = len(next(iter(arrays.values())))
            repeated = {
                k: np.concatenate([each] * len(names)) for k, each in arrays.items()
            }
            order = np.repeat(np.array([x.encode() for x in names], object), rows)
            found[signature] = {**repeated, INPUT: order}
        return found

    def _network(self, network: keras.Model, plain: Entry) -> Callable:
        def call(inputs: dict[str, tf.Tensor], training: bool = False) -> object:
            names, rest = _split(inputs)
            self.index = self.known.index(names, next(iter(rest.values())))
            try:
                return network(plain.prepare(rest), training=training)
            finally:
                self.index = None

        return call

    def _probe(self, call: Callable, plain: Entry) -> None:
        """Trace once with `PROBE` rows, so the hooks can check the first axes."""

        def probe(tensors: dict[str, tf.Tensor]) -> None:
            with self.applied():
                call(tensors)

        specs = {
            name: tf.TensorSpec((PROBE, *spec.shape[1:]), spec.dtype)
            for name, spec in self.entry(plain).specs.items()
        }
        tf.function(probe, autograph=False).get_concrete_function(specs)

    def _hook(self, stack: StackedPairs, path: str) -> Callable:
        def on_outputs(
            host: keras.Layer, inputs: object, outputs: object, **kwargs: object
        ) -> object:
            self._check_rows(inputs, path)
            return stack(inputs, outputs, self.index, bool(kwargs.get("reverse")))

        return on_outputs

    def _own_hooks(
        self, host: keras.Layer, own: Sequence[OwnLayer], path: str
    ) -> list[dict[str, Callable]]:
        """Return the hooks of the parts that replace `host`; only the last acts."""
        there = {part.name: part for part in own}
        last = isinstance(host, keras.layers.Dense) and is_last(self.model, host)
        each = [there.get(name) for name in self.names]
        heads = OwnHeads(host, each, path, last=last)
        self.heads.append(heads)

        def instead(
            host: keras.Layer, otherwise: Callable, compute: Callable, **kwargs: object
        ) -> object:
            if self.index is None:
                return heads.only(otherwise, compute, self.number)
            outputs = heads.each_its_own(otherwise, compute, self.index)
            self._check_rows(keras.tree.flatten(outputs)[0], path)
            return outputs

        def passed_by(
            host: keras.Layer, otherwise: Callable, compute: Callable, **kwargs: object
        ) -> object:
            return otherwise()

        return [{"instead": passed_by}] * (len(own) - 1) + [{"instead": instead}]

    def _check_rows(self, tensor: tf.Tensor, path: str) -> None:
        rows = tensor.shape[0]
        if self.index.shape[0] == PROBE and rows not in (PROBE, None):
            raise ValueError(
                f"The first axis of the tensors of {path!r} is not the batch: it has "
                f"{rows} rows for {PROBE} examples. So the adapter of a row is "
                "unknown. Leave this layer out of the targets."
            )


def _split(tensors: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, dict]:
    return tensors[INPUT], {k: v for k, v in tensors.items() if k != INPUT}


def _unchanged(host: keras.Layer, *tensors: object, **kwargs: object) -> object:
    """Return the last tensor unchanged: a hook that does nothing."""
    return tensors[-1]
