"""student: a smaller backbone of the same family, with blocks of the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.backbones.block_patterns import find_owners
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import UNUSED

DEPTH = "num_layers"
OTHERS = ("stem", "head", UNUSED)


def student(backbone: keras.Model, keep: Sequence[int]) -> keras.Model:
    """Return a smaller backbone of the same family, whose blocks are the teacher's.

    DistilBERT starts with every second block of BERT, so it needs little training to
    compute about the same. All other layers, such as the embeddings, are copied too.
    The student has the teacher's preprocessing, widths and output names, so it can
    replace the teacher everywhere. Its blocks are numbered from 0 again. Train it with
    `kt.models.StateDistiller`, or as any backbone.

    Args:
        backbone: A backbone of keras-hub with numbered blocks of one shape, such as
            BERT, RoBERTa, DistilBERT, GPT-2, Llama or ViT: with the argument
            `num_layers`, one layer group for each block, and no adapter. It does not
            change.
        keep: The blocks to keep, ints in ascending order without repetition, from 0:
            `[0, 2, 4]` are the first, third and fifth block.

    Returns:
        A new backbone of the same class.

    Raises:
        TypeError: If `backbone` is not a Keras model.
        ValueError: If it has no `num_layers` or another number of blocks, such as
            ALBERT with its shared blocks, or has an adapter; or if `keep` is empty,
            repeats or unorders blocks, or names a block that is not there.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        teacher = keras_hub.models.BertBackbone(
            vocabulary_size=64, num_layers=4, num_heads=2, hidden_dim=16,
            intermediate_dim=32,
        )
        small = kt.models.student(teacher, keep=[0, 2])
        assert small.num_layers == 2
        assert kt.layer_groups(small).names[-1] == "transformer_layer_1"
        ```

    Reference:
        Sanh et al. 2019, DistilBERT, a distilled version of BERT, arXiv:1910.01108.
    """
    blocks = _blocks_of(backbone)
    keep = _checked(keep, len(blocks), backbone.name)
    config = backbone.get_config() | {DEPTH: len(keep)}
    config.pop("name", None)
    small = type(backbone).from_config(config)
    names = dict(zip(_block_names(small), [blocks[each] for each in keep], strict=True))
    sources = {owner.path: owner.layer for owner in find_owners(backbone)}
    pairs = []
    for owner in find_owners(small):
        first, *rest = owner.path.split("/")
        path = "/".join(names.get(part, part) for part in (first, *rest))
        source = sources.get(path)
        ours = _keras.own_weights(owner.layer)
        theirs = [] if source is None else _keras.own_weights(source)
        if [tuple(x.shape) for x in ours] != [tuple(x.shape) for x in theirs]:
            raise ValueError(
                f"The student's layer {owner.path!r} has no layer of the same shapes "
                f"at {path!r} in {backbone.name!r}, so the weights cannot be copied. "
                "Its blocks have different shapes."
            )
        pairs += zip(ours, theirs, strict=True)
    for ours, theirs in pairs:
        ours.assign(theirs)
    return small


def _blocks_of(backbone: object) -> list[str]:
    if not isinstance(backbone, keras.Model):
        raise TypeError(
            f"backbone is a {type(backbone).__name__}, not a Keras model. Pass a "
            "backbone of keras-hub."
        )
    if recipes_of(backbone):
        raise ValueError(
            f"{backbone.name!r} has the adapters {list(recipes_of(backbone))}, which "
            "the student cannot have. Call kt.adapters.merge or kt.adapters.detach "
            "first."
        )
    depth = getattr(backbone, DEPTH, None)
    blocks = _block_names(backbone)
    if not isinstance(depth, int) or depth != len(blocks):
        raise ValueError(
            f"{backbone.name!r}, a {type(backbone).__name__}, has num_layers={depth} "
            f"and {len(blocks)} blocks: {blocks[:3]}. A student needs a backbone of "
            "keras-hub with one block for each of its num_layers."
        )
    return blocks


def _block_names(backbone: keras.Model) -> list[str]:
    return [name for name in layer_groups(backbone).names if name not in OTHERS]


def _checked(keep: object, count: int, name: str) -> list[int]:
    if isinstance(keep, str) or not isinstance(keep, Sequence) or not keep:
        raise ValueError(
            f"keep={keep!r} names no blocks. Pass a list such as [0, 2, 4]."
        )
    places = [
        whole_number("a block of keep", each, 0, most=count - 1, why=f"of {name!r}")
        for each in keep
    ]
    if places != sorted(set(places)):
        raise ValueError(
            f"keep={list(keep)} repeats blocks or is not in ascending order. The "
            "blocks work in the order in which they were trained. Pass "
            f"{sorted(set(places))}."
        )
    return places
