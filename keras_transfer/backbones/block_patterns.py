"""Find the stem, the numbered blocks and the head of a network."""

import re
from dataclasses import dataclass
from dataclasses import field

from keras import Layer
from keras import layers
from keras import Model

from keras_transfer._keras import own_weights
from keras_transfer._keras import sublayers
from keras_transfer.backbones.block_names import block_name
from keras_transfer.backbones.block_names import EMBEDDING
from keras_transfer.backbones.block_names import is_stage
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.backbones.layer_paths import walk

# Names and classes of layers that end a backbone and do not start a head.
POOLER = re.compile("pooled|pooler", re.IGNORECASE)
FINISH = re.compile("norm|conv", re.IGNORECASE)

# Modules whose layers have no block names. The last layer of a module identifies it:
# (pattern of the module's name in the name of this layer, last layer of the stem).
JOINTS = (
    (r"^(mixed\d+)$", r"^max_pooling2d"),  # InceptionV3
    (  # InceptionResNetV2
        r"^(mixed_\d[a-z]|block\d+_\d+)(?:_conv)?$",
        r"^max_pooling2d",
    ),
)

# Layers that turn a feature map into a vector, which ends a flat backbone.
COLLAPSE = (
    layers.Flatten,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)

# Labels for a child of a container that does not belong to a block.
STEM = object()
CONTAINER = object()


@dataclass(frozen=True)
class Owner:
    """A layer that owns weights directly, and its path below the model."""

    layer: Layer
    path: str


@dataclass
class Parts:
    """The stem, blocks and head of a container with numbered blocks."""

    stem: list[Owner] = field(default_factory=list)
    blocks: dict[str, list[Owner]] = field(default_factory=dict)
    head: list[Owner] = field(default_factory=list)
    holds_model: bool = False

    @property
    def last(self) -> list[Owner]:
        """The last block so far, or the stem if there is no block."""
        return next(reversed(self.blocks.values()), self.stem)

    def absorb(self, inner: "Parts", name: str) -> None:
        """Add the parts of the child `name`."""
        stage = is_stage(name)
        (self.last if stage else self.stem).extend(inner.stem)
        for block, owners in inner.blocks.items():
            again = block in self.blocks or stage and not block.startswith(name)
            self.blocks[joined(name, block) if again else block] = owners
        self.head += inner.head
        self.holds_model = self.holds_model or inner.holds_model


def find_owners(model: Layer) -> list[Owner]:
    """Return the layers of `model` that own weights directly, in model order."""
    seen: set[int] = set()
    owners = _itself(model, "", seen)
    return owners + [o for c in _children(model) for o in _owners(c, "", seen)]


def find_groups(model: Layer) -> list[tuple[str, list[Owner]]]:
    """Return `(name, owners)` of each group of `model`, stem first."""
    if _has_blocks(model):
        parts = _parts(model, "", set())
        groups = [("stem", parts.stem), *parts.blocks.items(), ("head", parts.head)]
    else:
        groups = _one_per_layer(model)
    return [(name, owners) for name, owners in groups if owners]


def _parts(
    container: Layer, path: str, seen: set[int], complete: bool = False
) -> Parts:
    """Return the parts of a container with numbered blocks.

    A `complete` container is a backbone or is in a backbone, so it has no head.
    """
    complete = complete or _is_backbone(container)
    parts = Parts(stem=_itself(container, path, seen))
    parts.holds_model = isinstance(container, Model)
    labels = _labels(container, complete)
    # Backbones come first: they own a layer that the head shares (a tied embedding).
    inner = {
        id(child): _parts(child, joined(path, child.name), seen, complete)
        for child in _children(container)
        if labels[id(child)] is CONTAINER
    }
    loose = []  # children since the last block
    after_model = False
    for child in _children(container):
        label = labels[id(child)]
        owners = [] if label is CONTAINER else _owners(child, path, seen)
        if label is None or label is STEM:
            loose.append((child, owners))
        elif owners or label is CONTAINER:
            for between, between_owners in loose:
                embeds = labels[id(between)] is STEM
                (parts.stem if embeds else parts.last).extend(between_owners)
            loose = []
            if label is CONTAINER:
                parts.absorb(inner[id(child)], child.name)
            else:
                parts.blocks.setdefault(label, []).extend(owners)
            after_model = label is CONTAINER and inner[id(child)].holds_model
    in_head = after_model or bool(parts.head)
    for child, owners in loose:
        in_head = not complete and (in_head or _starts_head(child))
        (parts.head if in_head else parts.last).extend(owners)
    return parts


