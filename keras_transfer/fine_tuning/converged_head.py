"""A new head, trained on cached features until its loss no longer falls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data.epochs import Epochs

MOST_EPOCHS = 200
PATIENCE = 10
HELD_OUT = 0.2
FEW = 20  # examples below which none is held out
EPOCHS_OF_FEW = 50


def converge(
    head: keras.Model,
    arrays: tuple,
    *,
    loss: Any,
    class_weight: Mapping[int, float] | None,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> str:
    """Train a head until the loss of held-out examples stops falling.

    The number of epochs is found with a fifth of the examples held out. The head then
    starts again, and trains for that number of epochs on all examples.

    Args:
        head: A model from features to outputs. Its compiled state changes.
        arrays: Tuple `(features, y)` or `(features, y, sample_weight)`.
        loss: The compiled loss.
        class_weight: Dict from class number to weight, or None.
        batch_size: Examples per batch.
        learning_rate: The learning rate of Adam.
        seed: Seed of the held-out part and of the order of examples.

    Returns:
        A sentence about the training.
    """
    count = len(keras.tree.flatten(arrays)[0])
    start = _keras.snapshot(head.variables)
    fit = dict(verbose=0, class_weight=class_weight, shuffle=False)

    def compiled(train: Epochs) -> keras.Model:
        head.compile(keras.optimizers.Adam(learning_rate), loss, jit_compile=False)
        _keras.remake_functions(head, "train", "test")
        _keras.trace_once(head, train.dataset)
        return head

    epochs = EPOCHS_OF_FEW
    if count >= FEW:
        order = np.random.default_rng(seed).permutation(count)
        held = round(count * HELD_OUT)
        some, rest = (
            keras.tree.map_structure(lambda x, rows=rows: x[rows], arrays)
            for rows in (order[held:], order[:held])
        )
        train, test = Epochs(some, batch_size, seed), Epochs(rest, batch_size, None)
        stop = keras.callbacks.EarlyStopping(patience=PATIENCE)
        losses = (
            compiled(train)
            .fit(
                train.dataset,
                validation_data=test.in_order,
                epochs=MOST_EPOCHS,
                callbacks=[train.clock, stop],
                **fit,
            )
            .history["val_loss"]
        )
        # Where all are NaN, the check of the weights after an epoch says so.
        epochs = int(np.argmin(np.nan_to_num(losses, nan=np.inf))) + 1
        _keras.restore(head.variables, start)
    train = Epochs(arrays, batch_size, seed)
    compiled(train).fit(train.dataset, epochs=epochs, callbacks=[train.clock], **fit)
    return f"{epochs} epochs of Adam({learning_rate:g})"
