"""Keep what a compiled model runs in step with what is attached to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import SUBCLASSES

# What Keras traces a function for.
KINDS = ("train", "test", "predict")


def stale_optimizers(
    model: keras.Layer, *, new_weights: bool = False
) -> list[tuple[keras.Model, keras.Optimizer]]:
    """Return a new optimizer for each compiled model whose own lacks slots.

    Args:
        model: A model; those in it count too.
        new_weights: Whether weights are about to be added that no optimizer has.

    Raises:
        ValueError: If one has made updates or is bound to layer groups.
    """
    optimizers = []
    for compiled in _compiled(model):
        inner = _inner(compiled.optimizer)
        known = {id(variable) for variable in _keras.trained_by(inner)}
        lacks = any(id(v) not in known for v in compiled.trainable_variables)
        if not (new_weights or lacks):
            continue
        kind = type(inner).__name__
        if isinstance(inner, Discriminative):
            raise ValueError(
                f"The {kind} of {compiled.name!r} is bound to what the model trains "
                "now. Attach first; then call discriminative() and compile()."
            )
        if _keras.value(inner.iterations) > 0:
            raise ValueError(
                f"The {kind} of {compiled.name!r} has made updates, and has no slots "
                "for the new weights. Call model.compile() with a new optimizer first, "
                "or attach before training."
            )
        optimizers.append((compiled, _fresh(compiled)))
    return optimizers


def renew_optimizers(model: keras.Layer) -> None:
    """Give each compiled model a new optimizer of the same settings, and retrace."""
    retrace(model, [(compiled, _fresh(compiled)) for compiled in _compiled(model)])


def retrace(
    model: keras.Layer,
    optimizers: list[tuple[keras.Model, keras.Optimizer]] | None = None,
) -> None:
    """Give new optimizers, and make all traced functions in `model` anew."""
    for compiled, optimizer in optimizers or ():
        with _keras.scope(compiled):
            _keras.replace_optimizer(compiled, optimizer)
    for layer in _keras.flat_layers(model):
        _keras.forget_traces(layer)


@contextlib.contextmanager
def stale_functions_aside(
    model: keras.Layer, hosts: Iterable[tuple[keras.Layer, Part]]
) -> Iterator[None]:
    """Within the block no function runs that was traced for other gates than now.

    For training each asks the gates of the layers that adapters own when it is traced,
    and where one is `asked_early` for inference too. At the end what there was is back.
    """
    owned = [part for _, part in hosts if part.replaces]
    kept = {
        (each, kind): getattr(each, f"{kind}_function", None)
        for each in _models(model)
        for kind in KINDS
        if owned and hasattr(each, f"{kind}_function")
    }
    try:
        stale = _stale_kinds(owned)
        for (each, kind), function in kept.items():
            if kind in stale and function is not None:
                _keras.remake_functions(each, kind)
        yield
    finally:
        # Also where there was none: what was first traced in the block knows its gates.
        stale = _stale_kinds(owned)
        for (each, kind), function in kept.items():
            if kind in stale:
                setattr(each, f"{kind}_function", function)


def activate(model: keras.Layer, gates: Mapping[str, float]) -> None:
    """Set the gates by the adapter's name, 0 for all others, and train those alone."""
    for _, part in all_parts(model):
        gate = gates.get(part.name, 0.0)
        part.gate.assign(gate)
        if gate:
            _keras.release(part, part.learning)
            for variable in part.learning:
                variable.trainable = True
            _keras.set_flag(part, True)
        else:
            _keras.hold(part, _keras.learnable(part))
            _keras.set_flag(part, False)
    for layer in reversed(_keras.flat_layers(model)):
        # Up to the root: a layer is frozen where nothing in or below it can learn.
        if any(weight.trainable for weight in layer.weights):
            _keras.set_flag(layer, True)


def _compiled(model: keras.Layer) -> list[keras.Model]:
    """Return the models that have a built optimizer."""
    return [
        compiled
        for compiled in _models(model)
        if getattr(compiled, "optimizer", None) is not None and compiled.optimizer.built
    ]


def _inner(optimizer: keras.Optimizer) -> keras.Optimizer:
    return _keras.inner_optimizer(optimizer)


def _fresh(model: keras.Model) -> keras.Optimizer:
    """Return a new optimizer of the same settings; rates by group are left behind."""
    inner = _inner(model.optimizer)
    settings = _keras.settings(inner)
    settings.pop("layout", None)
    kind = next((k for k in type(inner).__mro__ if k in SUBCLASSES), type(inner))
    with _keras.scope(model):
        return kind(**settings)


def _models(model: keras.Layer) -> list[keras.Model]:
    return [
        layer for layer in _keras.flat_layers(model) if isinstance(layer, keras.Model)
    ]


def _stale_kinds(owned: Iterable[Part]) -> tuple[str, ...]:
    return KINDS if any(part.asked_early for part in owned) else ("train",)
