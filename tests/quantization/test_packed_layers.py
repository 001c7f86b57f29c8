"""Packed layers compute as float layers with the decoded weights."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.quantization.packed_layers import PackedLayer
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 8)).astype("float32")
WORDS = np.array([[1, 2, 0], [7, 7, 3]])
LAYERS = {
    "Dense": (lambda: keras.layers.Dense(12, activation="tanh"), X),
    "no bias": (lambda: keras.layers.Dense(12, use_bias=False), X),
    "EinsumDense": (
        lambda: keras.layers.EinsumDense("btc,chd->bthd", (None, 2, 6), bias_axes="hd"),
        X,
    ),
    "two contracted axes": (
        lambda: keras.layers.EinsumDense("bthd,hdc->btc", (None, 4), activation="relu"),
        X.reshape(3, 5, 2, 4),
    ),
    "ellipsis": (lambda: keras.layers.EinsumDense("...c,cd->...d", (12,)), X),
    "Embedding": (lambda: keras.layers.Embedding(9, 8, mask_zero=True), WORDS),
    "ReversibleEmbedding": (
        lambda: keras.layers.ReversibleEmbedding(9, 8, mask_zero=True),
        WORDS,
    ),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def pair(name, double=True):
    """Return a quantized model of one layer, a float one with its weights, inputs."""
    make, x = LAYERS[name]
    models = []
    for _ in range(2):
        models.append(keras.Sequential([keras.Input(x.shape[1:]), make()]))
        for variable in models[-1].weights:
            variable.assign(RNG.normal(size=variable.shape))
    packed, whole = models
    for variable, source in zip(whole.weights, packed.weights, strict=True):
        variable.assign(source)
    kt.quantize(packed, block_size=4, double_quantization=double, verbose=0)
    (layer,) = packed.layers
    name = layer.packed_weight
    getattr(whole.layers[0], f"_{name}").assign(layer.unpacked())
    return packed, whole, x


@each_layer
@pytest.mark.parametrize("double", [True, False])
def test_it_computes_as_the_float_layer_with_the_decoded_weight(name, double):
    packed, whole, x = pair(name, double)
    layer = packed.layers[0]
    assert isinstance(layer, PackedLayer) and layer.quantization_mode == "nf4"
    assert_close(run(packed, x), run(whole, x), atol=1e-5)
    weight = layer.packed_weight
    assert_close(getattr(layer, weight), getattr(whole.layers[0], weight), atol=1e-6)
    codes = layer.packed_variables()["codes"]
    assert codes.dtype == "uint8" and not codes.trainable
    assert 2 * codes.shape[0] * codes.shape[1] == layer.unpacked().size
    assert packed.compute_output_shape(x.shape) == whole.compute_output_shape(x.shape)
    assert not [v for v in layer.trainable_weights if v.name != "bias"]


@pytest.mark.parametrize("name", [x for x in LAYERS if "Embedding" not in x])
def test_the_gradient_of_the_inputs_is_that_of_the_float_layer(name):
    packed, whole, x = pair(name)
    gradients = [
        array(
            _keras.gradient(
                lambda x, model=model: ops.sum(model(x) ** 2), ops.convert_to_tensor(x)
            )
        )
        for model in (packed, whole)
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["Embedding", "ReversibleEmbedding"])
def test_masks_are_kept(name):
    packed, _, x = pair(name)
    assert_close(run(packed, x)._keras_mask, x != 0)


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_a_reversible_embedding(tied, cap):
    made = []
    for _ in range(2):
        layer = keras.layers.ReversibleEmbedding(
            9, 8, tie_weights=tied, logit_soft_cap=cap, name="words"
        )
        ids = keras.Input((3,), dtype="int32")
        made.append(keras.Model(ids, layer(layer(ids), reverse=True)))
    packed, whole = made
    packed.set_weights([RNG.normal(size=v.shape) for v in packed.weights])
    whole.set_weights(packed.get_weights())
    kt.quantize(packed, block_size=4, verbose=0)
    layer = packed.get_layer("words")
    whole.get_layer("words")._embeddings.assign(layer.unpacked())
    assert_close(run(packed, WORDS), run(whole, WORDS), atol=1e-5)
    hidden = ops.convert_to_tensor(X)
    gradients = [
        array(
            _keras.gradient(
                lambda x, m=m: ops.sum(m.get_layer("words")(x, reverse=True) ** 2),
                hidden,
            )
        )
        for m in made
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


@each_layer
def test_mixed_precision(name):
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        packed, whole, x = pair(name)
    finally:
        keras.config.set_dtype_policy(with_policy)
    y = run(packed, x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    floats = {v.dtype for v in packed.layers[0].packed_variables().values()}
    assert floats == {"uint8", "float32"}
    right = array(ops.cast(run(whole, x), "float32"))
    scale = np.abs(right).max()
    np.testing.assert_allclose(array(ops.cast(y, "float32")), right, atol=0.03 * scale)


def test_rematerialization_gives_the_same_gradients():
    gradients = []
    for mode in (None, "full"):
        keras.utils.set_random_seed(0)
        with keras.RematScope(mode):
            model = keras.Sequential(
                [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(8)]
            )
        kt.quantize(model, block_size=4, verbose=0)
        x = ops.convert_to_tensor(X[:, 0])
        gradients.append(
            array(_keras.gradient(lambda x, m=model: ops.sum(m(x) ** 2), x))
        )
    np.testing.assert_allclose(*gradients, rtol=1e-6)


def test_an_overridden_call_is_left_alone():
    class Double(keras.layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((8,)), Double(8), keras.layers.Dense(8)])
    kt.quantize(model, block_size=4, verbose=0)
    assert [isinstance(x, PackedLayer) for x in model.layers] == [False, True]
