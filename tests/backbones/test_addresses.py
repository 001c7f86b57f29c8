"""Addresses are equal for each build of a model, for any names of its layers."""

import keras
import pytest

from keras_transfer.backbones.addresses import addressed
from keras_transfer.backbones.addresses import addressed_weights


class Block(keras.layers.Layer):
    """A layer with children in attributes, a list and a dict, and unnamed weights."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(4)
        self.several = [keras.layers.Dense(4), keras.layers.ReLU()]
        self.by_key = {"a": keras.layers.Dense(4)}
        self.again = self.first
        self.second = keras.layers.Dense(4, name=f"{self.name}_second")
        self.scale = self.add_weight(shape=(4,), initializer="ones")
        self.shift = self.add_weight(shape=(4,), initializer="zeros")

    def call(self, inputs):
        x = self.by_key["a"](self.several[1](self.several[0](self.first(inputs))))
        return self.second(x) * self.scale + self.shift


def graph():
    """Return a functional model of two blocks and a Sequential."""
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    return keras.Model(inputs, inner(Block()(Block()(inputs))))


def test_addresses_use_attributes_and_graph_order():
    places = addressed(graph())
    assert {
        "layers/block",
        "layers/block/again",  # the first of two attributes by name
        "layers/block/several/0",
        "layers/block/several/1",
        "layers/block/by_key/a",
        "layers/block_1/second",
        "layers/sequential/layers/dense",
    } <= places.keys()
    assert "layers/block/first" not in places
    assert len({id(layer) for layer in places.values()}) == len(places)


def test_a_second_build_has_the_same_addresses():
    first, second = addressed(graph()), addressed(graph())
    assert first.keys() == second.keys()
    for place, layer in first.items():
        assert type(layer) is type(second[place])
        assert (
            addressed_weights(layer).keys() == addressed_weights(second[place]).keys()
        )
    assert list(addressed_weights(second["layers/block"])) == ["variable", "variable_1"]
    assert second["layers/block"].scale.name != "variable"


def test_replacing_a_layer_keeps_the_other_addresses():
    block = Block()
    before = addressed(block)
    block.second = keras.layers.Dense(4)
    after = addressed(block)
    assert after["second"] is block.second
    assert all(after[place] is before[place] for place in before if place != "second")


@pytest.mark.parametrize("name", ["layers", "name", "a/b"])
def test_any_key_of_a_dict_has_an_address(name):
    block = Block()
    block.by_key = {name: keras.layers.Dense(4), "b": keras.layers.Dense(4)}
    assert addressed(block)[f"by_key/{name}"] is block.by_key[name]
