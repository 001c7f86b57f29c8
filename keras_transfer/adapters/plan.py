"""Plan: the changes that an adapter makes to a model, before they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.adapters import unserved
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.default_targets import about_unfit
from keras_transfer.adapters.in_place import adapted_layer
from keras_transfer.adapters.in_place.compiled_model import activate
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.compiled_model import stale_optimizers
from keras_transfer.adapters.in_place.frozen_weights import freeze_all_but
from keras_transfer.adapters.in_place.frozen_weights import train_parts_and
from keras_transfer.adapters.in_place.layer_state import all_or_nothing
from keras_transfer.adapters.own_layer import OwnLayer
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import owners
from keras_transfer.quantization.packed_layers import hidden_weights


@dataclasses.dataclass(frozen=True)
class Plan:
    """The changes that an adapter makes to a model, before they are made.

    Use a plan for one `install`, which creates the weights of its parts.

    Args:
        recipe: The `Adapter` to keep with the model, with paths instead of layers.
        pairs: The layers that get a part, each with its part, still without weights.
        owned: The layers of which the adapter gets its own copy, each with its part,
            still without weights.
        trained: The model's own weights that also train.
        in_place: The layers of the head that train in place. These are all layers of
            the head if `trained` is not empty, else the layers that no adapter can own.
        left_out: The targets of the recipe where a part would have no effect.
        unfit: The number of other layers without a part, see `Adapter.fitting`.
    """

    recipe: Any
    pairs: tuple[tuple[Target, Part], ...]
    owned: tuple[tuple[Target, OwnLayer], ...]
    trained: tuple[keras.Variable, ...]
    in_place: tuple[keras.Layer, ...]
    left_out: tuple[Target, ...] = ()
    unfit: int = 0

    def install(
        self,
        model: keras.Layer,
        name: str,
        values: Mapping[str, Mapping[str, np.ndarray]] | None = None,
        own: Sequence[tuple[keras.Variable, np.ndarray]] = (),
    ) -> None:
        """Create the weights, add them to `model`, and freeze the rest.

        Args:
            model: The model of the plan.
            name: Name of the adapter, already checked by `check_name`.
            values: Dict from a target's path to the values of its part's weights by
                name. Other weights get the initial values of the technique. Defaults to
                None, for no values.
            own: Pairs of a model's own weight and its new value. Defaults to no pairs.

        Raises:
            ValueError: If the model's optimizer has made updates, or `values` has a
                path or a weight that is not in the plan. In both cases the model does
                not change.
        """
        values = values or {}
        self._check_values(values)
        replacements = stale_optimizers(model, new_weights=True)
        everything = (*self.pairs, *self.owned)
        pairs = [(target.layer, part) for target, part in everything]
        for target, part in everything:
            part.name = name
            part.create(target.layer)
            for key, value in values.get(target.path, {}).items():
                part.named_weights[key].assign(value)
        self.recipe.link([part for _, part in self.pairs])
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
        """Return the line that `attach` prints about the installed adapter."""
        gates = {id(part.gate) for _, part in all_parts(model)}
        total = sum(math.prod(v.shape) for v in model.weights if id(v) not in gates)
        total += hidden_weights(model)
        learning = {id(v): math.prod(v.shape) for v in model.trainable_weights}
        head = {id(v) for layer in head_layers(model) for v in layer.trainable_weights}
        inside = sum(size for key, size in learning.items() if key in head)
        trains, kind = sum(learning.values()), type(self.recipe).__name__
        count = sum(bool(part.named_weights) for _, part in self.pairs)
        count = count or len(owners(model, self.trained))
        about = f"; {inside:,} of them in the head" if inside else ""
        return (
            f"{kind} {name!r} on {count} layers of {model.name!r}: {trains:,} of "
            f"{total:,} parameters train ({trains / total:.2%}{about})"
            + self._about_in_place()
            + unserved.about(self.left_out)
            + about_unfit(self.unfit)
        )

    def _check_values(self, values: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        parts = (*self.pairs, *self.owned)
        names = {x.path: set(part.weight_specs(x.layer)) for x, part in parts}
        for path, given in values.items():
            if unknown := sorted(set(given) - names.get(path, set())):
                raise ValueError(
                    f"There are values for the weights {unknown} at {path!r}, but the "
                    f"{type(self.recipe).__name__} has no such weights there. It has "
                    f"weights at {list(names)[:20]}."
                )

    def _about_in_place(self) -> str:
        names = [] if self.trained else [layer.name for layer in self.in_place]
        why = "in place, for all adapters, because another layer reads the weights"
        return f"; {names} trains {why}" if names else ""

    def _spared(self, model: keras.Layer) -> tuple[set[int], list[keras.Variable]]:
        """Return ids of the layers that train in place, and their trainable weights."""
        hosts = {id(host) for host, _ in all_parts(model)}
        hosts |= {id(target.layer) for target, _ in self.pairs}
        spared = [layer for layer in self.in_place if id(layer) not in hosts]
        learning = [v for layer in spared for v in layer.weights if v.trainable]
        return {id(layer) for layer in spared}, learning
