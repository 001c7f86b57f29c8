"""A backbone that ends in class scores gives a warning."""

import warnings

import keras
import pytest
from keras import layers

from keras_transfer.backbones import FrozenBackbone
from keras_transfer.models import TransferClassifier
from tests import tiny


def network(**top):
    return keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=7, **top
    )


def headed(*head):
    """Return a network that ends in these layers."""
    inputs = keras.Input((4,))
    x = layers.Dense(5, activation="relu", name="hidden")(inputs)
    for layer in head:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "activation, wrap", [("softmax", FrozenBackbone), (None, lambda x: x)]
)
def test_a_network_with_its_top(activation, wrap):
    backbone = network(classifier_activation=activation)
    with pytest.warns(UserWarning, match="7 class scores.*include_top=False"):
        TransferClassifier(wrap(backbone), 3)


@pytest.mark.parametrize(
    "head",
    [
        [layers.Dense(3, activation="softmax")],
        [layers.Dense(3, activation="sigmoid")],
        [layers.Dense(3), layers.Softmax()],
        [layers.Dense(3), layers.Activation("softmax"), layers.Reshape((3,))],
        [layers.Dense(3, name="image_classifier")],
    ],
)
def test_other_networks_that_end_in_scores(head):
    with pytest.warns(UserWarning, match=r"get_layer\('hidden'\)\.output"):
        TransferClassifier(headed(*head), 2)


@pytest.mark.slow
def test_the_suggested_model_gives_no_warning():
    backbone = network()
    below = keras.Model(
        backbone.input, backbone.get_layer("global_average_pooling2d").output
    )
    with pytest.warns(UserWarning, match="'global_average_pooling2d'"):
        TransferClassifier(backbone, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransferClassifier(below, 3)


@pytest.mark.parametrize(
    "make",
    [
        tiny.mlp,
        lambda: tiny.bert(num_layers=1),
        lambda: network(include_top=False, pooling="avg"),
        lambda: headed(layers.Dense(3), layers.Activation("relu")),
        lambda: headed(layers.Dense(3, activation="tanh")),
    ],
)
def test_features_give_no_warning(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransferClassifier(make(), 3)


def test_the_suggestion_names_only_existing_layers():
    inputs = keras.Input((4, 3))
    after_function = keras.layers.Dense(2, "softmax")(keras.ops.mean(inputs, axis=1))
    at_once = [keras.Input((4,)), keras.layers.Dense(2, "softmax")]
    for network in (keras.Model(inputs, after_function), keras.Sequential(at_once)):
        with pytest.warns(UserWarning, match="or a keras.Model that ends in the feat"):
            TransferClassifier(network, 2)
