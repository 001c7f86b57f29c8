"""A callback that stops a training with an error if weights become NaN."""

from __future__ import annotations

import keras
from keras import ops


class StaysFinite(keras.callbacks.Callback):
    """Stop a training with an error when weights of the model are not finite.

    A dataset is not checked before training, so NaN in it shows up here. If the user
    passes TerminateOnNaN, fine_tune does not add this callback.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Check the trainable weights."""
        wrong = [
            variable.path
            for variable in self.model.trainable_variables
            if not bool(ops.all(ops.isfinite(ops.convert_to_tensor(variable))))
        ]
        if wrong:
            raise ValueError(
                f"In epoch {epoch}, {len(wrong)} weights of the model became NaN or "
                f"infinite, such as {wrong[0]!r}. Check the data for features or "
                "labels that are NaN or infinite, or use a smaller learning rate. "
                "kt.find_learning_rate suggests a learning rate."
            )
