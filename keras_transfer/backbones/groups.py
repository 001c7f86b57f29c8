"""The ordered list, stem first and head last, of what a model is made of."""

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

# The group of what the outputs do not depend on.
UNUSED = "unused"


@dataclass(frozen=True, eq=False, repr=False)
class LayerGroup:
    """One step of a model between stem and head: some layers and their weights.

    Args:
        name: String, unique among the groups of a model.
        layers: Tuple of the layers that own a weight themselves, in model order.
            A composite such as a `MultiHeadAttention` is listed only if it holds
            a weight of its own beside those of its children.
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
        """Return those of the variables that train at this moment."""
        return [v for v in self.variables if v.trainable]

    @property
    def num_parameters(self) -> int:
        """Return the number of scalars in all variables of the group."""
        return _count(self.variables)

    def __repr__(self) -> str:
        return f"LayerGroup({self.name!r}, {len(self.layers)} layers)"


class LayerGroups(Sequence):
    """The groups of a model in order, each weight in exactly one of them.

    A read-only sequence: `groups[0]` is next to the input, `groups[-1]` next to the
    output, `groups["head"]` finds a group by its name and `print(groups)` shows a
    table. The groups are a snapshot: ask again after layers were added. What is
    counted as trainable is read from the model's flags at the time of printing.

    Args:
        model: The model or layer that the groups were made from.
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
                    f"Two groups are named {name!r}, so the name cannot address "
                    "either. Give each group a name of its own."
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
                f"{missing}; in two groups: {twice}. Give `patterns` that cover "
                "each layer once."
            )

    @property
    def names(self) -> list[str]:
        """Return the names of the groups, stem first."""
        return [group.name for group in self._groups]

    def position(self, variable: keras.Variable) -> int:
        """Return the index of the group that holds `variable`, found by identity.

        Args:
            variable: A `keras.Variable` of the model, the very object.

        Raises:
            ValueError: If no group holds it.
        """
        if id(variable) not in self._positions:
            path = getattr(variable, "path", repr(variable))
            raise ValueError(
                f"The variable {path!r} is in no group of the model "
                f"{self.model.name!r}. Was it added after `layer_groups` was called, "
                "or does it belong to another model? Call `layer_groups` again."
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
                f"No group is named {key!r}. {hint}The groups are {self.names}."
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
    """Return what `model` is made of, ordered from the stem to the head.

    Freezing, gradual unfreezing, discriminative learning rates and layer reports all
    speak of a model in these groups. The model is only read.

    One rule serves most networks. Layers are taken in graph order (attribute order
    in a subclassed model), and

    - `"stem"` is all that has weights before the first numbered block, and the
      embeddings of a decoder behind an encoder; a tied embedding is here only;
    - each numbered block (`transformer_layer_3`, `stack2_block1`, `block_16`; in
      models ported from PyTorch `blocks.0` or `layer1.0`) is a group of that name;
      layers shared by several depths, as in ALBERT, are one group;
    - what stands between two blocks, or after the last one but still in the
      backbone (a transition, a final normalization, a pooler), joins the block
      before it;
    - `"unused"`, in front of all, is the blocks that no output of the model depends
      on, such as T5's decoder in a classifier that reads the encoder: no gradient
      reaches them, so they neither count as depth nor are thawed;
    - `"head"` is all that follows a nested backbone. In a flat model it begins after
      the last block with global pooling, `Flatten`, a nested model, or weights that
      are no normalization, convolution or pooler. A backbone alone has none.

    A model with fewer than two numbered blocks gets one group per layer with
    weights, named as the layer (in a subclassed model name them yourself: numbers
    that Keras gives may differ after reload). If such a model starts with a nested
    model, that one is taken for the backbone and what follows for the `"head"`.

    Args:
        model: A built `keras.Model` or layer.
        patterns: Sequence of `(group name, regular expression)`, stem first, that
            replaces the rule. Each expression is searched in the path of each layer
            that owns a weight, such as `"transformer_layer_0/self_attention/query"`:
            the names of the layers from `model` (not included) down to the owner.
            It must match at least one, and each owner must match exactly one.

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
        ValueError: If the model is not built or has no weights; if a pattern matches
            nothing, or a layer is matched by no pattern or by two; if two groups
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
            "Call it once on a batch, or give a Sequential a `keras.Input`."
        )
    if not model.weights:
        raise ValueError(
            f"The model {model.name!r} has no weights, so there is nothing to group."
        )
    if patterns is None:
        groups = _unused_first(model, _made(find_groups(model), first_wins=True))
    else:
        matched = match_patterns(find_owners(model), patterns)
        groups = _made(matched, first_wins=False)
    return LayerGroups(model, groups)


def _made(groups: list[tuple[str, list[Owner]]], first_wins: bool) -> list[LayerGroup]:
    """Return the groups; a variable that two layers share may go to the first."""
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
    """Return the groups; those that no output depends on as one, in front."""
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
