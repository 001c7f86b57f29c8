"""A process that ends in the middle of a training."""

import keras


class Killed(BaseException):
    """The end of the process."""


class Kill(keras.callbacks.Callback):
    """Raise `Killed` in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch == self.at

    def on_train_batch_end(self, batch, logs=None):
        if self.now:
            raise Killed
