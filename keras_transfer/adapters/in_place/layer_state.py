"""LayerState: the state of one layer, so a change can be undone."""

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
# The attribute of a model in which `kt.regularizers` keeps what is attached.
PENALTIES = "_keras_transfer_penalties"


@dataclasses.dataclass(frozen=True, eq=False)
class LayerState:
    """A layer's class, trainable flags, parts and recipes, without weight values.

    Args:
        layer: Weak reference to the layer.
        kind: Class of the layer.
        learnable: The layer's own weights that follow its trainable flag, in order.
        trainable: The layer's trainable flag.
        flags: The layer's own weights, each with its trainable flag.
        parts: The layer's parts, each with its gate. Defaults to `()`.
        recipes: Dict from adapter name to the recipe that is stored for the layer.
            Defaults to an empty dict.
        first: The layer's state before adapters froze it. Defaults to None, for a
            layer that is not frozen.
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
        """Return the current state of `layer`."""
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
        """Restore the layer, but not its sublayers."""
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


# Kept outside of the layers, because Keras's own layers get no extra attributes.
_first: weakref.WeakKeyDictionary[keras.Layer, LayerState] = weakref.WeakKeyDictionary()


def first_state(layer: keras.Layer) -> LayerState | None:
    """Return the state of `layer` before adapters froze it, or None if not frozen."""
    return _first.get(layer)


def set_first_state(layer: keras.Layer, state: LayerState | None) -> None:
    """Set the result of `first_state`."""
    if state is None:
        _first.pop(layer, None)
    else:
        _first[layer] = state


@contextlib.contextmanager
def all_or_nothing(
    model: keras.Layer, changed: Iterable[keras.Variable] = ()
) -> Iterator[None]:
    """Restore the layers of `model` if the block raises an error.

    This also restores the values of `changed`, weights of the model. Optimizers and
    traced functions are not restored, so change them last in the block.
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
    """Return the recipes that are stored for `layer` itself."""
    return layer.__dict__.get("_recipes", {})


def note_recipe(layer: keras.Layer, name: str, recipe: object) -> None:
    """Store for `layer` itself that the adapter `name` is in or below this layer."""
    layer.__dict__.setdefault("_recipes", {})[name] = recipe


def forget_recipes(layer: keras.Layer) -> None:
    """Store for `layer` itself that no adapter is in or below this layer."""
    layer.__dict__.pop("_recipes", None)


def recipes_of(model: keras.Layer) -> dict[str, object]:
    """Return a dict from adapter name to recipe, for `model` and all layers in it."""
    recipes: dict[str, object] = {}
    for layer in _keras.flat_layers(model):
        for name, recipe in own_recipes(layer).items():
            recipes.setdefault(name, recipe)
    # An outer model still has the recipes of adapters removed from an inner model.
    with_parts = {part.name for _, part in all_parts(model)}
    return {k: v for k, v in recipes.items() if k in with_parts or not v.parts}


def check_name(model: keras.Layer, name: str) -> None:
    """Check that a new adapter of `model` can have this name.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If the name is taken or contains characters that are not allowed.
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"{model!r} is not a Keras model or layer, so it can have no adapter. Pass "
            "a Keras model."
        )
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(
            f"The name {name!r} cannot name an adapter. Use letters, digits, '_' and "
            "'-', and start with a letter or a digit."
        )
    taken = recipes_of(model)
    if name in taken:
        raise ValueError(
            f"The model {model.name!r} already has an adapter {name!r}: "
            f"{taken[name]!r}. Give another name, or call kt.adapters.remove(model, "
            f"{name!r}) first."
        )


def base_of(layer: keras.Layer) -> type:
    """Return the class that `layer` had before it was upgraded."""
    return getattr(type(layer), "base_class", type(layer))


def set_class(layer: keras.Layer, kind: type) -> None:
    """Change only the class of a layer."""
    object.__setattr__(layer, "__class__", kind)


def check_no_penalties(model: keras.Layer) -> None:
    """Check that no penalty of `kt.regularizers` is attached in `model`.

    Raises:
        ValueError: If a penalty is attached.
    """
    for layer in _keras.flat_layers(model):
        if PENALTIES in vars(layer):
            names = sorted(vars(layer)[PENALTIES].by_name)
            raise ValueError(
                f"{layer.name!r} has the penalties {names}, which are bound to the "
                "weights that it has now, so its adapters cannot change. Attach "
                "adapters before penalties, or call kt.regularizers.detach(model) "
                "first."
            )
