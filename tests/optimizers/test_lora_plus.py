"""lora_plus: the matrices B take larger steps."""

import keras
import numpy as np
import pytest

import keras_transfer as kt


def adapted():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(6, name="low"),
            keras.layers.Dense(6, name="high"),
            keras.layers.Dense(2, name="head"),
        ],
        name="net",
    )
    kt.adapters.LoRA(rank=2, targets=["low", "high"]).attach(model)
    return model


def moved(optimizer_of):
    model = adapted()
    model.compile(optimizer_of(model), "mse", jit_compile=False)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.trainable_variables}
    x = np.random.default_rng(0).normal(size=(8, 6))
    model.fit(x, x[:, :2], epochs=1, verbose=0, batch_size=8)
    return {
        v.path: np.abs(keras.ops.convert_to_numpy(v) - before[v.path]).max()
        for v in model.trainable_variables
    }


def test_only_b_takes_larger_steps():
    sgd = keras.optimizers.SGD(1e-3)
    plain = moved(lambda model: keras.optimizers.SGD(1e-3))
    plus = moved(lambda model: kt.optimizers.lora_plus(sgd, model, ratio=8))
    assert any(path.endswith("lora_b") for path in plain)
    for path, step in plain.items():
        ratio = 8 if path.endswith("lora_b") else 1
        np.testing.assert_allclose(plus[path], ratio * step, rtol=1e-4, atol=1e-9)


def test_the_rates():
    model = adapted()
    optimizer = kt.optimizers.lora_plus(keras.optimizers.Adam(), model)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert sorted(set(optimizer.rates.values())) == [1.0, 16.0]


def test_a_model_without_pairs_and_a_low_ratio_are_refused():
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="No LoRA pair trains in"):
        kt.optimizers.lora_plus(keras.optimizers.Adam(), plain)
    with pytest.raises(ValueError, match="LoRA\\+ is the opposite"):
        kt.optimizers.lora_plus(keras.optimizers.Adam(), adapted(), ratio=0.5)
