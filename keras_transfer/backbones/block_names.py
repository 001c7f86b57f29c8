"""The numbered block that a layer belongs to, read from the layer's name."""

import re

# Names of Keras: `stack2_block1_1_conv` -> `stack2_block1`, `encoder_layer_3` -> same.
WORD = r"(?:block|layer|stack|stage|group|unit|module|encoder|decoder)s?[._]*\d+[a-z]?"
WORDED = re.compile(rf"^.*?{WORD}(?:[._]+[a-z]*?{WORD})*(?=[._]|$)")
# What may follow in the name of a whole block: `block_1_0`, `block2a_`.
REST = re.compile(r"(?:_\d+)*_?")

# Names of PyTorch, with a number between dots: `layer1.0.conv1` -> `layer1.0`,
# `stages.0.blocks.1.mlp` -> `stages.0.blocks.1`, but `block.0.layer.1` -> `block.0`,
# because only a plural is the name of a list of blocks.
DOTTED = re.compile(
    r"^(?:\w+\.)*?(?P<word>\w*[a-zA-Z]\w*)\.(?P<numbers>\d+(?:\.\d+)*)(?=\.|$)"
)
INNER = re.compile(r"\.\w*(?:block|layer)s\.\d+(?=\.|$)")
# Lists of layers that are not blocks, but come before, between or after the blocks.
NOT_BLOCKS = re.compile(
    r"embed|stem|head|classifier|logits|fc|pool|down_?sampl|transition|reduction",
    re.IGNORECASE,
)
STAGE = re.compile(r"(?:stage|stack)s?[._]*\d+$|(?:^|[._])layer\d+$|layers\.\d+$")
EMBEDDING = re.compile("embed", re.IGNORECASE)

# Blocks that neither rule finds: (pattern of a layer's name, name of the block).
FAMILIES = (
    (r"^expanded_conv(_\d+)?(?=_)", r"expanded_conv\1"),  # MobileNetV2, V3
    (r"^conv_(?:dw|pw)_(\d+)(?=_|$)", r"block_\1"),  # MobileNet
    (  # NASNet, whose names end with the cell
        r"^(?:adjust|normal|reduction|separable_conv)_.*?_((?:stem_|reduce_)?\d+)$",
        r"cell_\1",
    ),
    (r"^(.*?layer\d+_\d+)(?=_)", r"\1"),  # torchvision's ResNet, without dots
    (r"^(s\d+\.b\d+)(?=\.)", r"\1"),  # timm's RegNet
    (r"^(Mixed_\d[a-z])(?=[._]|$)", r"\1"),  # torchvision's Inception
)


def block_name(name: str, whole: bool = False) -> str | None:
    """Return the name of the numbered block of the layer `name`, or None.

    Args:
        name: Name of a layer.
        whole: Whether the layer has layers below it, so it may be a whole block.
    """
    for pattern, block in FAMILIES:
        match = re.search(pattern, name)
        if match:
            return match.expand(block)
    if whole and name.isdecimal():  # in a list without a name
        return name
    match = DOTTED.match(name)
    if match:
        return _dotted(name, match, whole)
    match = WORDED.search(name)
    if not match or EMBEDDING.search(match.group()):
        return None
    return name.rstrip("_") if REST.fullmatch(name, match.end()) else match.group()


def is_stage(name: str) -> bool:
    """Return whether `name` is the name of a stage, which may contain blocks."""
    return STAGE.search(name) is not None


def _dotted(name: str, match: re.Match, whole: bool) -> str | None:
    if NOT_BLOCKS.search(match.group()):
        return None
    numbers = match["numbers"].split(".")
    inner = INNER.match(name, match.end())
    if inner and len(numbers) == 1:
        return name[: inner.end()]
    if match.end() < len(name) or whole:
        return match.group()
    # This is the name of a single layer: its last number is its place in the block.
    if len(numbers) > 1:
        return match.group().removesuffix(f".{numbers[-1]}")
    return None
