"""Adapter: the base of all recipes of parameter-efficient fine-tuning.

To add a technique, write one file with:

1. One or more subclasses of `Part` (adapter_part.py), the weights added to one layer.
2. A recipe, which is a subclass of `Adapter`. Its `parts` maps Keras layer classes to
   their part, its `part(target)` makes one part, and its get_config returns plain JSON.

Register both with Keras. All techniques share the code for attaching, freezing,
switching, loading, merging and files. A technique without parts returns from `trained`
the model's own weights that train.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.adapters import unserved
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.check_model import check_model
from keras_transfer.adapters.default_targets import depthwise_left_out
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.peft_format import PeftTensor
from keras_transfer.adapters.plan import Plan as Plan
from keras_transfer.adapters.targets import find
from keras_transfer.adapters.targets import fitting
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import NAMELESS
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.trained_layers import own_layers


class Adapter:
    """Base of the recipes: the technique, its target layers, and its numbers.

    Args:
        targets: None for the default of the model's family, `"all-linear"`, a regular
            expression that is searched in the paths of the layers, or a list of
            expressions and layers. Defaults to None.
    """

    # Keras layer class -> its Part. A subclass of the layer class can also be a target,
    # if it inherits `call`.
    parts: Mapping[type, type[Part]] = {}
    # The format in the files of Hugging Face PEFT, or None if PEFT has no such format.
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
    def part_class(
        cls, layer: keras.Layer, parts: Mapping[type, type[Part]] | None = None
    ) -> type[Part]:
        """Return the part class of the nearest class that `layer` inherits from."""
        parts = cls.parts if parts is None else parts
        for base in type(layer).__mro__:
            if base in parts:
                return parts[base]
        raise ValueError(
            f"{cls.__name__} cannot adapt {layer.name!r}, because it has no part for "
            f"a {type(layer).__name__}. Leave the layer out of the targets."
        )

    @classmethod
    def peft_parts(cls, config: Mapping[str, object]) -> Mapping[type, type[Part]]:
        """Return the part of each layer class for an adapter with PEFT's `config`."""
        return cls.parts

    @classmethod
    def peft_specs(
        cls,
        specs: Mapping[str, PeftTensor],
        sizes: Mapping[str, int],
        config: Mapping[str, object],
    ) -> tuple[Mapping[str, PeftTensor], Mapping[str, int]]:
        """Return the tensors of a module in PEFT's files, and the sizes of their axes.

        Args:
            specs: The tensors that a part can have.
            sizes: The numbers of inputs and outputs of the module, and its rank.
            config: PEFT's settings.
        """
        return specs, sizes

    def trained(
        self, model: keras.Layer, targets: list[Target]
    ) -> list[keras.Variable]:
        """Return the model's own weights that also train, by default none.

        These weights change in place. So an adapter with such weights cannot be
        switched off, and the model can have no other adapter.
        """
        return []

    def first_values(self, plan: Plan) -> dict[str, dict[str, np.ndarray]]:
        """Return values that depend on the model's weights, as in `Plan.install`.

        Parts that are loaded from a file do not need these values.
        """
        return {}

    def link(self, parts: list[Part]) -> None:
        """Connect the parts of one adapter, after attaching and after loading."""

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers that the recipe adapts."""
        kind = type(self).__name__
        return find(model, self.targets, self.parts, kind) if self.parts else []

    def fitting(self, model: keras.Layer) -> tuple[list[Target], int]:
        """Return the targets that fit the recipe, and the number of unfit targets.

        A layer that `targets` names has to fit.
        """
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
        """Add this adapter to `model` in place, freeze the rest, and use the adapter.

        The adapter gets its own head, a copy of the trainable layers in the group
        `"head"` of `kt.layer_groups`. The copy trains, and the model computes with the
        copy while the adapter is in use. The copy is saved, loaded and removed with the
        adapter. The model's own head and all other weights are frozen, even after
        `model.trainable = True` and during gradual unfreezing.

        In two cases the model's own head trains instead of a copy. First, techniques
        that change the model's own weights (BitFit, NormTuning, LoRA with biases) train
        the model's own head, because they cannot be switched off anyway. Second, a
        layer of the head trains itself if another layer reads one of its weights, as a
        SpectralNormalization does. The printed line names this layer.

        Attach before or after `compile`. To distribute the model, attach inside
        `strategy.scope()`. Attach to the outermost model. If another model contains
        this model or shares layers with it, and has run before, call
        `kt.adapters.refresh(other)`. If you traced your own `tf.function` before
        attaching, it computes without the adapter, so create it again. A `tf.function`
        that you trace after attaching stays valid for inference, even after the adapter
        is merged or removed. For training see `kt.adapters.use`.

        Args:
            model: A built model or composite layer.
            name: Name of the adapter, from letters, digits, `_` and `-`. Defaults to
                `"default"`.
            train: List of layers that the adapter owns and trains in full, as PEFT's
                `modules_to_save`. The list can contain regular expressions that are
                searched in the paths of the layers, layers, and `"head"`. With `[]` the
                adapter owns no layers, so the head is frozen too. None selects the
                layers of the head that are trainable and not targets. Defaults to None.
            verbose: 0 prints nothing, 1 prints a line about the adapter. Defaults to 1.

        Returns:
            The model.

        Raises:
            TypeError: If `model` is not a Keras layer.
            ValueError: If the model is not built, the name is taken, no layer matches,
                a number does not fit a layer, a layer that `targets` names is never
                called, has a weight that another layer reads or is also in `train`, the
                model's strategy is not entered, or the optimizer has made updates. The
                model does not change in this case.
        """
        check_name(model, name)
        plan = self.plan(model, train=train)
        plan.install(model, name, self.first_values(plan))
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
        """Return the changes that `attach` would make, without changing `model`.

        Args:
            model: As in `attach`.
            targets: The layers to adapt. Defaults to None, for the result of `find`.
            train: As in `attach`.

        Raises:
            ValueError: If the model cannot have this adapter, as in `attach`.
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
                f"This {type(self).__name__} trains the model's own weights and the "
                f"model's own head, so it can own no layers. Leave train={train!r} out."
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
        """Return a copy with paths instead of layers, so files can store it as JSON."""
        recipe = copy.copy(self)
        if not _is_plain(self.targets):
            recipe.targets = [f"^{re.escape(target.path)}$" for target in targets]
        return recipe

    def get_config(self) -> dict:
        """Return the constructor arguments.

        Raises:
            ValueError: If `targets` contains layers. After attaching, use the recipe in
                `kt.adapters.attached(model)`, which has the paths of these layers.
        """
        if not _is_plain(self.targets):
            raise ValueError(
                f"The targets of this {type(self).__name__} are layers, which JSON "
                "cannot store. Attach it and use the recipe from "
                "kt.adapters.attached(model), which has the paths of the layers."
            )
        single = isinstance(self.targets, str | None)
        return {"targets": self.targets if single else list(self.targets)}

    @classmethod
    def from_config(cls, config: dict) -> Adapter:
        """Return the recipe with the arguments of `get_config`."""
        return cls(**config)

    def __repr__(self) -> str:
        given = [f"{k}={value!r}" for k, value in vars(self).items() if k[0] != "_"]
        return f"{type(self).__name__}({', '.join(given)})"

    def _check_alone(self, model: keras.Layer, trained: list, recipes: dict) -> None:
        for other, recipe in recipes.items():
            if trained or recipe.trained(model, recipe.fitting(model)[0]):
                raise ValueError(
                    f"{type(self).__name__} and the attached {other!r} cannot be "
                    "combined in one model. One of them trains the model's own "
                    "weights, which cannot be switched. Call kt.adapters.merge or "
                    "kt.adapters.detach first."
                )


def _is_plain(targets: object) -> bool:
    several = isinstance(targets, list | tuple | set | frozenset)
    targets = targets if several else [targets]
    return not any(isinstance(target, keras.Layer) for target in targets)
