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
import re
from collections.abc import Mapping

import keras

from keras_transfer.adapters import unserved
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.check_model import check_model
from keras_transfer.adapters.default_targets import depthwise_left_out
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.plan import Plan as Plan
from keras_transfer.adapters.targets import find
from keras_transfer.adapters.targets import fitting
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import NAMELESS
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.trained_layers import own_layers


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

    def attach(
        self,
        model: keras.Model,
        name: str = "default",
        *,
        train: object = None,
        verbose: int = 1,
    ) -> keras.Model:
        """Add this adapter to `model` in place, freeze the rest, and say so in a line.

        The adapter has a head of its own: what is trainable in the group `"head"` of
        `kt.layer_groups` is copied, and the copy learns, computes while the adapter is
        in use, is saved and loaded with it, and goes with it. The model's own head and
        all else are frozen, and neither `model.trainable = True` nor a phase of gradual
        unfreezing thaws it. The new adapter is the one in use.

        A technique that changes weights of the model's own (BitFit, NormTuning, biases
        of LoRA) trains the model's own head too: it cannot be switched off anyway. So
        does a layer of the head of which another layer reads a weight, such as one in
        a SpectralNormalization; the printed line names it.

        Attach before or after `compile`, but inside `strategy.scope()` where the
        model is to be distributed, and to the outermost model: one that holds it, or
        shares layers with it, and has run before needs `kt.adapters.refresh(other)`.
        A `tf.function` of your own that was traced before knows no adapter: make it
        anew. One that was traced after stays right in inference, also once the adapter
        is merged or taken away; of training see `kt.adapters.use`.

        Args:
            model: A built model or composite layer.
            name: Name of the adapter: letters, digits, `_` and `-`. Default
                `"default"`.
            train: Layers that the adapter is to own and train in full, as PEFT's
                `modules_to_save`: a list of regular expressions that are searched in
                the paths of the layers, of layers, and of `"head"` for the head. `[]`
                for none, so that the head is frozen too. Default None: the head, where
                it is trainable and no target.
            verbose: 0 prints nothing, 1 a line about what was attached. Defaults to 1.

        Returns:
            The model.

        Raises:
            TypeError: If `model` is not a Keras layer.
            ValueError: If the model is not built, the name is taken, no layer
                matches, one that `targets` names is never called or has a weight
                that another reads (by default such are left out), one is both a
                target and in `train`, a number does not fit a layer, the model's
                strategy is not entered, or its optimizer has made updates. Nothing is
                changed then.
        """
        check_name(model, name)
        plan = self.plan(model, train=train)
        plan.install(model, name)
        if verbose:
            print(plan.summary(model, name))
        return model

    def plan(
        self,
        model: keras.Layer,
        targets: list[Target] | None = None,
        *,
        train: object = None,
    ) -> Plan:
        """Return what `attach` would add to `model`, which is not changed.

        Args:
            model: As in `attach`.
            targets: The layers that it goes to. Default None, for what `find` returns.
            train: As in `attach`.

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
        if trained and train is not None:
            raise ValueError(
                f"This {type(self).__name__} trains weights of the model's own, and "
                f"its head with them, so it can own no layers: train={train!r}. Leave "
                "`train` out."
            )
        owned, in_place = [], head_layers(model)
        if not trained:
            owned, in_place = own_layers(model, train, hosts)
        return Plan(
            self.resolved(targets),
            tuple(pairs),
            tuple(owned),
            tuple(trained),
            tuple(in_place),
            tuple(left_out),
            unfit,
        )

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


def _is_plain(targets: object) -> bool:
    several = isinstance(targets, list | tuple | set | frozenset)
    targets = targets if several else [targets]
    return not any(isinstance(target, keras.Layer) for target in targets)
