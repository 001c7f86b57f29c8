"""Adapter: the base of all recipes of parameter-efficient fine-tuning.

To add a technique write one file with

1. one or more subclasses of `Part` (adapter_part.py): what is added to one layer;
2. a recipe, a subclass of `Adapter`, whose `parts` maps Keras layer classes to the part
   for them, whose `part(target)` makes one part, and whose get_config is JSON-plain.

Both are registered with Keras. All else is the same for each technique: attaching all
or nothing, freezing, switching, reload, merge, files. A technique without parts names
in `trained` the weights of the model's own that are to learn.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer.adapters import unserved
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.check_model import check_model
from keras_transfer.adapters.default_targets import about_unfit
from keras_transfer.adapters.default_targets import depthwise_left_out
from keras_transfer.adapters.in_place import adapted_layer
from keras_transfer.adapters.in_place.compiled_model import activate
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.compiled_model import stale_optimizers
from keras_transfer.adapters.in_place.frozen_weights import freeze_all_but
from keras_transfer.adapters.in_place.frozen_weights import train_parts_and
from keras_transfer.adapters.in_place.layer_state import all_or_nothing
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.targets import find
from keras_transfer.adapters.targets import fitting
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import NAMELESS
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import owners


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
    # How it lies in the files of Hugging Face PEFT; None where it has none.
    peft: PeftFormat | None = None

    def __init__(self, targets: object = None) -> None:
        self.targets = targets

    def part(self, target: Target) -> Part:
        """Return the part for one layer, without weights yet.

        Raises:
            ValueError: If the recipe's numbers do not fit the layer.
        """
        raise NotImplementedError

    @classmethod
    def part_class(cls, layer: keras.Layer) -> type[Part]:
        """Return the class of part for `layer`, by the nearest class it is of."""
        for base in type(layer).__mro__:
            if base in cls.parts:
                return cls.parts[base]
        raise ValueError(
            f"{cls.__name__} knows no part for the {type(layer).__name__} "
            f"{layer.name!r}."
        )

    def trained(
        self, model: keras.Layer, targets: list[Target]
    ) -> list[keras.Variable]:
        """Return the model's own weights that learn too; none by default.

        They are changed themselves, so an adapter with any of them cannot be switched
        off, and no other can be next to it.
        """
        return []

    def link(self, parts: list[Part]) -> None:
        """Connect the parts of one adapter, after attaching and after each reload."""

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers that the recipe goes to."""
        kind = type(self).__name__
        return find(model, self.targets, self.parts, kind) if self.parts else []

    def fitting(self, model: keras.Layer) -> tuple[list[Target], int]:
        """Return the layers that it fits, and how many unnamed ones it does not."""
        targets = self.find(model)
        if not self.parts or self.targets not in NAMELESS:
            return targets, 0
        targets, unfit = fitting(targets, self.part)
        depthwise = depthwise_left_out(model, targets) if self.targets is None else 0
        return targets, unfit + depthwise

    def attach(self, model: keras.Model, name: str = "default") -> keras.Model:
        """Add this adapter to `model` in place, freeze the rest, and say so in a line.

        What was trainable in the head (the group `"head"` of `kt.layer_groups`) stays
        so; all else of the model is frozen, and neither `model.trainable = True` nor
        a phase of gradual unfreezing thaws it. The new adapter is the one in use.
        Attach before or after `compile`, but inside `strategy.scope()` where the
        model is to be distributed, and to the outermost model: one that holds it, or
        shares layers with it, and has run before needs `kt.adapters.refresh(other)`.
        A `tf.function` of your own that was traced before knows no adapter: make it
        anew. One that was traced after stays right, also once the adapter is merged
        or taken away.

        Args:
            model: A built model or composite layer.
            name: Name of the adapter: letters, digits, `_` and `-`. Default
                `"default"`.

        Returns:
            The model.

        Raises:
            TypeError: If `model` is not a Keras layer.
            ValueError: If the model is not built, the name is taken, no layer
                matches, one that `targets` names is never called or has a weight
                that another reads (by default such are left out), a number does not
                fit a layer, the model's strategy is not entered, or its optimizer
                has made updates. Nothing is changed then.
        """
        check_name(model, name)
        plan = self.plan(model)
        plan.install(model, name)
        print(plan.summary(model, name))
        return model

    def plan(self, model: keras.Layer, targets: list[Target] | None = None) -> Plan:
        """Return what `attach` would add to `model`, which is not changed.

        Args:
            model: As in `attach`.
            targets: The layers that it goes to. Default None, for what `find` returns.

        Raises:
            ValueError: If it cannot have this adapter, as in `attach`.
        """
        recipes = recipes_of(model)
        check_model(model, recipes)
        left_out, unfit = [], 0
        if targets is None:
            targets, unfit = self.fitting(model)
            targets, left_out = unserved.split(model, targets, self)
        trained = self.trained(model, targets)
        self._check_alone(model, trained, recipes)
        hosts = targets if self.parts else []
        pairs = [(target, self.part(target)) for target in hosts]
        head = tuple(head_layers(model))
        recipe = self.resolved(targets)
        pairs, left_out = tuple(pairs), tuple(left_out)
        return Plan(recipe, pairs, tuple(trained), head, left_out, unfit)

    def resolved(self, targets: list[Target]) -> Adapter:
        """Return a copy with paths in place of layer objects, so that it is JSON."""
        recipe = copy.copy(self)
        if not _is_plain(self.targets):
            recipe.targets = [f"^{re.escape(target.path)}$" for target in targets]
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
        single = isinstance(self.targets, str | None)
        return {"targets": self.targets if single else list(self.targets)}

    @classmethod
    def from_config(cls, config: dict) -> Adapter:
        """Return the recipe of `get_config`."""
        return cls(**config)

    def __repr__(self) -> str:
        given = [f"{k}={value!r}" for k, value in vars(self).items() if k[0] != "_"]
        return f"{type(self).__name__}({', '.join(given)})"

    def _check_alone(self, model: keras.Layer, trained: list, recipes: dict) -> None:
        for other, recipe in recipes.items():
            if trained or recipe.trained(model, recipe.fitting(model)[0]):
                raise ValueError(
                    f"{type(self).__name__} and the attached {other!r} cannot stand in "
                    "one model: one of them trains weights of the model's own, which "
                    "cannot be switched. Use kt.adapters.merge or detach first."
                )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an adapter adds to a model, before anything of the model is changed.

    It is for one `install`, which makes the weights of its parts: plan again for more.

    Args:
        recipe: The recipe that stays with the model; paths stand in it for layers.
        pairs: The layers that get a part, each with its part, still without weights.
        trained: The model's own weights that learn too.
        head: The layers above the backbone, which stay as they are.
        left_out: The targets of the recipe where no part would count.
        unfit: How many others get none: `Adapter.fitting`.
    """

    recipe: Adapter
    pairs: tuple[tuple[Target, Part], ...]
    trained: tuple[keras.Variable, ...]
    head: tuple[keras.Layer, ...]
    left_out: tuple[Target, ...] = ()
    unfit: int = 0

    def install(
        self,
        model: keras.Layer,
        name: str,
        values: Mapping[str, Mapping[str, np.ndarray]] | None = None,
        own: Sequence[tuple[keras.Variable, np.ndarray]] = (),
    ) -> None:
        """Make the weights, put them into `model`, and freeze the rest.

        Args:
            model: The model of the plan.
            name: Name of the adapter, which `check_name` has let pass.
            values: Dict of path of a target to values of its part's weights by name.
                Weights that are not in it, by default all, are as the technique starts.
            own: Pairs of a weight of the model's own and its new value.

        Raises:
            ValueError: If the model's optimizer has made updates, or `values` has a
                path or a weight that is not in the plan. Nothing is changed then.
        """
        values = values or {}
        self._check_values(values)
        replacements = stale_optimizers(model, new_weights=True)
        pairs = [(target.layer, part) for target, part in self.pairs]
        for target, part in self.pairs:
            part.name = name
            part.create(target.layer)
            for key, value in values.get(target.path, {}).items():
                part.named_weights[key].assign(value)
        self.recipe.link([part for _, part in pairs])
        with all_or_nothing(model, [variable for variable, _ in own]):
            for variable, value in own:
                variable.assign(value)
            spared, learning = self._spared(model)
            for layer in freeze_all_but(model, spared, self.trained):
                adapted_layer.upgrade(layer)
            trained_layers = owners(model, self.trained)
            adapted_layer.install(model, name, self.recipe, pairs, trained_layers)
            adapted_layer.upgrade(model)
            train_parts_and(model, spared, [*learning, *self.trained])
            activate(model, {name: 1.0})
            retrace(model, replacements)

    def summary(self, model: keras.Layer, name: str) -> str:
        """Return the line about the installed adapter."""
        gates = {id(part.gate) for _, part in all_parts(model)}
        total = sum(math.prod(v.shape) for v in model.weights if id(v) not in gates)
        learning = {id(v): math.prod(v.shape) for v in model.trainable_weights}
        head = {id(v) for layer in self.head for v in layer.trainable_weights}
        inside = sum(size for key, size in learning.items() if key in head)
        trains, kind = sum(learning.values()), type(self.recipe).__name__
        count = len(self.pairs) or len(owners(model, self.trained))
        about = f"; {inside:,} of them are the head's" if inside else ""
        return (
            f"{kind} {name!r} on {count} layers of {model.name!r}: {trains:,} of "
            f"{total:,} parameters train ({trains / total:.2%}{about})"
            + unserved.about(self.left_out)
            + about_unfit(self.unfit)
        )

    def _check_values(self, values: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        names = {x.path: set(part.weight_specs(x.layer)) for x, part in self.pairs}
        for path, given in values.items():
            if unknown := sorted(set(given) - names.get(path, set())):
                raise ValueError(
                    f"There are values for {unknown} of {path!r}, where the "
                    f"{type(self.recipe).__name__} has no such weights. It has them at "
                    f"{list(names)[:20]}."
                )

    def _spared(self, model: keras.Layer) -> tuple[set[int], list[keras.Variable]]:
        """Return the head's layers (ids) that get no part, and what of it learns."""
        hosts = {id(host) for host, _ in all_parts(model)}
        hosts |= {id(target.layer) for target, _ in self.pairs}
        spared = [layer for layer in self.head if id(layer) not in hosts]
        learning = [v for layer in spared for v in layer.weights if v.trainable]
        return {id(layer) for layer in spared}, learning


def _is_plain(targets: object) -> bool:
    several = isinstance(targets, list | tuple | set | frozenset)
    targets = targets if several else [targets]
    return not any(isinstance(target, keras.Layer) for target in targets)
