"""Private APIs of Keras for a symbolic pass: which layers run and read weights."""

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
    """Result of one pass over a model, by the ids of layers.

    Args:
        ran: The layers that were called, in inference or in training.
        readers: For each layer with a weight that was read outside of its own call,
            the layer that read the weight in inference.
    """

    ran: frozenset[int]
    readers: dict[int, keras.Layer]


def symbolic_pass(model: keras.Layer, watched: Iterable[keras.Layer]) -> Pass | None:
    """Return the result of a pass over `model` that records the weights of `watched`.

    Nothing is computed, and no weight, seed or metric changes. Return None if the
    inputs are unknown or the model cannot run on symbolic tensors.
    """
    layers, running = flat_layers(model), []
    watched = list(watched)
    ran, readers = set(), {}
    owners: dict[int, list[int]] = {}
    for layer in watched:
        for variable in own_weights(layer):
            owners.setdefault(id(variable), []).append(id(layer))

    class Recorder(keras.StatelessScope):
        def get_current_value(self, variable: keras.Variable) -> Any:
            for owner in owners.get(id(variable), ()):
                if all(id(layer) != owner for layer in running):
                    readers.setdefault(owner, running[-1] if running else model)
            return super().get_current_value(variable)

    def record_call(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        running.append(layer)
        ran.add(id(layer))
        try:
            return call(*args, **kwargs)
        finally:
            running.pop()

    def forward(*args: Any) -> Any:
        with Recorder():
            return model(*args, training=False)

    def train(*args: Any) -> Any:
        with keras.StatelessScope():
            return model(*args, training=True)

    with _calls_replaced(layers, record_call), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they appear when the model is used
        try:
            inputs = _inputs(model)
            backend.compute_output_spec(forward, *inputs)
        except Exception:  # a model can raise any error on symbolic tensors
            return None
        if any(id(layer) not in ran for layer in watched):
            with contextlib.suppress(Exception):
                backend.compute_output_spec(train, *inputs)
    return Pass(frozenset(ran), readers)


def was_called(layer: keras.Layer) -> bool:
    """Return whether `layer` was ever called, on data or on symbolic tensors."""
    return layer._called


@contextlib.contextmanager
def _calls_replaced(layers: list[keras.Layer], function: Any) -> Iterator[None]:
    names = ("call", "quantized_call")  # Keras calls one of the two
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
    """Return symbolic inputs for `model`, from its definition or its build.

    Raises:
        ValueError: If the inputs are unknown.
    """
    if getattr(model, "inputs", None):
        specs = get_input_signature(model)
    else:
        specs = _infer_input_signature_from_model(model)
    if not specs:
        raise ValueError(f"The inputs of the layer {model.name!r} are unknown.")
    return keras.tree.map_structure(
        lambda spec: keras.KerasTensor(spec.shape, spec.dtype), specs
    )
