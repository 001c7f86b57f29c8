"""The recipe of an adapter in a PEFT folder, and the values of its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.ia3 import IA3
from keras_transfer.adapters.lora import PAIR
from keras_transfer.adapters.rank_and_alpha import RankedAdapter
from keras_transfer.adapters.vera import VeRA
from keras_transfer.saving.peft.files import PeftFile
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.layout import Layout
from keras_transfer.saving.peft.projections import draw_of
from keras_transfer.saving.peft.projections import rescaled


def recipe_of(
    file: PeftFile, layout: Layout, mapping: HubMapping, paths: Mapping[int, str]
) -> Adapter:
    """Return the recipe of a file, with the layers of the model as its targets.

    Args:
        file: The file.
        layout: Its tensors.
        mapping: The mapping of the model.
        paths: Dict from the id of each layer to its path in the model.

    Raises:
        ValueError: If a number in the config does not fit the technique, or the file
            has other random matrices than its seed gives.
    """
    kind = file.technique
    layers = [x.layer for pair in layout.pairs.values() for x in pair.factors]
    layers += [mapping.shares[f"{x}.weight"][0].layer for x in layout.copies]
    arguments = {
        name: file.config[key]
        for name, key in kind.peft.arguments.items()
        if key in file.config
    }
    if file.config.get("lora_bias"):
        arguments["bias"] = PAIR
    if issubclass(kind, RankedAdapter):
        arguments |= _patterns(file, layout, paths)
        return kind(**arguments, targets=layers).of_file()
    if issubclass(kind, IA3):
        arguments["feedforward"] = [
            re.escape(paths[id(factors.layer)])
            for pair in layout.pairs.values()
            for factors in pair.factors
            if pair.of_inputs
        ]
    elif issubclass(kind, VeRA):
        arguments["draw"] = draw_of(file.config, layout)
    return kind(**arguments, targets=layers)


def values_of(
    recipe: Adapter, layout: Layout, paths: Mapping[int, str]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the values of the parts' weights, by the path of the layer and name."""
    values = {
        paths[id(factors.layer)]: pair.values(factors)
        for pair in layout.pairs.values()
        for factors in pair.factors
    }
    return rescaled(values, recipe, layout, paths)


def _patterns(
    file: PeftFile, layout: Layout, paths: Mapping[int, str]
) -> dict[str, dict[str, object]]:
    """Return patterns for modules with another rank or alpha than the config's."""
    rank, alpha = file.technique.peft.rank_and_alpha(file.config)
    ranks, alphas = {}, {}
    for pair in layout.pairs.values():
        for factors in pair.factors:
            path = re.escape(paths[id(factors.layer)])
            if pair.rank != rank:
                ranks[path] = pair.rank
            if pair.alpha != alpha:
                alphas[path] = pair.alpha
    return {"rank_pattern": ranks, "alpha_pattern": alphas}
