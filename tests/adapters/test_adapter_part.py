"""Parts of adapters: which weights they may make."""

import keras
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part


class Undeclared(Part):
    """A part that makes its weight by itself alone."""

    def create_weights(self, host):
        self.offset = self.weight("offset", (host.units,), "zeros")


class Declared(Undeclared):
    """One that names it as well."""

    def weight_specs(self, host):
        return {"offset": ((host.units,), "zeros")}


class OfAnotherShape(Undeclared):
    """One that names it with another shape."""

    def weight_specs(self, host):
        return {"offset": ((host.units, 1), "zeros")}


def recipe_of(kind):
    class Offset(Adapter):
        parts = {keras.layers.Dense: kind}

        def part(self, target):
            return kind()

    return Offset("dense")


@pytest.mark.parametrize("kind", [Undeclared, OfAnotherShape])
def test_weights_that_are_not_declared_are_refused(kind):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"\{'offset': \(3,\)\}.*weight_specs"):
        recipe_of(kind).attach(model)
    assert adapters.attached(model) == {}


def test_declared_ones_may_be_made_by_the_part():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    recipe_of(Declared).attach(model)
    assert [v.name for v in model.trainable_weights] == ["offset"]