def _labels(container: Layer, complete: bool = False) -> dict[int, object]:
    """Return the label of each child by id: a block's name, STEM, CONTAINER or None."""
    children = _children(container)
    labels = _labels_by_joints(children)
    if labels:
        return labels
    names = {}
    for child in children:
        name = block_name(child.name, bool(sublayers(child)))
        # A child with the number of its parent in its name is not a block in a series.
        if child.weights and not (name and container.name.startswith(name)):
            names[child.name] = name
    blocks = {name for name in names.values() if name}
    bases = {re.sub(r"_\d+$", "", name) for name in blocks}
    for child in children:
        name = names.get(child.name)
        # Keras numbers `my_block`, `my_block_1`, `my_block_2`: the first has no number.
        if child.name in bases and f"{child.name}_1" in names:
            name = child.name
        stage = name == child.name and is_stage(name)
        only_block = len(blocks) == 1 and not is_stage(container.name)
        may_hold_blocks = not name or only_block or isinstance(child, Model)
        if (may_hold_blocks or stage) and _has_blocks(child, complete or stage):
            labels[id(child)] = CONTAINER
        elif not name and EMBEDDING.search(child.name):
            labels[id(child)] = STEM
        else:
            labels[id(child)] = name
    return labels


def _labels_by_joints(children: list[Layer]) -> dict[int, object]:
    """Return labels by position between the last layers of modules, or {}."""
    for pattern, stem_end in JOINTS:
        matches = {i: re.search(pattern, c.name) for i, c in enumerate(children)}
        ends = {i: match.group(1) for i, match in matches.items() if match}
        if len(ends) < 2:
            continue
        first = [re.search(stem_end, c.name) for c in children[: min(ends)]]
        start = max((i + 1 for i, match in enumerate(first) if match), default=0)
        labels = {id(c): STEM for c in children[:start]}
        for end, name in ends.items():
            labels |= {id(c): name for c in children[start : end + 1]}
            start = end + 1
        return labels | {id(c): None for c in children[start:]}
    return {}


def _has_blocks(layer: Layer, complete: bool = False) -> bool:
    """Return whether there are numbered blocks in or below `layer`.

    At least two blocks are necessary, or one block if `layer` is a backbone.
    """
    complete = complete or _is_backbone(layer)
    labels = list(_labels(layer, complete).values())
    blocks = {label for label in labels if isinstance(label, str)}
    return CONTAINER in labels or len(blocks) >= (1 if complete else 2)


def _is_backbone(layer: Layer) -> bool:
    """Return whether `layer` is a keras-hub or keras-cv backbone, or part of one."""
    names = {base.__name__ for base in type(layer).__mro__}
    return not names.isdisjoint(("Backbone", "BackbonePart"))


def _is_model(layer: Layer) -> bool:
    """Return whether `layer` is a model or wraps a model, as FrozenBackbone does."""
    while isinstance(layer, layers.Wrapper):
        layer = layer.layer
    return isinstance(layer, Model)


def _starts_head(layer: Layer) -> bool:
    """Return whether `layer`, after the last block of a flat model, starts the head."""
    if isinstance(layer, COLLAPSE):
        return True
    if not layer.weights or POOLER.search(layer.name):
        return False
    return not FINISH.search(type(layer).__name__)


def _one_per_layer(model: Layer) -> list[tuple[str, list[Owner]]]:
    """Return a group per layer with weights, or the groups of a first nested model."""
    units = [c for c in _children(model) if c.weights]
    scaling = [isinstance(c, layers.Normalization) for c in units]
    first = scaling.index(False) if False in scaling else 0
    seen: set[int] = set()
    if units and _is_model(units[first]):
        backbone = _opened(units[first], units[first].name, seen)
        before = _itself(model, "", seen)
        before += [o for c in units[:first] for o in _owners(c, "", seen)]
        after = [o for c in units[first + 1 :] for o in _owners(c, "", seen)]
        groups = [("stem", before), *backbone, ("head", after)]
    else:
        groups = _opened(model, "", seen)
    named: dict[str, list[Owner]] = {}
    for name, owners in groups:
        if owners:
            named[owners[0].path if name in named else name] = owners
    return list(named.items())


def _opened(
    container: Layer, path: str, seen: set[int]
) -> list[tuple[str, list[Owner]]]:
    """Return a group per layer in `container` and in its nested models."""
    groups = [(container.name, _itself(container, path, seen))]
    for child in _children(container):
        if _is_model(child):
            groups += _opened(child, joined(path, child.name), seen)
        else:
            groups.append((child.name, _owners(child, path, seen)))
    return groups


def _children(layer: Layer) -> list[Layer]:
    """Return each direct child once, the children of a functional in graph order.

    Layers that a functional model has only as attributes come last, if they have
    weights that are not in the graph.
    """
    if not isinstance(layer, Model):
        return list({id(child): child for child in sublayers(layer)}.values())
    in_graph = {id(weight) for child in layer.layers for weight in child.weights}
    hidden = [
        child
        for child in sublayers(layer)
        if any(id(weight) not in in_graph for weight in child.weights)
    ]
    return [*layer.layers, *hidden]


def _owners(layer: Layer, parent: str, seen: set[int]) -> list[Owner]:
    """Return the owners in and below `layer` that are not in `seen`, and add them."""
    layers = walk(layer, joined(parent, layer.name), seen, _children)
    return [Owner(owner, path) for path, owner in layers if own_weights(owner)]


def _itself(layer: Layer, path: str, seen: set[int]) -> list[Owner]:
    """Return `layer` in a list if it owns weights directly, and add it to `seen`."""
    new = id(layer) not in seen
    seen.add(id(layer))
    return [Owner(layer, path or layer.name)] if new and own_weights(layer) else []
