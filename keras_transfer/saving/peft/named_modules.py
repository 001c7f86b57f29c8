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
) -> tuple[int | None, float | None]:
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
    saved = config.get("modules_to_save") or ()
    if any(f".{each}." in f".{module}." for each in saved):
        return False
    layers = config.get("layers_to_transform")
    if isinstance(targets, str) or module in targets or layers in (None, []):
        return True
    index = _block(module, config.get("layers_pattern") or [], expressions)
    return index in (layers if isinstance(layers, list) else [layers])


def is_of_inputs(
    config: Mapping[str, object], module: str, expressions: Expressions
) -> bool:
    """Return whether an IA3 scales the inputs of a module, by its full name.

    Follows PEFT's `_check_target_module_feedforward`.
    """
    names = config.get("feedforward_modules") or []
    if isinstance(names, str):
        return expressions.fullmatch(names, module)
    return any(module.endswith(name) for name in names)


def target_settings(
    modules: list[str], known: list[str], *, blocks: bool = True
) -> dict[str, object]:
    """Return settings that name `modules` and no other modules of `known`.

    These are `target_modules` and, for all modules of some names in some blocks,
    `layers_to_transform` and `layers_pattern`, unless `blocks` is False.
    """
    names = short_names(modules, known)
    found = [BLOCK.search(module) for module in modules]
    # PEFT needs a name before the name of the list, as `transformer` in GPT-2.
    inside = blocks and all(block and block.start(1) for block in found)
    lists = sorted({block[1] for block in found}) if inside else []
    short = list(dict.fromkeys(_inside_block(module) for module in modules))
    if names != short and len(lists) == 1:
        some = {
            "target_modules": short,
            "layers_to_transform": sorted({int(block[2]) for block in found}),
            "layers_pattern": lists,
        }
        expressions = Expressions()
        if {x for x in known if is_target(some, x, expressions)} == set(modules):
            return some
    return {"target_modules": names}


def feedforward_settings(
    targets: Mapping[str, object], modules: list[str], of_inputs: list[str]
) -> dict[str, object]:
    """Return the setting for the modules of an IA3 whose inputs are scaled."""
    names = list(dict.fromkeys(map(_inside_block, of_inputs)))
    found = {x for x in modules if any(x.endswith(name) for name in names)}
    if found != set(of_inputs) or set(names) - set(targets["target_modules"]):
        return {"feedforward_modules": "|".join(map(re.escape, of_inputs))}
    return {"feedforward_modules": names}


def short_names(modules: list[str], known: list[str]) -> list[str]:
    """Return names for `target_modules` that match `modules` and no other modules.

    The name of a module in a numbered block is shortened to the part after the number,
    if `modules` contains all modules of `known` that this short name matches. So PEFT
    expects pairs in all blocks of a model with more blocks.
    """
    others = set(known) - set(modules)
    found = {}
    for module in modules:
        short = _inside_block(module)
        taken = any(x == short or x.endswith(f".{short}") for x in others)
        found[module if taken else short] = None
    return list(found)


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
