"""hold_out_classes: a split by class, so a test has only classes without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer.data.episodes import checked_examples
from keras_transfer.data.labels import listed


class HeldOutClasses(NamedTuple):
    """Examples `(x, y)` of the classes for training, and of the held-out classes."""

    rest: tuple
    held_out: tuple


def hold_out_classes(x: Any, y: Any, classes: Sequence) -> HeldOutClasses:
    """Split examples by their class: those of `classes`, and all others.

    Few-shot learning is measured with classes that the model has never seen. If the
    classes belong together, such as characters of one alphabet, hold out whole groups:
    other characters of the alphabet in training make the test easier.

    Args:
        x: Array of examples, or a structure of arrays.
        y: Array of class names or whole numbers, one for each example.
        classes: The names or numbers of the classes to hold out.

    Returns:
        A named tuple `(rest, held_out)` of pairs `(x, y)`, in the order of the data.

    Raises:
        ValueError: If a class is not in y or is named twice, or no class is left.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        x, y = np.arange(6), np.array(["cat", "dog", "owl"] * 2)
        rest, held_out = kt.data.hold_out_classes(x, y, ["owl"])
        assert held_out[0].tolist() == [2, 5]
        assert rest[1].tolist() == ["cat", "dog", "cat", "dog"]
        ```

    Reference:
        Lake et al., 2015, "Human-level concept learning through probabilistic program
        induction" (background and evaluation alphabets); no arXiv number.
    """
    x, found = checked_examples(x, y)
    if isinstance(classes, str | bytes):
        classes = [classes]
    wanted = np.asarray(list(classes))
    known = np.unique(found)
    unknown = [each for each in wanted.tolist() if each not in known.tolist()]
    if unknown or len(np.unique(wanted)) < len(wanted):
        raise ValueError(
            f"classes={wanted.tolist()} must be different classes of y, which are "
            f"{listed(known)}."
        )
    held = np.isin(found, wanted)
    if held.all() or not held.any():
        raise ValueError(
            f"classes={wanted.tolist()} are {'all' if held.any() else 'none'} of the "
            f"{len(known)} classes of y, so one part would be empty. Hold out some of "
            "them."
        )

    def part(rows: np.ndarray) -> tuple:
        return keras.tree.map_structure(lambda a: a[rows], x), np.asarray(y)[rows]

    return HeldOutClasses(part(~held), part(held))
