"""layer_transferability: how general or specific the blocks of a network are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import different_names
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.transferability.builders import Build
from keras_transfer.analysis.transferability.builders import Builder
from keras_transfer.analysis.transferability.builders import seeds_of_runs
from keras_transfer.analysis.transferability.layer_transfer import KINDS
from keras_transfer.analysis.transferability.layer_transfer import LayerTransferability
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.backbones.groups import UNUSED
from keras_transfer.backbones.training_flags import train_only

MOST = 6  # blocks at which a network is cut by default
Values = list[np.ndarray]


def layer_transferability(
    build: Build,
    data: Any,
    *,
    test: Any,
    blocks: Sequence[str] | None = None,
    seeds: int = 3,
    epochs: int = 5,
    batch_size: int | None = None,
    verbose: int | str = "auto",
) -> LayerTransferability:
    """Measure how far each block of a pretrained network transfers to a task.

    For each block, the network is cut after it. The blocks up to the cut are copied,
    the others are new, and the whole is trained on the task. There are four networks
    for each cut, named as in the paper:

    - AnB: copied from the pretrained network, and frozen. It is worse than training
      from scratch where the copied features are too specific to the old task.
    - AnB+: the same, and the copied blocks train too. It shows what transfer gains.
    - BnB: copied from a network that was trained from scratch on this task, and frozen.
      It is worse than that network where blocks depend on each other, so that new
      blocks cannot take the place of the old ones.
    - BnB+: the same, and the copied blocks train too.

    Every network trains with the compiled optimizer at its learning rate, for the same
    number of epochs. There are `seeds * (1 + 4 * cuts)` trainings.

    Args:
        build: Function of one bool, `pretrained`, that returns a new model, built and
            compiled. It loads pretrained weights only if `pretrained`. The head, which
            is the last layer group, is always new.
        data: The training data, as for `fit`: a tuple of arrays `(x, y)` or `(x, y,
            sample_weight)`, or a batched `tf.data.Dataset`.
        test: The test data, of the same types.
        blocks: Names of the layer groups after which the network is cut, as in
            `kt.layer_groups`. Defaults to `None`, all but the head, or six of them at
            equal distances if there are more.
        seeds: Integer, the number of runs of each network. Defaults to 3.
        epochs: Integer, the epochs of each training. Defaults to 5.
        batch_size: Integer, the examples in a batch, for arrays. Defaults to `None`,
            which is 32.
        verbose: 1 or `"auto"` prints a line for each network, 0 prints nothing.
            Defaults to `"auto"`.

    Returns:
        A `kt.analysis.LayerTransferability`. Print it, or call its `plot` or `save`.

    Raises:
        TypeError: If `build` is not a function, or returns something else than a model.
        ValueError: If `build` ignores `pretrained`, returns a model or weights again or
            models of different shapes, if a block is unknown, or if the model has only
            one layer group. This is checked before the first training.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        weights = np.random.rand(6, 5)  # of a pretrained network


        def build(pretrained):
            model = keras.Sequential(
                [keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dense(2)]
            )
            if pretrained:
                model.layers[0].set_weights([weights, np.zeros(5)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("adam", loss, metrics=["accuracy"])
            return model


        x, y = np.random.rand(60, 6), np.arange(60) % 2
        parts = (x[:40], y[:40]), (x[40:], y[40:])
        found = kt.analysis.layer_transferability(
            build, parts[0], test=parts[1], seeds=1, epochs=1, verbose=0
        )
        print(found)
        ```

    Reference:
        Yosinski, Clune, Bengio and Lipson 2014, How transferable are features in deep
        neural networks?, arXiv:1411.1792 (Figures 1 and 2).
    """
    seeds = seeds_of_runs(whole_number("seeds", seeds))
    epochs = whole_number("epochs", epochs)
    builder = Builder(build)
    pretrained = _values(builder.check(seeds[0], scratch=True))
    model = builder(False, seeds[0])
    _check_shapes(pretrained, _values(model))
    groups = layer_groups(model)
    cuts = _cuts(groups, blocks)
    bench = _Bench(model, groups, data, test, epochs, batch_size)
    # The new blocks of a copied network start with other values than those of the
    # network that was trained on the task, which would fit the copied ones by accident.
    new = {seed: _values(builder(False, seed)) for seed in seeds}
    other = {seed: _values(builder(False, seed + len(seeds))) for seed in seeds}
    trained: dict[int, Values] = {}
    base: list[float | None] = []
    found: dict[tuple[int, str], list[float | None]] = {}

    def run(kind: str, cut: int, seed: int) -> None:
        source = pretrained if kind.startswith("A") else trained[seed]
        score = bench.run(bench.joined(source, other[seed], cut), seed)
        found.setdefault((cut, kind), []).append(score)
        if verbose:
            name = f"{kind}, {groups.names[cut]}, seed {seed}"
            print(f"layer_transferability: {name}: {_said(bench.metric, score)}")

    # Networks with the same trainable blocks follow each other and share a trace.
    bench.freeze(None)
    for seed in seeds:
        base.append(bench.run(new[seed], seed))
        trained[seed] = _values(model)
        if verbose:
            said = _said(bench.metric, base[-1])
            print(f"layer_transferability: from scratch, seed {seed}: {said}")
    for cut in cuts:
        for seed in seeds:
            run("AnB+", cut, seed)
            run("BnB+", cut, seed)
    for cut in cuts:
        bench.freeze(cut)
        for seed in seeds:
            run("AnB", cut, seed)
            run("BnB", cut, seed)
    rows = [
        {"block": groups.names[cut], **{kind: found[cut, kind] for kind in KINDS}}
        for cut in cuts
    ]
    content = {"metric": bench.metric, "base": base, "rows": rows}
    return LayerTransferability(content)


class _Bench:
    """One model that trains from given values, with a trace for each frozen part."""

    def __init__(
        self,
        model: keras.Model,
        groups: LayerGroups,
        data: Any,
        test: Any,
        epochs: int,
        batch_size: int | None,
    ) -> None:
        self.model = model
        self.groups = groups
        self.learning = list(model.trainable_variables)
        optimizer = _keras.inner_optimizer(model.optimizer)
        self.kind, self.settings = type(optimizer), _keras.settings(optimizer)
        self.data, self.test = _arguments(data), _arguments(test)
        # A dataset has its own order, and Keras warns about the flag.
        shuffle = isinstance(data, tuple)
        self.fit = {"epochs": epochs, "shuffle": shuffle, "verbose": 0}
        self.batch = {} if batch_size is None else {"batch_size": batch_size}
        self.metric = "loss"

    def freeze(self, cut: int | None) -> None:
        """Freeze the groups up to a position, and give the model a new optimizer."""
        model, first = self.model, 0 if cut is None else cut + 1
        layers = [layer for group in self.groups[first:] for layer in group.layers]
        variables = [x for x in self.learning if self.groups.position(x) >= first]
        train_only(model, variables, layers)
        with _keras.scope(model):
            optimizer = self.kind.from_config(self.settings)
            _keras.replace_optimizer(model, optimizer)
            model.optimizer.build(model.trainable_variables)
        _keras.remake_functions(model, "train")
        self.start = _keras.snapshot(model.optimizer.variables)

    def joined(self, source: Values, new: Values, cut: int) -> Values:
        """Return the values of `source` up to a group, and those of `new` after it."""
        return [
            a if self.groups.position(weight) <= cut else b
            for weight, a, b in zip(self.model.weights, source, new, strict=True)
        ]

    def run(self, values: Values, seed: int) -> float | None:
        """Train from values, and return the score on the test part if it is finite."""
        model = self.model
        for weight, value in zip(model.weights, values, strict=True):
            weight.assign(value)
        _keras.restore(model.optimizer.variables, self.start)
        keras.utils.set_random_seed(seed)
        model.fit(**self.data, **self.fit, **self.batch)
        logs = model.evaluate(**self.test, **self.batch, verbose=0, return_dict=True)
        metrics = [metric.name for metric in _keras.built_metrics(model)]
        self.metric = next((name for name in metrics if name in logs), "loss")
        score = float(logs[self.metric])
        return score if math.isfinite(score) else None


def _arguments(data: Any) -> dict:
    """Return data as arguments of `fit` or `evaluate`."""
    if not isinstance(data, tuple):
        return {"x": data}
    return dict(zip(("x", "y", "sample_weight"), data, strict=False))


def _values(model: keras.Model) -> Values:
    return [_keras.value(weight) for weight in model.weights]


def _check_shapes(pretrained: Values, new: Values) -> None:
    shapes = [[value.shape for value in values] for values in (pretrained, new)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "build(True) and build(False) return models with weights of different "
            "shapes, so no block can be copied. Build the same network in both, and "
            "load the pretrained weights only for build(True)."
        )


def _cuts(groups: LayerGroups, blocks: Sequence[str] | None) -> list[int]:
    """Return the positions of the groups after which the network is cut."""
    names = [name for name in groups.names if name != UNUSED][:-1]
    if not names:
        raise ValueError(
            f"The model {groups.model.name!r} has only one layer group, "
            f"{groups.names[0]!r}, so it cannot be cut. See kt.layer_groups(model)."
        )
    if blocks is None:
        places = np.linspace(0, len(names) - 1, min(MOST, len(names)))
        return sorted({round(place) for place in places})
    why = "these are the layer groups below the head"
    chosen = different_names("blocks", blocks, names, why)
    return sorted(names.index(name) for name in chosen)


def _said(metric: str, score: float | None) -> str:
    return f"{metric} " + ("not finite" if score is None else f"{score:.3f}")
