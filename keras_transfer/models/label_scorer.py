"""LabelScorer: the likelihood of some tokens of a text under a language model."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_transfer.data.token_lengths import choose_boundaries

LENGTHS = 6  # to which sequences are padded, at most


class Scored(NamedTuple):
    """Token ids, and the places and ids of the tokens whose likelihood is asked.

    For a masked language model, `token_ids` has the mask token at these places.
    """

    token_ids: np.ndarray
    places: np.ndarray
    targets: np.ndarray


class LabelScorer:
    """Compute the mean log-probability of tokens, in nats, without training anything.

    Args:
        task: A `CausalLM` or `MaskedLM` of keras-hub, of which only the inputs and the
            outputs are used.
        masked: Whether it predicts masked tokens, and not the next one.
        pad: Id of the padding token.
    """

    def __init__(self, task: keras.Model, *, masked: bool, pad: int) -> None:
        self.masked = masked
        self.pad = pad
        targets = keras.Input((None,), dtype="int32", name="target_ids")
        weights = keras.Input((None,), dtype="float32", name="target_weights")
        inputs = dict(task.input)
        if masked:
            logits = task.output
        else:
            places = keras.Input((None,), dtype="int32", name="mask_positions")
            inputs["mask_positions"] = places
            before = ops.expand_dims(ops.maximum(places - 1, 0), -1)
            logits = ops.take_along_axis(task.output, before, axis=1)
        logs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        of_targets = ops.take_along_axis(logs, ops.expand_dims(targets, -1), axis=-1)
        total = ops.sum(of_targets[..., 0] * weights, axis=1)
        mean = total / ops.maximum(ops.sum(weights, axis=1), 1.0)
        inputs |= {"target_ids": targets, "target_weights": weights}
        self.model = keras.Model(inputs, mean)

    def __call__(self, rows: list[Scored], batch_size: int) -> np.ndarray:
        """Return the score of each row, a float32 array `(rows,)`."""
        lengths = np.array([len(row.token_ids) for row in rows])
        boundaries = choose_boundaries(lengths, LENGTHS)
        bucket = np.searchsorted(boundaries, lengths)
        most = max(len(row.places) for row in rows)
        found = np.zeros(len(rows), "float32")
        for number in np.unique(bucket):
            chosen = np.flatnonzero(bucket == number)
            x = self._arrays(
                [rows[place] for place in chosen], boundaries[number], most
            )
            scores = self.model.predict(x, batch_size=batch_size, verbose=0)
            found[chosen] = scores
        return found

    def _arrays(self, rows: list[Scored], length: int, most: int) -> dict:
        shape, of_targets = (len(rows), length), (len(rows), most)
        x = {
            "token_ids": np.full(shape, self.pad, "int32"),
            "padding_mask": np.zeros(shape, "int32"),
            "mask_positions": np.zeros(of_targets, "int32"),
            "target_ids": np.zeros(of_targets, "int32"),
            "target_weights": np.zeros(of_targets, "float32"),
        }
        if "segment_ids" in self.model.input:
            x["segment_ids"] = np.zeros(shape, "int32")
        for number, row in enumerate(rows):
            count = len(row.places)
            x["token_ids"][number, : len(row.token_ids)] = row.token_ids
            x["padding_mask"][number, : len(row.token_ids)] = 1
            x["mask_positions"][number, :count] = row.places
            x["target_ids"][number, :count] = row.targets
            x["target_weights"][number, :count] = 1
        return x
