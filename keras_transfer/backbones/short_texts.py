"""Features of texts, computed without the padding that a preprocessor has added."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from keras_transfer.backbones.stitch import inputs_of

MASK = "padding_mask"
CLOSE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 3e-2}  # by compute dtype


class ShortTexts:
    """Run a network on texts sorted by length, each batch cut to its longest text.

    A network that leaves out padding has the same features at each length. Whether it
    does so is tested: the first batch that is cut is computed in both ways, and if they
    differ, nothing is cut any more. The features come in the order of the texts.

    Args:
        network: The built network. `serves` says whether texts can be cut for it.
        forward: Function that computes the features of a batch.
        powers: Whether lengths are powers of two, so few are compiled, and not as short
            as possible.
    """

    def __init__(
        self, network: keras.Model, forward: Callable, *, powers: bool = False
    ) -> None:
        self.forward = forward
        self.powers = powers
        self.cuts = True
        self.close = CLOSE[network.dtype_policy.compute_dtype]
        self.tested = False

    @staticmethod
    def serves(network: keras.Model, x: object) -> bool:
        """Return whether texts of a batch can be cut for a network.

        All inputs must be rows of tokens of any length, next to a padding mask, and the
        outputs vectors, because outputs of several lengths cannot be joined.
        """
        inputs, outputs = inputs_of(network), getattr(network, "outputs", None)
        if not isinstance(x, dict) or not isinstance(inputs, dict) or MASK not in x:
            return False
        shapes = {np.shape(each) for each in keras.tree.flatten(x)}
        axes = {len(each.shape) == 2 and each.shape[1] for each in inputs.values()}
        return (
            len(shapes) == 1
            and len(shapes.pop()) == 2
            and set(inputs) == set(x)
            and axes == {None}
            and all(len(each.shape) == 2 and each.shape[1] for each in outputs)
            and network.dtype_policy.compute_dtype in CLOSE
        )

    def features(self, batches: list[dict]) -> list:
        """Return the features of each of some batches as arrays.

        Args:
            batches: Dictionaries of arrays `(texts, tokens)`. As many texts are
                computed at once as are in the first batch.
        """
        size = len(batches[0][MASK])
        found = [None] * len(batches)
        widths = np.array([batch[MASK].shape[1] for batch in batches])
        for width in np.unique(widths):
            places = np.flatnonzero(widths == width)
            chosen = [batches[place] for place in places]
            features = self._of_texts(_join(chosen), size)
            ends = np.cumsum([len(batch[MASK]) for batch in chosen])
            for place, start, end in zip(places, [0, *ends], ends, strict=False):
                found[place] = _rows(features, slice(start, end))
        return found

    def _of_texts(self, x: dict, size: int) -> object:
        lengths = _lengths(x[MASK])
        order = np.argsort(lengths, kind="stable")
        parts = []
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = {key: array[rows] for key, array in x.items()}
            parts.append(self._of_batch(batch, self._length(lengths[rows[-1]], x)))
        places = np.argsort(order)
        return _rows(_join(parts), places)

    def _length(self, longest: int, x: dict) -> int:
        if self.powers:
            longest = 2 ** int(np.ceil(np.log2(max(longest, 8))))
        return min(longest, x[MASK].shape[1])

    def _of_batch(self, batch: dict, length: int) -> object:
        if not self.cuts or length == batch[MASK].shape[1]:
            return self.forward(batch)
        cut = self.forward({key: array[:, :length] for key, array in batch.items()})
        if not self.tested:
            self.tested = True
            whole = self.forward(batch)
            if not self._same(cut, whole):
                self.cuts = False
                return whole
        return cut

    def _same(self, cut: object, whole: object) -> bool:
        pairs = zip(keras.tree.flatten(cut), keras.tree.flatten(whole), strict=True)
        arrays = [[_array(each).astype("float32") for each in pair] for pair in pairs]
        return all(
            np.abs(one - other).max() <= self.close * max(1.0, np.abs(other).max())
            for one, other in arrays
        )


def _join(parts: list) -> object:
    return keras.tree.map_structure(
        lambda *each: np.concatenate([_array(x) for x in each]), *parts
    )


def _rows(structure: object, rows: object) -> object:
    return keras.tree.map_structure(lambda x: x[rows], structure)


def _lengths(mask: np.ndarray) -> np.ndarray:
    """Return the number of positions up to the last token; all of an empty row."""
    return mask.shape[1] - (mask[:, ::-1] != 0).argmax(1)


def _array(x: object) -> np.ndarray:
    return x.numpy() if hasattr(x, "numpy") else np.asarray(x)
