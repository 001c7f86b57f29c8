"""Layer groups by patterns of the user's own."""

import re
from collections.abc import Sequence

from keras_transfer.backbones.block_patterns import Owner


def match_patterns(
    owners: list[Owner], patterns: Sequence[tuple[str, str]]
) -> list[tuple[str, list[Owner]]]:
    """Return the owners under the one pattern that each of them matches."""
    hits = [[name for name, p in patterns if re.search(p, o.path)] for o in owners]
    groups = []
    for name, pattern in patterns:
        members = [o for o, names in zip(owners, hits, strict=True) if name in names]
        if not members:
            raise ValueError(
                f"The pattern {pattern!r} of group {name!r} matches no layer with "
                f"weights. The paths are {[owner.path for owner in owners]}."
            )
        groups.append((name, members))
    found = list(zip([owner.path for owner in owners], hits, strict=True))
    uncovered = [path for path, names in found if not names]
    doubly = [f"{path} {names}" for path, names in found if len(names) > 1]
    if uncovered or doubly:
        raise ValueError(
            "Each layer with weights must match exactly one pattern. Matched by none: "
            f"{uncovered}; by several: {doubly}. Add a pattern for the former, narrow "
            "those of the latter."
        )
    return groups
