"""Helpers for tests of adapter files: small models, their state, edited files."""

import json

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer import adapters
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.in_place.layer_state import recipes_of
from tests.adapters import models


def split(path):
    """Return the header of a safetensors file as a dict, and the bytes after it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(path, header, data):
    """Write a safetensors file with a header (dict or bytes) and the bytes after it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def recipe(path):
    """Return the recipe of an adapter file."""
    return json.loads(split(path)[0]["__metadata__"]["keras_transfer"])


def set_recipe(path, said):
    """Replace the recipe in an adapter file with a dict or text."""
    header, data = split(path)
    text = said if isinstance(said, str) else json.dumps(said)
    header["__metadata__"]["keras_transfer"] = text
    return join(path, header, data)


def state(model):
    """Return everything that a refused file must not change."""
    optimizer = getattr(model, "optimizer", None)
    layers = _keras.flat_layers(model)
    return {
        "values": [_keras.value(v).tobytes() for v in model.variables],
        "trainable": [v.trainable for v in model.weights],
        "flags": _keras.flags(model),
        "layers": [id(layer) for layer in layers],
        "classes": [type(layer) for layer in layers],
        "recipes": list(recipes_of(model)),
        "parts": [(id(host), id(part)) for host, part in all_parts(model)],
        "optimizer": id(optimizer),
        "slots": [
            _keras.value(v).tobytes() for v in getattr(optimizer, "variables", ())
        ],
        "functions": [
            id(getattr(model, f"{kind}_function", None)) for kind in ("train", "test")
        ],
    }


def small(name="small", activation="tanh"):
    """Return a network with the base `wide`, `narrow` and the head `logits`."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation=activation, name="wide")(inputs)
    body = keras.Model(inputs, keras.layers.Dense(4, name="narrow")(x), name="body")
    outputs = keras.layers.Dense(3, name="logits")(body(inputs))
    return keras.Model(inputs, outputs, name=name)


X = np.random.default_rng(1).normal(size=(8, 6)).astype("float32")


def twin(make, model):
    """Return another model of `make` with the base weights of `model`."""
    other = make()
    other.set_weights(model.get_weights())
    return other


def trained(model, recipe=None, name="default"):
    """Attach an adapter and change its weights and its head."""
    (recipe or adapters.LoRA(rank=2, alpha=3)).attach(model, name)
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        value = variable.numpy()
        variable.assign(value + rng.normal(0, 0.3, value.shape))
    return model


def outputs(model, x=None):
    x = models.tokens() if x is None else x
    return [
        keras.ops.convert_to_numpy(y)
        for y in keras.tree.flatten(model(x, training=False))
    ]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


def base_weights(model):
    """Return the weights of `small` without the weights of its adapters."""
    owners = [model.get_layer("body").get_layer("wide")]
    owners += [model.get_layer("body").get_layer("narrow"), model.get_layer("logits")]
    return [layer.get_weights()[i] for layer in owners for i in (0, 1)]


def tensors(path):
    header = split(path)[0]
    header.pop("__metadata__")
    return header
