"""layer_groups: the groups of layers of a model in order, from stem to head."""

import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import keras

from keras_transfer._keras import own_weights
from keras_transfer.backbones.block_patterns import find_groups
from keras_transfer.backbones.block_patterns import find_owners
from keras_transfer.backbones.block_patterns import Owner
from keras_transfer.backbones.group_patterns import match_patterns
from keras_transfer.backbones.used_weights import unreached_weights

# The group of layers that the outputs do not depend on.
UNUSED = "unused"


@dataclass(frozen=True, eq=False, repr=False)
class LayerGroup:
    """One group of layers of a model, with their weights.

    Args:
        name: String, unique among the groups of a model.
        layers: Tuple of the layers that own a weight directly, in model order. A
            composite layer such as `MultiHeadAttention` is listed only if it owns
            weights in addition to the weights of its children.
        variables: List of all weights of the group, trainable or not, in model
            order. Seeds and metrics are not weights.

    Example:

    ```python
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
    group = kt.layer_groups(model)["out"]
    assert group.layers == (model.layers[0],)
    assert group.num_parameters == 10
    ```

    Reference:
        R. Wightman, 2019, PyTorch Image Models (timm), whose `group_matcher` orders
        the parameters of a network in the same way.
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]
    variables: list[keras.Variable]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Return the variables that are trainable now."""
        return [v for v in self.variables if v.trainable]

    @property
    def num_parameters(self) -> int:
        """Return the number of scalars in all variables of the group."""
        return _count(self.variables)

    def __repr__(self) -> str:
        return f"LayerGroup({self.name!r}, {len(self.layers)} layers)"


