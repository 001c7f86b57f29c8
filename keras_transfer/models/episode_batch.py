"""The form of a batch of episodes, and what cannot train or be measured on one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

EPISODE = {"support", "query"}
TARGETS = "support_y"


def is_episode(inputs: Any) -> bool:
    """Return whether `inputs` is the dictionary of episodes."""
    return isinstance(inputs, dict) and set(inputs) == EPISODE


def has_targets(inputs: Any) -> bool:
    """Return whether `inputs` is the dictionary of episodes with support targets."""
    return isinstance(inputs, dict) and set(inputs) == {*EPISODE, TARGETS}


def is_plain(x: Any) -> bool:
    """Return whether the data of `fit` are known to be no episodes."""
    spec = getattr(x, "element_spec", None)
    given = spec[0] if isinstance(spec, tuple) else x
    known = isinstance(given, dict) or hasattr(given, "shape")
    return known and not (is_episode(given) or has_targets(given))


def check_replicas(model: keras.Model, x: Any) -> None:
    """Raise an error if a replica would get a batch without an episode."""
    strategy = getattr(model, "distribute_strategy", None)
    replicas = strategy.num_replicas_in_sync if strategy else 1
    spec = getattr(x, "element_spec", None)
    if replicas == 1 or not isinstance(spec, tuple) or is_plain(x):
        return
    episodes = keras.tree.flatten(spec[0])[0].shape[0]
    if episodes is not None and episodes < replicas:
        raise ValueError(
            f"A batch has {episodes} episodes, but there are {replicas} replicas, "
            "and an episode cannot be divided. Pass a multiple of their number as "
            "batch_size to kt.data.episodes."
        )


def sizes(support: Any, query: Any) -> tuple[Any, Any, Any]:
    """Return the number of classes, of examples and of queries of an episode.

    A number is a tensor if the graph does not know it, because Keras makes one graph
    for episodes of several sizes.
    """
    keras.tree.assert_same_structure(support, query)
    pairs = list(
        zip(keras.tree.flatten(support), keras.tree.flatten(query), strict=True)
    )
    for given, asked in pairs:
        if len(given.shape) < 3 or given.shape[3:] != asked.shape[2:]:
            raise ValueError(
                f"The support set has the shape {tuple(given.shape)} and the query set "
                f"{tuple(asked.shape)}. They must be (episodes, way, shot, ...) and "
                "(episodes, queries, ...), with examples of the same shape, as "
                "kt.data.episodes returns them."
            )
    _, way, shot = ops.shape(pairs[0][0])[:3]
    queries = ops.shape(pairs[0][1])[1]
    if isinstance(way, int) and way < 2:
        raise ValueError(
            f"The episodes have {way} class, so there is nothing to choose. Use "
            "episodes of two or more classes."
        )
    return way, shot, queries


def check_targets(support: Any, targets: Any, query: Any) -> None:
    """Raise an error if a support set with targets does not fit its queries."""
    keras.tree.assert_same_structure(support, query)
    for given, asked in zip(
        keras.tree.flatten(support), keras.tree.flatten(query), strict=True
    ):
        fits = len(given.shape) >= 2 and given.shape[2:] == asked.shape[2:]
        if not fits or given.shape[:2] != targets.shape[:2]:
            raise ValueError(
                f"The support set has the shape {tuple(given.shape)}, its targets "
                f"{tuple(targets.shape)} and the query set {tuple(asked.shape)}. They "
                "must be (episodes, shots, ...), (episodes, shots, ...) and (episodes, "
                "queries, ...), with examples of the same shape."
            )
