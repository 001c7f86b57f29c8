"""What was traced speaks as the model computes now, whoever keeps the function."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import adapters
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

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
    """Return a model, and its sibling, which has all of its layers but the last."""
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
    """Give all that trains other values."""
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.3, variable.shape))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_graph_of_the_users_own_is_right_once_the_adapter_is_away(technique):
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
        with pytest.raises(ValueError, match="cannot be folded"):
            adapters.merge(model)
    else:
        adapters.merge(model)
        check(with_adapter)
        adapters.unmerge(model)
    check(with_adapter)
    adapters.detach(model)
    check(with_adapter if technique in ("bitfit", "norm_tuning") else base)


def test_a_graph_of_two_adapters_follows_use_and_the_removal_of_one():
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
