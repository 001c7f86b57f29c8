"""The tensors of an adapter at each Hugging Face module, made of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import check_overrides
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.switching import places
from keras_transfer.adapters.targets import by_pattern
from keras_transfer.saving.peft.checks import check_whole
from keras_transfer.saving.peft.factors import Factors
from keras_transfer.saving.peft.factors import sizes_of
from keras_transfer.saving.peft.hub_mapping import HubMapping


@dataclasses.dataclass(frozen=True)
class Module:
    """The rank, alpha and tensors of an adapter at one Hugging Face module.

    `rows_out` is as in `Factors`, and `part` the part of the module's first layer.
    """

    rank: int | None
    alpha: float | None
    rows_out: bool
    tensors: Mapping[str, np.ndarray]
    part: Part

    @property
    def of_inputs(self) -> bool:
        """Whether the part changes the inputs of the module, not its outputs."""
        return _of_inputs(self.part)


def modules_of(
    model: keras.Model, name: str, recipe: Adapter, mapping: HubMapping
) -> dict[str, Module]:
    """Return the tensors of an adapter by module, none for one without parts.

    Raises:
        ValueError: If PEFT's format does not support a part.
    """
    module_of = mapping.module_of()
    parts: dict[str, dict[int, Part]] = {}
    alphas: dict[str, float] = {}
    for path, host, part in places(model, name):
        if id(host) not in module_of or not part.peft_tensors:
            raise ValueError(
                f"The layer {path!r} ({type(host).__name__}) with its "
                f"{type(part).__name__} has no counterpart in Hugging Face's "
                f"{mapping.family!r}. Leave it out of the targets."
            )
        check_overrides(part, "peft_tensors")
        module = module_of[id(host)]
        parts.setdefault(module, {})[id(host)] = part
        if recipe.peft.ranked:
            alphas.setdefault(module, _alpha(recipe, part, path))
    return {
        module: _module(mapping, module, parts[module], recipe, alphas.get(module))
        for module in dict.fromkeys(module_of.values())
        if module in parts
    }


def _alpha(recipe: Adapter, part: Part, path: str) -> float:
    """Return the alpha that gives the part's scaling, usually the recipe's alpha."""
    alpha = by_pattern(recipe.alpha_pattern, path, recipe.alpha)
    divisor = recipe.peft.divisor(part.rank)
    return alpha if alpha / divisor == part.scaling else part.scaling * divisor


def _module(
    mapping: HubMapping,
    module: str,
    parts: Mapping[int, Part],
    recipe: Adapter,
    alpha: float | None,
) -> Module:
    """Return the tensors of a module from the parts of its Keras layers.

    Parts with the same weights on the input side share these weights. Otherwise the
    ranks of the parts are concatenated, and each rank changes the outputs of its own
    layer only.
    """
    factors = mapping.factors(module)
    pairs = [(x, parts[id(x.layer)]) for x in factors if id(x.layer) in parts]
    first = pairs[0][1]
    specs = first.peft_inputs if _of_inputs(first) else first.peft_tensors
    if recipe.peft.shared or recipe.peft.whole:
        check_whole(type(recipe), module, factors)
    rows_out = factors[0].rows_out or isinstance(
        factors[0].layer, keras.layers.Embedding
    )
    if not (rows_out or recipe.peft.transposes):
        raise ValueError(
            f"Hugging Face's {module!r} is a Conv1D, for which PEFT has no "
            f"{type(recipe).__name__}. Leave it out of the targets."
        )
    side = _input_side(*pairs[0])
    shared = all(_input_side(*pair) == side for pair in pairs[1:])
    whole = [spec for spec in specs.values() if "rank" not in spec.axes]
    apart = len(pairs) < len(factors) and any(x.rest is None for x in whole)
    if apart or not shared and any("outputs" not in x.axes for x in whole):
        raise ValueError(
            f"Hugging Face's {module!r} is {[x.layer.name for x in factors]} in Keras, "
            f"but only some of these layers are targets. A {type(recipe).__name__} in "
            "PEFT needs the whole module. Use all of these layers as targets."
        )
    rank = getattr(first, "rank", None)
    rank = rank if shared else sum(part.rank for _, part in pairs)
    sizes = sizes_of(factors) | {"rank": rank}
    settings = {key: getattr(recipe, x) for x, key in recipe.peft.arguments.items()}
    specs, sizes = recipe.peft_specs(specs, sizes, settings)
    tensors = {
        end: np.full(x.shape(sizes), x.rest or 0.0, "float32")
        for end, x in specs.items()
    }
    start = 0
    for place, part in pairs:
        at = {"inputs": place.inputs, "outputs": place.outputs}
        own = getattr(part, "rank", None) or 0
        at["rank"] = np.arange(start, start + own)
        start += 0 if shared else own
        for end, spec in specs.items():
            value = _keras.value(part.named_weights[spec.weight])
            if spec.scaled:
                value = value * np.float32(part.scaling / first.scaling)
            spec.write(tensors[end], value, at)
    alpha = alpha if shared else first.scaling * recipe.peft.divisor(rank)
    return Module(rank, alpha, rows_out, tensors, first)


def _input_side(factors: Factors, part: Part) -> list:
    """Return the values that two parts must share to use one rank for a module."""
    of_inputs = _of_inputs(part)
    specs = part.peft_inputs if of_inputs else part.peft_tensors
    names = {x.weight for x in specs.values() if "outputs" not in x.axes}
    own = part.named_weights
    values = [_keras.value(own[name]).tobytes() for name in own if name in names]
    numbers = [getattr(part, name, None) for name in ("scaling", "rank")]
    return [of_inputs, *numbers, factors.inputs.tobytes(), *values]


def _of_inputs(part: Part) -> bool:
    return getattr(part, "of_inputs", False)
