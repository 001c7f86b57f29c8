"""NeverTrained: for models with weights that never train, whatever their flags say."""

from __future__ import annotations

import keras


class NeverTrained:
    """Mixin for a model, before its other base, that trains only some of its weights.

    Keras reads the properties before `__init__` has ended, too.
    """

    def learned(self, variables: list[keras.Variable]) -> list[keras.Variable]:
        """Return the variables that train, of those whose flags say so."""
        raise NotImplementedError

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables that train."""
        return self.learned(super().trainable_variables)

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights that train."""
        return self.learned(super().trainable_weights)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All variables except `trainable_variables`."""
        return _others(self.variables, self.trainable_variables)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All weights except `trainable_weights`."""
        return _others(self.weights, self.trainable_weights)


def _others(variables: list, excluded: list) -> list[keras.Variable]:
    known = {id(variable) for variable in excluded}
    return [variable for variable in variables if id(variable) not in known]
