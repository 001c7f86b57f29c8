"""Adapters folded into the weights for a graph, while the model stays as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.in_place.forward import Hooked
from keras_transfer.adapters.in_place.layer_state import set_class
from keras_transfer.backbones.layer_paths import weights_of


class Folded:
    """What a traced graph is to see in place of layers with adapters: plain layers.

    The sums `W + scaling A B` are copies, made here; the model's own weights, its
    optimizer and its compiled functions are not touched, so that it can be exported in
    the middle of `fit`. Only what an adapter changes is copied. What cannot be folded
    (a bottleneck, a quantised layer) stays in the graph as it runs.

    Args:
        model: A model, with adapters or without.
    """

    def __init__(self, model: keras.Model) -> None:
        self.plain: list[keras.Layer] = []
        self.values: list[tuple[keras.Variable, tf.Variable]] = []
        for layer in _keras.flat_layers(model):
            if isinstance(layer, Hooked):
                folded = _fold(layer)
                if folded is not None:
                    self.plain.append(layer)
                    self.values += folded

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block, the layers compute plainly, with the sums as weights."""
        kinds = [type(layer) for layer in self.plain]
        states = [(variable, copy.value()) for variable, copy in self.values]
        with contextlib.ExitStack() as stack:
            for layer, kind in zip(self.plain, kinds, strict=True):
                stack.callback(set_class, layer, kind)
                set_class(layer, plain_of(layer))
            if states:
                stack.enter_context(keras.StatelessScope(state_mapping=states))
            yield


def _fold(layer: keras.Layer) -> list[tuple[keras.Variable, tf.Variable]] | None:
    """Return copies of the weights that change, or None if it cannot be done."""
    active = [part for part in parts_of(layer) if gate_value(part)]
    if active and layer.quantization_mode is not None:
        return None
    own = weights_of(layer)
    before: dict[str, np.ndarray] = {}
    if active:
        before = {k: _keras.value(v).astype("float32") for k, v in own.items()}
    after = dict(before)
    for part in active:
        try:
            part.fold(layer, after)
        except ValueError:  # it says that this technique has no such sum
            return None
    return [
        (own[k], tf.Variable(after[k].astype(before[k].dtype), name=own[k].path))
        for k in before
        if after[k] is not before[k]
    ]
