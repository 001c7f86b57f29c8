"""A training whose weights become NaN ends with an error."""

from __future__ import annotations

import keras
from keras import ops


class StaysFinite(keras.callbacks.Callback):
    """End a training with an error once weights of the model are not finite.

    A dataset is not read before. With TerminateOnNaN it is for the user to judge.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look at the weights that learn."""
        wrong = [
            variable.path
            for variable in self.model.trainable_variables
            if not bool(ops.all(ops.isfinite(ops.convert_to_tensor(variable))))
        ]
        if wrong:
            raise ValueError(
                f"In epoch {epoch} {len(wrong)} weights of the model became NaN or "
                f"infinite, such as {wrong[0]!r}. Look for features or labels that are "
                "NaN or infinite, or take a smaller learning rate: "
                "kt.find_learning_rate suggests one."
            )
