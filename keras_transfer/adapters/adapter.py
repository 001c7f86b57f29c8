"""Adapter: the base of all recipes of parameter-efficient fine-tuning.

To add a technique write one file with

1. one or more subclasses of `Part` (adapter_part.py): what is added to one layer, with
   hooks on the layer's inputs, its sum before the activation, and its result, and how
   it folds;
2. a recipe, a subclass of `Adapter`, whose `parts` maps Keras layer classes to the part
   for them, whose `part(target)` makes one part, and whose get_config is JSON-plain.

Both are registered with Keras. All else is here and in in_place/ and is the same for
each technique: finding the layers, attaching all or nothing, freezing, names,
switching, reload, merge. A technique without parts overrides `trained` alone and names
the weights of the model's own that are to learn.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place import adapted_layer
from keras_transfer.adapters.in_place.compiled_model import activate
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.compiled_model import stale_optimizers
from keras_transfer.adapters.in_place.rollback import all_or_nothing
from keras_transfer.adapters.targets import find
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.training_flags import train_only

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Adapter:
    """Base of the recipes: what is added to a model, where, and with which numbers.

    Args:
        targets: None for the default of the model's family, `"all-linear"`, a regular
            expression that is searched in the paths of the layers, or a list of
            expressions and layers.
    """

    # Keras layer class -> the Part for it. Subclasses of the former count too, as long
    # as they inherit its `call`.
    parts: Mapping[type, type[Part]] = {}

    def __init__(self, targets: object = None) -> None:
        self.targets = targets

    def part(self, target: Target) -> Part:
        """Return the part for one layer, without weights yet.

        Raises:
            ValueError: If the recipe's numbers do not fit the layer.
        """
        raise NotImplementedError

    def part_class(self, layer: keras.Layer) -> type[Part]:
        """Return the class of part for `layer`, by the nearest class it is of."""
        for base in type(layer).__mro__:
            if base in self.parts:
                return self.parts[base]
        raise ValueError(
            f"{type(self).__name__} knows no part for the {type(layer).__name__} "
            f"{layer.name!r}."
        )

    def trained(
        self, model: keras.Layer, targets: list[Target]
    ) -> list[keras.Variable]:
        """Return the model's own weights that learn too; none by default.

        They are changed themselves, so an adapter with any of them cannot be switched
        off, and no other can stand beside it.
        """
        return []

    def link(self, parts: list[Part]) -> None:
        """Connect the parts of one adapter, after attaching and after each reload."""

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers that the recipe goes to."""
        return find(model, self.targets, self.parts) if self.parts else []

    def attach(self, model: keras.Model, name: str = "default") -> keras.Model:
        """Add this adapter to `model` in place, freeze the rest, and say so in a line.

        What was trainable in the head (the group `"head"` of `kt.layer_groups`) stays
        so; all else of the model is frozen, and neither `model.trainable = True` nor
        a phase of gradual unfreezing thaws it. The new adapter is the one in use.
        Attach before or after `compile`, but inside `strategy.scope()` where the
        model is to be distributed, and to the outermost model: one that holds it and
        has run before needs `kt.adapters.refresh(outer)`.

        Args:
            model: A built model or composite layer.
            name: Name of the adapter: letters, digits, `_` and `-`. Default
                `"default"`.

        Returns:
            The model.

        Raises:
            TypeError: If `model` is no Keras layer.
            ValueError: If the model is not built, the name is taken, no layer
                matches, a number does not fit a layer, the model's strategy is not
                entered, or its optimizer has made updates. Nothing is changed then.
        """
        _check_model(model, name)
        taken = adapted_layer.recipes_of(model)
        targets = self.find(model)
        trained = self.trained(model, targets)
        self._check_alone(model, trained, taken)
        replacements = stale_optimizers(model, new_weights=True)
        hosts = targets if self.parts else []
        pairs = [(target.layer, self.part(target)) for target in hosts]
        for layer, part in pairs:
            part.name = name
            part.create(layer)
        self.link([part for _, part in pairs])
        with all_or_nothing(model):
            owners = _owners(model, trained)
            adapted_layer.install(model, name, self.resolved(targets), pairs, owners)
            adapted_layer.upgrade(model)
            _freeze(model, trained)
            activate(model, {name: 1.0})
            retrace(model, replacements)
        _tell(self, model, name, len(pairs) or len(owners))
        return model

    def resolved(self, targets: list[Target]) -> Adapter:
        """Return a copy with paths in place of layer objects, so that it is JSON."""
        recipe = copy.copy(self)
        if not _is_plain(self.targets):
            recipe.targets = [f"^{re.escape(each.path)}$" for each in targets]
        return recipe

    def get_config(self) -> dict:
        """Return the arguments. A recipe with layer objects has to be attached first.

        Raises:
            ValueError: If `targets` holds layers, which have no path before attaching.
        """
        if not _is_plain(self.targets):
            raise ValueError(
                f"The targets of this {type(self).__name__} are layers, which JSON "
                "cannot hold. Attach it; kt.adapters.attached(model) gives the recipe "
                "with their paths."
            )
        plain = isinstance(self.targets, str) or self.targets is None
        return {"targets": self.targets if plain else list(self.targets)}

    @classmethod
    def from_config(cls, config: dict) -> Adapter:
        """Return the recipe of `get_config`."""
        return cls(**config)

    def __repr__(self) -> str:
        given = [
            f"{key}={value!r}" for key, value in vars(self).items() if key[0] != "_"
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def _check_alone(self, model: keras.Layer, trained: list, taken: dict) -> None:
        for other, recipe in taken.items():
            if trained or recipe.trained(model, recipe.find(model)):
                raise ValueError(
                    f"{type(self).__name__} and the attached {other!r} cannot stand in "
                    "one model: one of them trains weights of the model's own, which "
                    "cannot be switched. Use kt.adapters.merge or detach first."
                )


def _is_plain(targets: object) -> bool:
    several = isinstance(targets, list | tuple | set | frozenset)
    return not any(
        isinstance(each, keras.Layer) for each in (targets if several else [targets])
    )


def check_name(model: keras.Layer, name: str) -> None:
    """Check that `name` can be that of a new adapter of `model`.

    Raises:
        ValueError: If it is not well formed, or taken.
    """
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(
            f"The name {name!r} is no name for an adapter: use letters, digits, '_' "
            "and '-'."
        )
    taken = adapted_layer.recipes_of(model)
    if name in taken:
        raise ValueError(
            f"The model {model.name!r} has an adapter {name!r} already: "
            f"{taken[name]!r}. Give another name, or kt.adapters.remove(model, "
            f"{name!r}) first."
        )


def _check_model(model: object, name: str) -> None:
    if not isinstance(model, keras.Layer):
        raise TypeError(f"An adapter goes to a Keras model, not to {model!r}.")
    check_name(model, name)
    if not model.built or not model.weights:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to adapt. "
            "Call it once on a batch, or give a Sequential a `keras.Input`."
        )
    known = adapted_layer.recipes_of(model)
    for host, part in all_parts(model):
        if part.name not in known:
            raise ValueError(
                f"The model {model.name!r} has layers with a pair of their own, such "
                f"as the {type(host).__name__} {host.name!r}. Adapters are attached to "
                "models without."
            )
    for layer in _keras.flat_layers(model):
        if isinstance(layer, FrozenBackbone):
            raise ValueError(
                f"{layer.name!r} is a FrozenBackbone: no gradient reaches what is in "
                "it, so an adapter there cannot learn. Build the model on "
                "`frozen.layer` itself; attaching freezes it."
            )
    if not _keras.in_strategy_of(model):
        raise ValueError(
            f"The model {model.name!r} and the adapter would be under different "
            "tf.distribute strategies, and could not be trained. Attach inside the "
            "`with strategy.scope():` that the model was made in."
        )


