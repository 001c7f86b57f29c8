"""Batches of texts for masked and for causal language modeling."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_transfer.data.buckets import Buckets
from keras_transfer.data.token_masks import TokenMasks

SEGMENTS = "segment_ids"


class PretrainingBatches:
    """Batches `(x, y, sample_weight)` of rows of tokens, of one length in each batch.

    With masks, other tokens are hidden in each pass, by the seed and the number of the
    pass. Without, the label of a token is the token after it.

    Args:
        groups: As from `padded_groups`.
        masks: A `TokenMasks`, or None for causal language modeling.
        batch_size: Rows in a batch.
        seed: Whole number, the seed of the order and of the masks.
        segment_ids: Whether the model takes `segment_ids`, which are 0.
        in_order: Whether the order is that of the groups, as for evaluation.
    """

    def __init__(
        self,
        groups: list[dict[str, np.ndarray]],
        masks: TokenMasks | None,
        batch_size: int,
        seed: int,
        *,
        segment_ids: bool,
        in_order: bool = False,
    ) -> None:
        self.masks = masks
        self.seed = seed
        self.segment_ids = segment_ids
        self.buckets = Buckets(
            [(group,) for group in groups],
            [batch_size] * len(groups),
            None if in_order else seed,
        )

    def __len__(self) -> int:
        return self.buckets.num_batches

    def log_frequencies(self, size: int) -> np.ndarray:
        """Return the logarithm of the share of each token of a vocabulary.

        Each token counts once more than it occurs.
        """
        counts = np.ones(size)
        for (x,) in self.buckets.groups:
            ids = x["token_ids"][x["padding_mask"] > 0]
            counts += np.bincount(ids, minlength=size)
        return np.log(counts / counts.sum()).astype("float32")

    def dataset(
        self, number: Callable[[], int], most: int | None = None
    ) -> tf.data.Dataset:
        """Return the batches, in each pass those of the pass `number()`.

        Args:
            number: Function that returns the number of the pass.
            most: Number of batches after which a pass ends. Defaults to None: all.
        """
        count = len(self) if most is None else min(most, len(self))
        inputs = ["token_ids", "padding_mask"]
        inputs += [SEGMENTS] * self.segment_ids
        inputs += ["mask_positions"] * (self.masks is not None)
        rows = tf.TensorSpec((None, None), tf.int32)
        weights = tf.TensorSpec((None, None), tf.float32)
        signature = (dict.fromkeys(inputs, rows), rows, weights)
        dataset = tf.data.Dataset.from_generator(
            lambda: self._batches(number()), output_signature=signature
        )
        dataset = dataset.take(count)
        known = tf.data.experimental.assert_cardinality(count)
        return dataset.apply(known).prefetch(tf.data.AUTOTUNE)

    def _batches(self, number: int) -> Iterator[tuple]:
        for place, (x,) in enumerate(self.buckets.batches(number)):
            x = dict(x)
            if self.segment_ids:
                x[SEGMENTS] = np.zeros_like(x["token_ids"])
            if self.masks is None:
                yield _next_tokens(x)
                continue
            random = np.random.default_rng((self.seed, number, place))
            hidden = self.masks(x["token_ids"], random)
            x |= {"token_ids": hidden.token_ids, "mask_positions": hidden.positions}
            yield x, hidden.labels, hidden.weights


def _next_tokens(x: dict[str, np.ndarray]) -> tuple:
    """Return a batch whose label of a token is the token after it."""
    y, weights = np.zeros_like(x["token_ids"]), np.zeros(x["token_ids"].shape)
    y[:, :-1] = x["token_ids"][:, 1:]
    weights[:, :-1] = x["padding_mask"][:, 1:]
    return x, y, weights.astype("float32")


def held_out(count: int, seed: int, share: float, most: int) -> np.ndarray:
    """Return the sorted numbers of examples that are held out, at least one."""
    chosen = min(most, max(1, math.floor(share * count)))
    return np.sort(np.random.default_rng(seed).permutation(count)[:chosen])
