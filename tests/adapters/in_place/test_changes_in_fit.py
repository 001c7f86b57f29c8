"""A callback changes the adapters during `fit`, and the right weights train."""

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.callbacks import GradualUnfreezing
from keras_transfer.callbacks import Phase
from keras_transfer.optimizers import discriminative
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.arange(8) % 3
LORA = adapters.LoRA(rank=2, targets="dense_0")


def merge_and_unmerge(model):
    adapters.merge(model)
    adapters.unmerge(model)


def evaluate_another(model):
    adapters.use(model, "first")
    model.evaluate(X, Y, verbose=0)
    adapters.use(model, "second")


# Name of the change -> (epoch at whose beginning it happens, adapters, change).
CHANGES = {
    "attach": (0, (), lambda model: LORA.attach(model)),
    "use": (0, ("first", "second"), lambda model: adapters.use(model, "first")),
    "evaluate": (1, ("first", "second"), evaluate_another),
    "remove": (1, ("first", "second"), lambda model: adapters.remove(model, "first")),
    "unmerge": (1, ("first",), merge_and_unmerge),
    "merge": (1, ("first",), adapters.merge),
    "detach": (1, ("first",), adapters.detach),
}


class Change(keras.callbacks.Callback):
    """Call `act` once, and keep the weights after it."""

    def __init__(self, epoch, act):
        super().__init__()
        self.epoch, self.act = epoch, act

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.act(self.model)
            self.after = {id(v): array(v) for v in self.model.weights}


def compiled(model, optimizer=None):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.1), loss, jit_compile=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_the_trainable_weights_train_after_the_change(change):
    epoch, names, act = CHANGES[change]
    model = compiled(tiny.mlp())
    for name in names:
        LORA.attach(model, name)
    callback = Change(epoch, act)
    more = dict(validation_data=(X, Y), callbacks=[callback])
    model.fit(X, Y, epochs=3, batch_size=4, verbose=0, **more)
    moved = {
        id(v)
        for v in model.weights
        if np.abs(array(v) - callback.after[id(v)]).max() > 0
    }
    assert moved == {id(v) for v in model.trainable_weights}
    assert_close(model.predict(X, verbose=0), run(model, X), 1e-5)


class Noting(keras.callbacks.Callback):
    """Record the train function of each epoch, and retrace at one epoch."""

    def __init__(self, change_at):
        super().__init__()
        self.change_at, self.functions = change_at, []

    def on_epoch_begin(self, epoch, logs=None):
        self.functions.append(self.model.train_function)
        if epoch == self.change_at:
            adapters.refresh(self.model)


@pytest.mark.parametrize("epoch, kept", [(None, True), (1, False)])
def test_gradual_unfreezing_drops_functions_from_before_a_change(epoch, kept):
    model = tiny.mlp()
    compiled(model, discriminative(keras.optimizers.SGD(0.1), model))
    phases = [Phase("dense_2", 1), Phase(["dense_1", "dense_2"], 1), Phase("dense_2")]
    noting = Noting(epoch)
    callbacks = [GradualUnfreezing(model, phases=phases), noting]
    model.fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)
    assert (noting.functions[0] is noting.functions[2]) == kept