def _owners(model: keras.Layer, variables: list[keras.Variable]) -> list[keras.Layer]:
    chosen = {id(each) for each in variables}
    return [
        layer
        for layer in _keras.flat_layers(model)
        if any(id(each) in chosen for each in _keras.own_weights(layer))
    ]


def _freeze(model: keras.Layer, trained: list[keras.Variable]) -> None:
    """Hold all but the parts and the head. A part in the head freezes its layer."""
    spared = {
        id(layer)
        for layer in head_layers(model)
        if not any(isinstance(each, Part) for each in _keras.sublayers(layer))
    }
    head = [v for x in _keras.flat_layers(model) if id(x) in spared for v in x.weights]
    learning = [v for v in head if v.trainable]
    parts = [part for _, part in all_parts(model)]
    skipped = spared | {id(part) for part in parts}
    for layer in located(model).values():
        if id(layer) not in skipped and layer.weights:
            adapted_layer.hold(layer, trained)
    own = [v for part in parts for v in part.weights]
    train_only(model, [*learning, *own, *trained])
    for layer in _keras.flat_layers(model):
        below = _keras.flat_layers(layer)
        able = any(map(_keras.learnable, below))
        if layer.weights and not able and id(layer) not in spared:
            _keras.set_flag(layer, False)


def _tell(recipe: Adapter, model: keras.Layer, name: str, count: int) -> None:
    gates = {id(part.gate) for _, part in all_parts(model)}
    total = sum(math.prod(v.shape) for v in model.weights if id(v) not in gates)
    learning = {id(v): math.prod(v.shape) for v in model.trainable_weights}
    head = {id(v) for layer in head_layers(model) for v in layer.trainable_weights}
    inside = sum(size for key, size in learning.items() if key in head)
    trains = sum(learning.values())
    text = (
        f"{type(recipe).__name__} {name!r} on {count} layers of {model.name!r}: "
        f"{trains:,} of {total:,} parameters train ({trains / total:.2%}"
    )
    print(text + (f"; {inside:,} of them are the head's)" if inside else ")"))
