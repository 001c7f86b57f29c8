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

# The attribute of a model with its last pass.
KEPT = "_keras_transfer_pass"


class Pass(NamedTuple):
    """Result of one pass over a model, by the ids of layers.

    Args:
        ran: The layers that were called, in inference or in training.
        readers: For each layer with a weight that was read outside of its own call,
            the layer that read the weight in inference.
        trains: Whether the pass was also in training.
    """

    ran: frozenset[int]
    readers: dict[int, keras.Layer]
    trains: bool


def symbolic_pass(
    model: keras.Layer, watched: Iterable[keras.Layer], ignored: type
) -> Pass | None:
    """Return the result of a pass over `model` that records who reads which weights.

    Nothing is computed, and no weight, seed or metric changes. Return None if the
    inputs are unknown or the model cannot run on symbolic tensors. The model keeps the
    result until its layers change, without those of the class `ignored`, which do not
    change what runs. Layers of `watched` that do not run in inference may in training.
    """
    layers = [each for each in flat_layers(model) if not isinstance(each, ignored)]
    form = [_form(each) for each in layers]
    before, kept = vars(model).get(KEPT, (None, None))
    if before != form:
        kept = None
    if kept is None or not kept.trains and any(id(x) not in kept.ran for x in watched):
        kept = _passed(model, layers, list(watched))
        model.__dict__[KEPT] = form, kept  # Keras does not track this
    return kept


def _form(layer: keras.Layer) -> tuple:
    """Return what decides how a layer computes, as far as it can be compared."""
    plain = bool, int, float, str, type(None)
    settings = {k: v for k, v in vars(layer).items() if isinstance(v, plain)}
    for name in ("_trainable", "_parent_path"):  # change when an adapter is attached
        settings.pop(name, None)
    return id(layer), [id(each) for each in own_weights(layer)], settings


def _passed(
    model: keras.Layer, layers: list[keras.Layer], watched: list[keras.Layer]
) -> Pass | None:
    running: list[keras.Layer] = []
    ran, readers = set(), {}
    owners: dict[int, list[int]] = {}
    for layer in layers:
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
        trains = any(id(layer) not in ran for layer in watched)
        if trains:
            with contextlib.suppress(Exception):
                backend.compute_output_spec(train, *inputs)
    return Pass(frozenset(ran), readers, trains)


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
