"""The modules that a PEFT config names, and their rank and alpha."""

from __future__ import annotations

import re
from collections.abc import Mapping

from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.saving.peft.expressions import Expressions

# The number of a block in a module's name, and the name of the list of blocks.
BLOCK = re.compile(r"(?:^|\.)([^.]*)\.(\d+)(?=\.)")


def rank_and_alpha(
    config: Mapping[str, object],
    peft: PeftFormat,
    module: str,
    expressions: Expressions,
) -> tuple[int, float]:
    """Return the rank and alpha that PEFT gives to a module, by its full name."""
    numbers = list(peft.rank_and_alpha(config))
    for i, key in enumerate(("rank_pattern", "alpha_pattern")):
        for expression, own in (config.get(key) or {}).items():
            if expressions.ends(expression, module):
                numbers[i] = own  # PEFT uses the first match
                break
    return numbers[0], numbers[1]


def is_target(
    config: Mapping[str, object], module: str, expressions: Expressions
) -> bool:
    """Return whether a module, by its full name, is a target of a config.

    Follows PEFT's `check_target_module_exists`. The caller handles the head's modules.
    """
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")
    if excluded and _is_named(excluded, module, expressions):
        return False
    if not targets or not _is_named(targets, module, expressions):
        return False
    layers = config.get("layers_to_transform")
    if isinstance(targets, str) or module in targets or layers in (None, []):
        return True
    index = _block(module, config.get("layers_pattern") or [], expressions)
    return index in (layers if isinstance(layers, list) else [layers])


def short_names(modules: list[str], known: list[str]) -> list[str]:
    """Return names for `target_modules` that match `modules` and no other modules.

    The name of a module in a numbered block is shortened to the part after the number,
    if `modules` contains all modules of `known` with this short name. So PEFT expects
    pairs in all blocks of a model with more blocks.
    """
    names = {module: _inside_block(module) for module in known}
    others = {names[module] for module in known if module not in modules}
    return list(dict.fromkeys(x if names[x] in others else names[x] for x in modules))


def _inside_block(module: str) -> str:
    found = BLOCK.search(module)
    return module[found.end() + 1 :] if found else module


def _is_named(names: object, module: str, expressions: Expressions) -> bool:
    if isinstance(names, str):
        return expressions.fullmatch(names, module)
    return any(module == each or module.endswith(f".{each}") for each in names)


def _block(module: str, patterns: object, expressions: Expressions) -> int | None:
    """Return the number of the block of `module`, by `layers_pattern`."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    blocks = list(BLOCK.finditer(module))
    for pattern in patterns:
        for block in blocks:
            if expressions.ends(pattern, module[: block.start(2) - 1]):
                return int(block[2])
    inside = [int(block[2]) for block in blocks if block.start(1)]
    return inside[0] if inside and not patterns else None
