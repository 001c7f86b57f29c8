"""Keras's private side of a symbolic pass: which layers run, and who reads weights."""

import contextlib
import functools
import warnings
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras
from keras.src import backend
from keras.src.export.export_utils import _infer_input_signature_from_model
from keras.src.export.export_utils import get_input_signature

from keras_transfer._keras.layers import flat_layers
from keras_transfer._keras.layers import own_weights


class Pass(NamedTuple):
    """What one pass over a model at inference did, by the ids of layers.

    Args:
        ran: The layers that were called, in inference or in training.
        readers: For a layer of which a weight was read outside of its own call, the
            layer that read it.
    """

    ran: frozenset[int]
    readers: dict[int, keras.Layer]


def symbolic_pass(model: keras.Layer, watched: Iterable[keras.Layer]) -> Pass | None:
    """Return what a pass over `model` does, with an eye on the weights of `watched`.

    Nothing is computed, and no weight, seed or metric changes. None where the inputs
    are not known, or where the model does what cannot be done with symbols.
    """
    layers, running = flat_layers(model), []
    watched = list(watched)
    ran, readers = set(), {}
    owners: dict[int, list[int]] = {}
    for layer in watched:
        for variable in own_weights(layer):
            owners.setdefault(id(variable), []).append(id(layer))

    class Noting(keras.StatelessScope):
        def get_current_value(self, variable: keras.Variable) -> Any:
            for owner in owners.get(id(variable), ()):
                if all(id(layer) != owner for layer in running):
                    readers.setdefault(owner, running[-1] if running else model)
            return super().get_current_value(variable)

    def noted(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        running.append(layer)
        ran.add(id(layer))
        try:
            return call(*args, **kwargs)
        finally:
            running.pop()

    def forward(*args: Any) -> Any:
        with Noting():
            return model(*args, training=False)

    def train(*args: Any) -> Any:
        with keras.StatelessScope():
            return model(*args, training=True)

    with _calls_noted(layers, noted), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come where the model is used
        try:
            inputs = _inputs(model)
            backend.compute_output_spec(forward, *inputs)
        except Exception:  # a model may do anything with what it takes for data
            return None
        if any(id(layer) not in ran for layer in watched):
            with contextlib.suppress(Exception):
                backend.compute_output_spec(train, *inputs)
    return Pass(frozenset(ran), readers)


def was_called(layer: keras.Layer) -> bool:
    """Return whether `layer` was ever called, on data or on symbols."""
    return layer._called


@contextlib.contextmanager
def _calls_noted(layers: list[keras.Layer], function: Any) -> Iterator[None]:
    names = ("call", "quantized_call")  # Keras calls either
    called = [layer._called for layer in layers]
    for layer in layers:
        for name in names:
            own = functools.partial(function, layer, getattr(layer, name))
            layer.__dict__[name] = own
    try:
        yield
    finally:
        for layer, flag in zip(layers, called, strict=True):
            layer.__dict__["_called"] = flag
            for name in names:
                del layer.__dict__[name]


def _inputs(model: keras.Layer) -> list:
    """Return symbols of the inputs that `model` was made for, or built with.

    Raises:
        ValueError: If it does not tell.
    """
    if getattr(model, "inputs", None):
        specs = get_input_signature(model)
    else:
        specs = _infer_input_signature_from_model(model)
    if not specs:
        raise ValueError(f"The layer {model.name!r} does not tell its inputs.")
    return keras.tree.map_structure(
        lambda spec: keras.KerasTensor(spec.shape, spec.dtype), specs
    )
