"""Traced functions compute as the model does now, even if the user keeps them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import adapters
from keras_transfer import load_adapter
from keras_transfer import save_adapter
from tests.adapters import models
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.compute import tensorflow_only
from tests.contracts.compute import tensors

X = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")

TECHNIQUES = {
    "lora": adapters.LoRA(rank=2, targets=["^a$", "^conv$", "^words$"], dropout=0.3),
    "dora": adapters.DoRA(rank=2, targets=["^a$", "^conv$"], dropout=0.3),
    "vera": adapters.VeRA(rank=4, targets="^a$", dropout=0.3),
    "ia3": adapters.IA3(targets=["^a$", "^conv$", "^b$"], feedforward=["b"]),
    "loha": adapters.LoHa(rank=2, targets=["^a$", "^conv$"]),
    "bottleneck": adapters.Bottleneck(size=2, targets=["^a$"]),
    "bitfit": adapters.BitFit(targets=["^a$"]),
    "norm_tuning": adapters.NormTuning(),
}


def shared():
    """Return a model, and a second model that shares all layers except the last."""
    numbers, words = keras.Input((8,)), keras.Input((3,), dtype="int32")
    x = keras.layers.Dense(6, activation="relu", name="a")(numbers)
    x = keras.layers.LayerNormalization(name="norm")(x)
    image = keras.layers.Reshape((2, 3, 1))(x)
    image = keras.layers.Conv2D(4, 2, name="conv")(image)
    image = keras.layers.Flatten()(image)
    rows = keras.layers.Embedding(9, 4, name="words")(words)
    rows = keras.layers.Flatten()(rows)
    x = keras.layers.Dense(5, name="b")(keras.layers.Concatenate()([x, image, rows]))
    outputs = keras.layers.Dense(3, name="logits")(x)
    inputs = [numbers, words]
    return keras.Model(inputs, outputs), keras.Model(inputs, x)


def changed(model):
    """Change the values of all trainable weights."""
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.3, variable.shape))


@tensorflow_only("tf.function is TensorFlow's")
@pytest.mark.slow
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_users_tf_function_stays_valid_after_the_adapter_is_removed(technique):
    model, sibling = shared()
    x = [X, np.arange(12).reshape(4, 3) % 9]
    base = run(model, x)
    TECHNIQUES[technique].attach(model)
    changed(model)
    serve = tf.function(lambda x: model(x, training=False))
    with_adapter = serve(x)
    assert np.abs(with_adapter - base).max() > 1e-3
    sibling.predict(x, verbose=0)

    def check(expected):
        assert_close(run(model, x), expected, 1e-4)
        assert_close(serve(x), run(model, x), 1e-5)
        assert_close(sibling.predict(x, verbose=0), run(sibling, x), 1e-5)

    if technique == "bottleneck":
        with pytest.raises(ValueError, match="cannot be merged"):
            adapters.merge(model)
    else:
        adapters.merge(model)
        check(with_adapter)
        adapters.unmerge(model)
    check(with_adapter)
    adapters.detach(model)
    check(with_adapter if technique in ("bitfit", "norm_tuning") else base)


@tensorflow_only("tf.function is TensorFlow's")
def test_a_users_tf_function_follows_use_and_remove():
    model, _ = shared()
    x = [X, np.zeros((4, 3), "int32")]
    for name in ("first", "second"):
        adapters.LoRA(rank=2, targets=["^a$", "^words$"]).attach(model, name)
        changed(model)
    serve = tf.function(lambda x: model(x, training=False))
    serve(x)
    adapters.use(model, "first")
    assert_close(serve(x), run(model, x), 1e-5)
    adapters.remove(model, "first")
    assert_close(serve(x), run(model, x), 1e-5)
    adapters.use(model, "second")
    assert_close(serve(x), run(model, x), 1e-5)


class Compiled(keras.Model):
    """A model with tf.functions as methods, and one in an attribute."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(3, name="hidden")
        self.serve = tf.function(self.plain)

    def plain(self, x):
        return self.hidden(x)

    @tf.function(jit_compile=False)
    def call(self, x):
        return self.hidden(x)

    @tf.function
    def embed(self, x):
        return self.hidden(x)


@tensorflow_only("tf.function is TensorFlow's")
def test_methods_that_are_tf_functions_are_retraced():
    model = Compiled()
    base = model(X)
    model.serve(X), model.embed(X)
    options = model.serve.python_function
    adapters.LoRA(rank=2, targets="^hidden$").attach(model)
    changed(model)
    now = model.plain(X)
    assert np.abs(now - base).max() > 1e-2
    for function in (model, model.embed, model.serve):
        assert_close(function(X), now, 1e-5)
    assert model.serve.python_function == options
    adapters.detach(model)
    for function in (model, model.embed, model.serve):
        assert_close(function(X), base, 1e-6)


def language_model():
    """Return a tiny GPT-2 with greedy sampling."""
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=30,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=8,
    )
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    model.compile(sampler="greedy", loss="mse", jit_compile=False)
    return model


@pytest.mark.slow
def test_generate_follows_the_adapter_in_use(tmp_path):
    model = language_model()
    ids, mask = np.zeros((3, 5), "int32"), np.zeros((3, 5), "int32")
    ids[:, :2], mask[:, :2] = [[3, 7], [9, 4], [1, 2]], 1
    x = {"token_ids": ids, "padding_mask": mask}
    said = {}

    def check(step):
        spoken = np.asarray(model.generate(x, stop_token_ids=None)["token_ids"])
        computed = model.generate_step(tensors(x), stop_token_ids=None)["token_ids"]
        assert np.array_equal(spoken, computed), step
        said[step] = spoken.tolist()

    recipe = adapters.LoRA(rank=2, alpha=64)
    check("base")
    for name in ("first", "second"):
        recipe.attach(model, name)
        models.disturb(model, 1.0, name)
        check(name)
        changed(model)
    adapters.use(model, "first")
    check("used")
    save_adapter(model, tmp_path / "first.safetensors", name="first")
    adapters.add_weighted(model, "sum", {"first": 0.5, "second": 2.0})
    check("sum")
    adapters.merge(model)
    check("merged")
    adapters.unmerge(model)
    check("unmerged")
    adapters.remove(model, "sum")
    check("without")
    adapters.detach(model)
    load_adapter(model, tmp_path / "first.safetensors")
    check("loaded")
    assert said["without"] == said["base"]
    assert said["loaded"] == said["used"] != said["base"]
    assert said["merged"] == said["unmerged"] == said["sum"] != said["base"]
    assert said["second"] != said["base"] != said["first"]
