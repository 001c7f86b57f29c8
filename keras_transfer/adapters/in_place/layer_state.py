"""LayerState: what one layer is, so that a change of it can be taken back."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import weakref
from collections.abc import Iterable
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import add
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.adapter_part import take_away

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True, eq=False)
class LayerState:
    """A layer's class, what of it learns, its parts, and its recipes; no values.

    Args:
        layer: Weak reference to the layer.
        kind: Its class.
        learnable: Its own weights that follow its trainable flag, in their order.
        trainable: That flag.
        flags: Its own weights, each with its flag.
        parts: Its parts, each with its gate.
        recipes: Dict of adapter's name to the recipe that is noted at the layer.
        first: Its state before adapters froze it. None where they have not.
    """

    layer: weakref.ref
    kind: type
    learnable: tuple[keras.Variable, ...]
    trainable: bool
    flags: tuple[tuple[keras.Variable, bool], ...]
    parts: tuple[tuple[Part, float], ...] = ()
    recipes: dict[str, object] = dataclasses.field(default_factory=dict)
    first: LayerState | None = None

    @classmethod
    def of(cls, layer: keras.Layer) -> LayerState:
        """Return the state of `layer` as it is now."""
        return cls(
            layer=weakref.ref(layer),
            kind=type(layer),
            learnable=tuple(_keras.learnable(layer)),
            trainable=layer.trainable,
            flags=tuple((v, v.trainable) for v in _keras.own_weights(layer)),
            parts=tuple((part, gate_value(part)) for part in parts_of(layer)),
            recipes=dict(own_recipes(layer)),
            first=first_state(layer),
        )

    def give_back(self) -> None:
        """Make the layer what it was, and nothing below it."""
        layer, kept = self.layer(), {id(part) for part, _ in self.parts}
        for part in parts_of(layer):
            if id(part) not in kept:
                take_away(layer, part)
        present = {id(part) for part in parts_of(layer)}
        for part, gate in self.parts:
            if id(part) not in present:
                add(layer, part)
            part.gate.assign(gate)
        set_class(layer, self.kind)
        forget_recipes(layer)
        if self.recipes:
            layer.__dict__["_recipes"] = dict(self.recipes)
        set_first_state(layer, self.first)
        _keras.release(layer, self.learnable)
        for variable, flag in self.flags:
            variable.trainable = flag
        _keras.set_flag(layer, self.trainable)


# Outside of the layers: most are stock layers that get no attribute of ours.
_first: weakref.WeakKeyDictionary[keras.Layer, LayerState] = weakref.WeakKeyDictionary()


def first_state(layer: keras.Layer) -> LayerState | None:
    """Return what `layer` was before adapters froze it, or None if it is not frozen."""
    return _first.get(layer)


def set_first_state(layer: keras.Layer, state: LayerState | None) -> None:
    """Set what `first_state` returns."""
    if state is None:
        _first.pop(layer, None)
    else:
        _first[layer] = state


@contextlib.contextmanager
def all_or_nothing(
    model: keras.Layer, changed: Iterable[keras.Variable] = ()
) -> Iterator[None]:
    """Give the layers of `model` their states back if an error ends the block.

    And the values of `changed`, weights of its own. Optimizers and traced functions
    stay as they are: whoever changes them does so last.
    """
    states = [LayerState.of(layer) for layer in _keras.flat_layers(model)]
    changed = list(changed)
    values = _keras.snapshot(changed)
    try:
        yield
    except BaseException:
        for state in states:
            state.give_back()
        _keras.restore(changed, values)
        raise


def own_recipes(layer: keras.Layer) -> dict[str, object]:
    """Return the recipes that are noted at `layer` itself."""
    return layer.__dict__.get("_recipes", {})


def note_recipe(layer: keras.Layer, name: str, recipe: object) -> None:
    """Note at `layer` itself that the adapter `name` is in or below it."""
    layer.__dict__.setdefault("_recipes", {})[name] = recipe


def forget_recipes(layer: keras.Layer) -> None:
    """Note at `layer` itself that no adapter is in or below it."""
    layer.__dict__.pop("_recipes", None)


def recipes_of(model: keras.Layer) -> dict[str, object]:
    """Return the recipes attached in or below `model` by the adapter's name."""
    recipes: dict[str, object] = {}
    for layer in _keras.flat_layers(model):
        for name, recipe in own_recipes(layer).items():
            recipes.setdefault(name, recipe)
    # An outer model still knows what was taken away from an inner one.
    with_parts = {part.name for _, part in all_parts(model)}
    return {k: v for k, v in recipes.items() if k in with_parts or not v.parts}


def check_name(model: keras.Layer, name: str) -> None:
    """Check that `name` can be that of a new adapter of `model`.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If the name is not well formed, or taken.
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(f"An adapter goes to a Keras model, not to {model!r}.")
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(
            f"The name {name!r} is no name for an adapter: use letters, digits, '_' "
            "and '-'."
        )
    taken = recipes_of(model)
    if name in taken:
        raise ValueError(
            f"The model {model.name!r} has an adapter {name!r} already: "
            f"{taken[name]!r}. Give another name, or kt.adapters.remove(model, "
            f"{name!r}) first."
        )


def base_of(layer: keras.Layer) -> type:
    """Return the class that `layer` had before it was upgraded."""
    return getattr(type(layer), "base_class", type(layer))


def set_class(layer: keras.Layer, kind: type) -> None:
    """Change the class of a layer and nothing else."""
    object.__setattr__(layer, "__class__", kind)
