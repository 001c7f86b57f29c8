"""The History of `fit` names the groups that train in each phase."""

import keras
import numpy as np

import keras_transfer as kt
from tests import tiny


def fitted(model, callbacks=(), **kwargs):
    model.compile("sgd", "mse", jit_compile=False)
    unfreezing = kt.callbacks.GradualUnfreezing(model, **kwargs)
    x, y = np.ones((4, 8, 8, 3)), np.ones((4, 3))
    callbacks = [*callbacks, unfreezing]
    return model.fit(x, y, epochs=2, callbacks=callbacks, verbose=0)


def test_the_history_names_the_groups_of_all_phases():
    phases = [("logits", 1), (["hidden", "logits"], 3), ("conv", None)]
    history = fitted(tiny.convnet(), phases=phases)
    assert history.phase_groups == (("logits",), ("hidden", "logits"), ("conv",))
    assert history.history["phase"] == [0, 1]


def test_groups_whose_weights_are_all_fixed_are_left_out():
    phases = [(["norm", "logits"], None)]
    history = fitted(tiny.convnet(), phases=phases)
    assert history.phase_groups == (("logits",),)
    history = fitted(tiny.convnet(), phases=phases, batch_norm="train")
    assert history.phase_groups == (("norm", "logits"),)


def test_a_history_of_the_user_gets_the_groups():
    history = keras.callbacks.History()
    assert fitted(tiny.convnet(), [history]) is history
    assert history.phase_groups[0] == ("logits",)
