"""Layer groups by user-defined patterns."""

import re
from collections.abc import Sequence

from keras_transfer.backbones.block_patterns import Owner


def match_patterns(
    owners: list[Owner], patterns: Sequence[tuple[str, str]]
) -> list[tuple[str, list[Owner]]]:
    """Return the groups: for each pattern, its name and the owners that match it."""
    hits = [[name for name, p in patterns if re.search(p, o.path)] for o in owners]
    groups = []
    for name, pattern in patterns:
        members = [o for o, names in zip(owners, hits, strict=True) if name in names]
        if not members:
            raise ValueError(
                f"The pattern {pattern!r} of group {name!r} matches no layer with "
                "weights. Change it to match one of these paths: "
                f"{[owner.path for owner in owners]}."
            )
        groups.append((name, members))
    matches = list(zip([owner.path for owner in owners], hits, strict=True))
    unmatched = [path for path, names in matches if not names]
    repeated = [f"{path} {names}" for path, names in matches if len(names) > 1]
    if unmatched or repeated:
        raise ValueError(
            "Each layer with weights must match exactly one pattern. Layers that match "
            f"no pattern: {unmatched}. Layers that match several: {repeated}. Add a "
            "pattern for the first list, and make the patterns of the second narrower."
        )
    return groups