class LayerGroups(Sequence):
    """The groups of a model in order, each weight in exactly one of them.

    A read-only sequence: `groups[0]` is closest to the input, `groups[-1]` is closest
    to the output, `groups["head"]` returns a group by name, and `print(groups)` shows
    a table. The groups do not change when you add layers to the model: call
    `layer_groups` again. The table reads the trainable flags when you print it.

    Args:
        model: Keras model or layer that the groups were made from.
        groups: Sequence of `LayerGroup`, stem first.

    Example:

    ```python
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="hidden"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    groups = kt.layer_groups(model)
    print(groups)
    assert groups.names == ["hidden", "out"]
    assert groups.position(model.layers[1].kernel) == 1
    ```

    Raises:
        ValueError: If two groups share a name, or a weight of the model is in no
            group or in two.

    Reference:
        J. Howard and S. Ruder, 2018, "Universal Language Model Fine-tuning for Text
        Classification", arXiv:1801.06146.
    """

    def __init__(self, model: keras.layers.Layer, groups: Sequence[LayerGroup]) -> None:
        self.model = model
        self._groups = tuple(groups)
        self._positions: dict[int, int] = {}
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"Two groups have the name {name!r}, so the name does not "
                    "identify a group. Give each group a different name."
                )
        twice = []
        for i, group in enumerate(self._groups):
            for variable in group.variables:
                if id(variable) in self._positions:
                    twice.append(variable.path)
                self._positions[id(variable)] = i
        missing = [v.path for v in model.weights if id(v) not in self._positions]
        if twice or missing:
            raise ValueError(
                "Every weight must be in exactly one group. In no group: "
                f"{missing}; in two groups: {twice}. Pass `patterns` that match each "
                "layer once."
            )

    @property
    def names(self) -> list[str]:
        """Return the names of the groups, stem first."""
        return [group.name for group in self._groups]

    def position(self, variable: keras.Variable) -> int:
        """Return the index of the group that contains `variable`.

        Args:
            variable: `keras.Variable` of the model: the object itself, not a copy.

        Raises:
            ValueError: If no group contains the variable.
        """
        if id(variable) not in self._positions:
            path = getattr(variable, "path", repr(variable))
            raise ValueError(
                f"The variable {path!r} is in no group of the model "
                f"{self.model.name!r}. It belongs to another model, or was added after "
                "the call of `layer_groups`. Call `layer_groups` again."
            )
        return self._positions[id(variable)]

    def __getitem__(
        self, key: int | slice | str
    ) -> LayerGroup | tuple[LayerGroup, ...]:
        if not isinstance(key, str):
            return self._groups[key]
        if key not in self.names:
            near = get_close_matches(key, self.names, n=1, cutoff=0)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"No group has the name {key!r}. {hint}The groups are {self.names}."
            )
        return self._groups[self.names.index(key)]

    def __contains__(self, item: object) -> bool:
        return item in (self.names if isinstance(item, str) else self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[LayerGroup]:
        return iter(self._groups)

    def __repr__(self) -> str:
        return f"LayerGroups({self.names})"

    def __str__(self) -> str:
        rows = [
            (len(g.layers), g.num_parameters, _count(g.trainable_variables))
            for g in self._groups
        ]
        rows.append(tuple(map(sum, zip(*rows, strict=True))))
        cells = [("group", "layers", "parameters", "trainable")] + [
            (name, *(f"{count:,}" for count in row))
            for name, row in zip([*self.names, "total"], rows, strict=True)
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join([name.ljust(widths[0]), *map(str.rjust, counts, widths[1:])])
            for name, *counts in cells
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def layer_groups(
    model: keras.layers.Layer, patterns: Sequence[tuple[str, str]] | None = None
) -> LayerGroups:
    """Return the layer groups of `model` in order, from the stem to the head.

    Freezing, gradual unfreezing, discriminative learning rates and layer reports all
    use these groups. The function does not change the model.

    One rule fits most networks. Layers come in graph order (in attribute order in a
    subclassed model). The groups are:

    - `"stem"`: all layers with weights before the first numbered block, and the
      embeddings of a decoder after an encoder. A tied embedding is only in this group.
    - One group with the block's name for each numbered block (`transformer_layer_3`,
      `stack2_block1`, `block_16`; in models ported from PyTorch `blocks.0` or
      `layer1.0`). Layers shared by several depths, as in ALBERT, are one group. Layers
      between two blocks, and layers of the backbone after the last block (a
      transition, a final normalization, a pooler), belong to the block before them.
    - `"head"`: all layers after a nested backbone. In a flat model, the head starts
      after the last block, at a global pooling, a `Flatten`, a nested model, or a
      layer with weights that is not a normalization, a convolution or a pooler. A
      backbone alone has no head.
    - `"unused"`, before all other groups: the blocks that no output of the model
      depends on, such as T5's decoder in a classifier on the encoder. These blocks
      get no gradient, so they do not count as depth and are never unfrozen.

    A model with fewer than two numbered blocks gets one group for each layer with
    weights, with the name of the layer. In a subclassed model set these names
    yourself, because the numbers in Keras's default names may differ after loading. If
    such a model starts with a nested model, the nested model is the backbone and the
    layers after it are the `"head"`.

    Args:
        model: A built `keras.Model` or layer.
        patterns: Sequence of pairs (group name, regular expression), stem first, to
            replace the rule. Each expression is searched in the path of each layer
            that owns a weight. A path such as
            `"transformer_layer_0/self_attention/query"` joins the names of the layers
            below `model` down to the owner. Each expression must match at least one
            layer, and each layer must match exactly one expression. Defaults to
            `None`, the rule.

    Returns:
        A `LayerGroups`.

    Example:

    ```python
    backbone = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None
    )
    model = keras.Sequential([backbone, keras.layers.Flatten(), keras.layers.Dense(5)])
    groups = kt.layer_groups(model)
    print(groups)
    groups = kt.layer_groups(model, patterns=[("body", "mobilenet"), ("new", "dense")])
    assert groups.names == ["body", "new"]
    ```

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If the model is not built or has no weights, if a pattern matches
            no layer, if a layer matches no pattern or two patterns, or if two groups
            would have the same name.

    Reference:
        J. Howard and S. Ruder, 2018, "Universal Language Model Fine-tuning for Text
        Classification", arXiv:1801.06146, for training by groups; R. Wightman, 2019,
        PyTorch Image Models (timm), for the rule.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"layer_groups expects a Keras model or layer, not {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to group. "
            "Call the model on a batch, or start a Sequential with a `keras.Input`."
        )
    if not model.weights:
        raise ValueError(
            f"The model {model.name!r} has no weights, so there is nothing to group."
        )
    if patterns is None:
        groups = _unused_first(model, _make_groups(find_groups(model), first_wins=True))
    else:
        matched = match_patterns(find_owners(model), patterns)
        groups = _make_groups(matched, first_wins=False)
    return LayerGroups(model, groups)


def _make_groups(
    groups: list[tuple[str, list[Owner]]], first_wins: bool
) -> list[LayerGroup]:
    """Return the groups. With `first_wins`, the first group gets a shared variable."""
    seen: set[int] = set()
    result = []
    for name, owners in groups:
        seen = seen if first_wins else set()
        layers, variables = [], []
        for owner in owners:
            fresh = [v for v in own_weights(owner.layer) if id(v) not in seen]
            seen.update(map(id, fresh))
            if fresh:
                layers.append(owner.layer)
                variables.extend(fresh)
        if layers:
            result.append(LayerGroup(name, tuple(layers), variables))
    return result


def _unused_first(model: keras.layers.Layer, groups: list[LayerGroup]) -> list:
    """Return the groups, with all groups that no output depends on joined in front."""
    idle = unreached_weights(model)
    unused = [g for g in groups if all(id(v) in idle for v in g.variables)]
    if len(unused) in (0, len(groups)):
        return groups
    joined = LayerGroup(
        UNUSED,
        tuple(layer for group in unused for layer in group.layers),
        [variable for group in unused for variable in group.variables],
    )
    return [joined, *(group for group in groups if group not in unused)]


def _count(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(v.shape) for v in variables)
