"""Keep the functions and optimizer of a compiled model consistent with its adapters."""

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

# The kinds of functions that Keras traces.
KINDS = ("train", "test", "predict")


def stale_optimizers(
    model: keras.Layer, *, new_weights: bool = False
) -> list[tuple[keras.Model, keras.Optimizer]]:
    """Return a new optimizer for each compiled model whose optimizer lacks slots.

    Args:
        model: A model. Models inside it are included.
        new_weights: Whether new weights will be added, so each optimizer lacks slots.
            Defaults to False.

    Raises:
        ValueError: If such an optimizer has made updates or is bound to layer groups.
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
                f"The {kind} of {compiled.name!r} is bound to the weights that train "
                "now, so no weights can be added. Attach first. Then call "
                "discriminative() and compile()."
            )
        if _keras.value(inner.iterations) > 0:
            raise ValueError(
                f"The {kind} of {compiled.name!r} has made updates and has no slots "
                "for the new weights. Call model.compile() with a new optimizer first, "
                "or attach before training."
            )
        optimizers.append((compiled, _fresh(compiled)))
    return optimizers


def renew_optimizers(model: keras.Layer) -> None:
    """Give each compiled model a new optimizer with the same settings, and retrace."""
    retrace(model, [(compiled, _fresh(compiled)) for compiled in _compiled(model)])


def retrace(
    model: keras.Layer,
    optimizers: list[tuple[keras.Model, keras.Optimizer]] | None = None,
) -> None:
    """Set the new `optimizers`, and drop all traced functions in `model`."""
    for compiled, optimizer in optimizers or ():
        with _keras.scope(compiled):
            _keras.replace_optimizer(compiled, optimizer)
    for layer in _keras.flat_layers(model):
        _keras.forget_traces(layer)


@contextlib.contextmanager
def stale_functions_aside(
    model: keras.Layer, hosts: Iterable[tuple[keras.Layer, Part]]
) -> Iterator[None]:
    """Within the block, remove the functions that were traced for other gates.

    A training function reads the gates of the adapters' own layers when it is traced.
    If one of these layers or another part is `asked_early`, inference functions do so
    too. After the block the earlier functions are restored.
    """
    owned = [part for _, part in hosts if part.replaces or part.asked_early]
    kept = {
        (each, kind): getattr(each, f"{kind}_function", None)
        for each in _models(model)
        for kind in KINDS
        if owned and hasattr(each, f"{kind}_function")
    }
    early = any(part.asked_early for part in owned)
    spoken = {x: x.generate_function for x in _models(model) if early and _speaks(x)}
    try:
        stale = _stale_kinds(owned)
        for (each, kind), function in kept.items():
            if kind in stale and function is not None:
                _keras.remake_functions(each, kind)
        for each in spoken:
            each.generate_function = None  # keras-hub makes it when it is None
        yield
    finally:
        # Restore None too: a function traced in the block has the block's gates.
        stale = _stale_kinds(owned)
        for (each, kind), function in kept.items():
            if kind in stale:
                setattr(each, f"{kind}_function", function)
        for each, function in spoken.items():
            each.generate_function = function


def activate(model: keras.Layer, gates: Mapping[str, float]) -> None:
    """Set the gates by adapter name, 0 for all others, and train adapters in use."""
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
        # Children before parents: a layer is trainable if a weight in or below it is.
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
    """Return a new optimizer with the same settings, but without rates by group."""
    inner = _inner(model.optimizer)
    settings = _keras.settings(inner)
    settings.pop("layout", None)
    settings.pop("allocation", None)
    kind = next((k for k in type(inner).__mro__ if k in SUBCLASSES), type(inner))
    with _keras.scope(model):
        return kind(**settings)


def _models(model: keras.Layer) -> list[keras.Model]:
    return [
        layer for layer in _keras.flat_layers(model) if isinstance(layer, keras.Model)
    ]


def _speaks(model: keras.Model) -> bool:
    """Return whether `model` is a language model with a traced function."""
    return getattr(model, "generate_function", None) is not None


def _stale_kinds(owned: Iterable[Part]) -> tuple[str, ...]:
    return KINDS if any(part.asked_early for part in owned) else ("train",)
