"""Find the variables of a reloaded model that a saved optimizer has slots for."""

from __future__ import annotations

import io
import pathlib
import zipfile
from collections.abc import Sequence

import keras

from keras_transfer import _keras

WEIGHTS = "model.weights.h5"
# Keras saves an optimizer here; the first is for one inside a LossScaleOptimizer.
GROUPS = ("optimizer/inner_optimizer/vars", "optimizer/vars")

Shape = tuple[int, ...]


def saved_shapes(path: pathlib.Path) -> list[Shape] | None:
    """Return the shapes of the optimizer's variables in a `.keras` file, in order.

    Returns None if the file has no such variables.
    """
    import h5py

    with zipfile.ZipFile(path) as archive:
        if WEIGHTS not in archive.namelist():
            return None
        content = io.BytesIO(archive.read(WEIGHTS))
    with h5py.File(content, "r") as file:
        for group in GROUPS:
            if group in file:
                found = {int(name): tuple(x.shape) for name, x in file[group].items()}
                return [found[index] for index in sorted(found)]
    return None


def has_shapes(optimizer: keras.Optimizer, shapes: Sequence[Shape] | None) -> bool:
    """Return whether a built optimizer has variables of these shapes, in this order."""
    own = [tuple(v.shape) for v in _keras.inner_optimizer(optimizer).variables]
    return shapes is not None and own == list(shapes)


def find_trained(
    model: keras.Model, optimizer: keras.Optimizer, shapes: Sequence[Shape]
) -> list[keras.Variable] | None:
    """Return the only variables of `model` whose slots have these shapes.

    Args:
        model: The reloaded model. Its trainable flags can differ from the flags of the
            saved model.
        optimizer: A new optimizer with the saved config, which is not built.
        shapes: Shapes of the saved optimizer's variables, from `saved_shapes`.

    Returns:
        The variables in their order, or None unless exactly one choice fits.
    """
    able = _able(model)
    with _keras.scope(model):
        optimizer.build(able)
    tokens, common, slots = _tokens(optimizer, able)
    count, rest = divmod(len(shapes) - common, slots) if slots else (0, 1)
    several = any(len(token) != len(tokens[0]) for token in tokens)
    whole = sum(map(len, tokens)) + common == len(optimizer.variables)
    if not whole and (several or rest):
        return None
    end = len(shapes) if whole else common + count * len(tokens[0])
    chosen = _only_choice(tokens, list(shapes[common:end]))
    return None if chosen is None else [able[index] for index in chosen]


def _able(model: keras.Model) -> list[keras.Variable]:
    """Return the weights that a `trainable` flag controls, in the model's order."""
    learnable = {
        id(variable)
        for layer in _keras.flat_layers(model)
        for variable in _keras.learnable(layer)
    }
    return [variable for variable in model.weights if id(variable) in learnable]


def _tokens(
    optimizer: keras.Optimizer, able: Sequence[keras.Variable]
) -> tuple[list[list[Shape]], int, int]:
    """Return for each variable the shapes of its first consecutive slots.

    Also returns the number of the optimizer's variables before the slots, and the
    number of slots per variable.
    """
    index = {id(variable): i for i, variable in enumerate(able)}
    owner = {id(slot): index[id(v)] for v, slot in _keras.slots(optimizer)}
    tokens: list[list[Shape]] = [[] for _ in able]
    common, last = 0, None
    for variable in optimizer.variables:
        at = owner.get(id(variable))
        if at is None:
            if last is not None:
                break
            common += 1
        elif at == last or not tokens[at]:
            tokens[at].append(tuple(variable.shape))
            last = at
        else:
            break  # the second kind of slots has the same order
    return tokens, common, len(owner) // len(able) if able else 0


def _only_choice(
    tokens: Sequence[Sequence[Shape]], wanted: Sequence[Shape]
) -> list[int] | None:
    """Return the indices of the only tokens that give `wanted`, or None.

    Returns None if no choice or several choices of tokens give `wanted`.
    """
    # ways[i][j]: number of subsequences of tokens[i:] that give wanted[j:].
    ways = [[0] * (len(wanted) + 1) for _ in range(len(tokens) + 1)]
    ways[-1][-1] = 1
    for i in reversed(range(len(tokens))):
        token = list(tokens[i])
        for j in range(len(wanted) + 1):
            ways[i][j] = ways[i + 1][j]
            if token and list(wanted[j : j + len(token)]) == token:
                ways[i][j] += ways[i + 1][j + len(token)]
    if ways[0][0] != 1:
        return None
    chosen, j = [], 0
    for i, token in enumerate(tokens):
        if not ways[i + 1][j]:
            chosen.append(i)
            j += len(token)
    return chosen
