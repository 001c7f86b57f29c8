"""Note in the History of `fit` which layer groups train in each phase."""

import keras

from keras_transfer import _keras
from keras_transfer.callbacks.phases import Phases


def note_phase_groups(phases: Phases) -> None:
    """Set `phase_groups` of the History of the `fit` that calls set_model().

    The attribute is a tuple with one tuple of names for each phase. A group whose
    weights are all fixed is not in it. `kt.report` reads the attribute.
    """
    groups = tuple(phases.training_groups(phase) for phase in phases)
    for callback in _keras.running_callbacks():
        if isinstance(callback, keras.callbacks.History):
            callback.phase_groups = groups
