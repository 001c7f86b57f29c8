"""Discriminative rates compared with NumPy and Keras, and special cases of Keras."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.optimizers.discriminative import SUBCLASSES
from tests import tiny
from tests.contracts.compute import ON_TENSORFLOW
from tests.contracts.optimizer_contract import OptimizerContract

RATES = {"dense_0": 0.25, "dense_1": 0.5, "dense_2": 1.0}
DISTRIBUTED = [{"clipnorm": 0.1}, {"clipvalue": 0.01}]  # the contract has the others


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(16, 6)).astype("float32")
    return x, rng.normal(size=(16, 3)).astype("float32")


def gradients(model, steps=10, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [variable.shape for variable in model.trainable_variables]
    return [
        [rng.normal(size=shape).astype("float32") for shape in shapes]
        for _ in range(steps)
    ]


def apply(optimizer, variables, steps):
    for grads in steps:
        tensors = [keras.ops.convert_to_tensor(each) for each in grads]
        optimizer.apply(tensors, variables)


def distance(first, second):
    return max(np.abs(a - b).max() for a, b in zip(first, second, strict=True))


def numpy_adamw(weights, steps, lr, factors, decay, decays, clip):
    """Apply AdamW with a rate per weight, decoupled decay and joint clipping."""
    weights = [each.astype("float64") for each in weights]
    m = [np.zeros_like(each) for each in weights]
    v = [np.zeros_like(each) for each in weights]
    for t, grads in enumerate(steps, start=1):
        norm = np.sqrt(sum(np.square(g, dtype="float64").sum() for g in grads))
        grads = [g * min(1.0, clip / norm) for g in grads]
        for i, g in enumerate(grads):
            rate = lr * factors[i]
            if decays[i]:
                weights[i] -= rate * decay * weights[i]
            m[i] += (g - m[i]) * 0.1
            v[i] += (g * g - v[i]) * 0.001
            alpha = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weights[i] -= alpha * m[i] / (np.sqrt(v[i]) + 1e-7)
    return weights


class TestDiscriminative(OptimizerContract):
    """The contract of an optimizer."""

    def make(self, model, learning_rate, **kwargs):
        adamw = keras.optimizers.AdamW(learning_rate, **kwargs)
        return kt.optimizers.discriminative(adamw, model, rates=RATES)


def test_adamw_equals_numpy_with_decay_and_a_joint_clip():
    model = tiny.mlp()
    steps = gradients(model)
    before = model.get_weights()
    adamw = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.5)
    optimizer = kt.optimizers.discriminative(
        adamw, model, rates=RATES, no_weight_decay=True
    )
    apply(optimizer, model.trainable_variables, steps)
    expected = numpy_adamw(
        before,
        steps,
        lr=0.01,
        factors=[0.25, 0.25, 0.5, 0.5, 1.0, 1.0],
        decay=0.1,
        decays=[True, False] * 3,
        clip=0.5,
    )
    assert distance(model.get_weights(), expected) < 1e-6


@pytest.mark.parametrize("kind", SUBCLASSES, ids=lambda kind: kind.__name__)
def test_each_group_trains_as_with_its_own_optimizer(kind):
    model, twin = tiny.mlp(), tiny.mlp()
    twin.set_weights(model.get_weights())
    steps = gradients(model, steps=3)
    plain = kind(learning_rate=0.01, weight_decay=0.1)
    optimizer = kt.optimizers.discriminative(plain, model, rates=RATES)
    assert isinstance(optimizer, kind)
    apply(optimizer, model.trainable_variables, steps)
    for layer, (start, rate) in zip(
        twin.layers[1:], enumerate(RATES.values()), strict=True
    ):
        own = [grads[2 * start : 2 * start + 2] for grads in steps]
        alone = kind(learning_rate=0.01 * rate, weight_decay=0.1)
        apply(alone, layer.trainable_variables, own)
    assert distance(model.get_weights(), twin.get_weights()) < 1e-6


def test_a_factor_scales_adafactor_although_it_caps_the_rate():
    model, twin = tiny.mlp(), tiny.mlp()
    twin.set_weights(model.get_weights())
    before = model.get_weights()
    steps = gradients(model, steps=1)
    capped = keras.optimizers.Adafactor(100.0)
    half = kt.optimizers.discriminative(capped, model, rates={"dense_0": 0.5})
    apply(half, model.trainable_variables, steps)
    apply(keras.optimizers.Adafactor(100.0), twin.trainable_variables, steps)
    ours = model.get_weights()[0] - before[0]
    theirs = twin.get_weights()[0] - before[0]
    assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours, 0.5 * theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_gradients_of_repeated_ids_are_summed_before_they_are_squared():
    def trained(make):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((3,), dtype="int32"), keras.layers.Embedding(4, 2)]
        )
        model.compile(make(model), "mse", jit_compile=False)
        x = np.array([[1, 1, 2]])
        model.fit(x, np.ones((1, 3, 2)), epochs=3, verbose=0)
        return model.get_weights()[0]

    class DenseLookup(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(4, 2), initializer="uniform")

        def call(self, ids):
            return keras.ops.one_hot(ids, 4) @ self.table

    def oracle():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,), dtype="int32"), DenseLookup()])
        sparse = keras.Sequential(
            [keras.Input((3,), dtype="int32"), keras.layers.Embedding(4, 2)]
        )
        keras.utils.set_random_seed(0)
        model.set_weights(sparse.get_weights())
        model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
        x = np.array([[1, 1, 2]])
        return model, x

    keras.utils.set_random_seed(0)
    start = keras.Sequential(
        [keras.Input((3,), dtype="int32"), keras.layers.Embedding(4, 2)]
    ).get_weights()
    model, x = oracle()
    model.set_weights(start)
    model.fit(x, np.ones((1, 3, 2)), epochs=3, verbose=0)
    expected = model.get_weights()[0]

    adam = keras.optimizers.Adam(0.1)
    ours = trained(lambda m: kt.optimizers.discriminative(adam, m))
    stock = trained(lambda m: keras.optimizers.Adam(0.1))
    assert np.abs(ours - expected).max() < 1e-6
    assert np.abs(stock - expected).max() > 1e-3


def test_layer_decay_counts_the_depth_from_the_head():
    model = tiny.mlp()
    optimizer = kt.optimizers.discriminative(
        keras.optimizers.SGD(), model, layer_decay=0.5
    )
    assert optimizer.rates == {"dense_0": 0.25, "dense_1": 0.5, "dense_2": 1.0}


def test_layer_decay_defaults_to_0_9():
    optimizer = kt.optimizers.discriminative(keras.optimizers.SGD(), tiny.mlp())
    assert optimizer.rates["dense_1"] == pytest.approx(0.9)


def test_a_pattern_splits_a_group():
    model = tiny.mlp()
    before = model.get_weights()
    optimizer = kt.optimizers.discriminative(
        keras.optimizers.SGD(1.0), model, rates={("dense_2", "bias$"): 16.0}
    )
    ones = [np.ones(v.shape, "float32") for v in model.trainable_variables]
    apply(optimizer, model.trainable_variables, [ones])
    moved = [a - b for a, b in zip(before, model.get_weights(), strict=True)]
    assert [round(float(each.mean())) for each in moved] == [1, 1, 1, 1, 1, 16]


def test_a_rate_without_any_variable_raises():
    make, sgd = kt.optimizers.discriminative, keras.optimizers.SGD()
    with pytest.raises(ValueError, match=r"\['dense_2'\] have no effect"):
        make(sgd, tiny.mlp(), rates={"dense_2": 0.5, ("dense_2", "."): 2.0})
    with pytest.raises(ValueError, match=r"\['dense_2:bias'\] have no effect"):
        make(sgd, tiny.mlp(), rates={("dense_2", "bias"): 2.0, "dense_2": 0.5})
    optimizer = make(sgd, tiny.mlp(), rates={("dense_2", "."): 2.0})
    with pytest.raises(ValueError, match="no rate with the name 'dense_2'"):
        optimizer.set_rates({"dense_2": 0.5})


def test_set_rates_takes_effect_without_a_retrace():
    model = tiny.mlp()
    x, y = data()
    optimizer = kt.optimizers.discriminative(keras.optimizers.SGD(0.1), model)
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(x, y, verbose=0)
    function = model.train_function
    optimizer.set_rates({"dense_0": 1e-12})
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert model.train_function is function
    assert np.array_equal(before[0], model.get_weights()[0])
    assert not np.array_equal(before[2], model.get_weights()[2])
    assert optimizer.rates["dense_0"] == 1e-12


def test_scaling_only_the_update_would_not_scale_the_weight_decay():
    class Naive(keras.optimizers.AdamW):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate * 1e-9)

    moved = {}
    for name in ("naive", "ours"):
        model = tiny.mlp()
        before = model.get_weights()[0]
        if name == "naive":
            optimizer = Naive(0.01, weight_decay=0.1)
        else:
            adamw = keras.optimizers.AdamW(0.01, weight_decay=0.1)
            rates = dict.fromkeys(RATES, 1e-9)
            optimizer = kt.optimizers.discriminative(adamw, model, rates=rates)
        apply(optimizer, model.trainable_variables, gradients(model))
        moved[name] = np.abs(model.get_weights()[0] - before).max()
    assert moved["naive"] > 1e-3
    assert moved["ours"] < 1e-7


def test_no_weight_decay_is_restored_on_load_where_keras_loses_it(tmp_path):
    def bias_after(exclude, path):
        keras.utils.set_random_seed(0)
        model = tiny.mlp()
        model.set_weights([np.ones_like(each) for each in model.get_weights()])
        model.compile(exclude(model), "mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        model.save(path)
        model = keras.saving.load_model(path)
        zeros = [np.zeros(v.shape, "float32") for v in model.trainable_variables]
        apply(model.optimizer, model.trainable_variables, [zeros])
        return model.get_weights()[1]

    def stock(model):
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return optimizer

    def ours(model):
        return kt.optimizers.discriminative(stock(model), model)

    assert (bias_after(stock, tmp_path / "stock.keras") < 1).all()
    assert (bias_after(ours, tmp_path / "ours.keras") == 1).all()


def test_an_exclusion_from_weight_decay_is_kept(tmp_path):
    model = tiny.mlp()
    adamw = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    optimizer = kt.optimizers.discriminative(adamw, model)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse", jit_compile=False)
    x, y = data()
    for layer in model.layers[1:]:
        layer.trainable = False
    model.layers[3].trainable = True
    optimizer.build(model.trainable_variables)  # too few, so it will be replaced
    callback = kt.callbacks.GradualUnfreezing(model)
    model.fit(x, y, callbacks=[callback], verbose=0)
    assert model.optimizer.decay_mask == (True, False) * 3
    model.save(tmp_path / "model.keras")
    again = kt.resume(tmp_path / "model.keras")
    assert again.optimizer.decay_mask == (True, False) * 3


def test_unused_weights_do_not_prevent_loading(tmp_path):
    model = kt.models.TransferClassifier(tiny.bert(num_layers=1), 2)
    optimizer = kt.optimizers.discriminative(keras.optimizers.Adam(), model)
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build(model.trainable_variables)
    assert copy.rates == optimizer.rates


@pytest.mark.slow
def test_rates_and_moments_survive_reload_of_a_nested_model(tmp_path):
    x, y = data()
    inner = tiny.mlp(widths=(5, 4))
    model = keras.Sequential([inner, keras.layers.Dense(3)])
    model.build((None, 6))
    adam = keras.optimizers.Adam(0.01)
    groups = kt.layer_groups(model)
    rates = {groups.names[0]: 0.5, groups.names[-1]: 2.0}
    model.compile(
        kt.optimizers.discriminative(adam, groups, rates=rates),
        "mse",
        jit_compile=False,
    )
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert twin.optimizer.rates == model.optimizer.rates
    for each in (model, twin):
        each.fit(x, y, epochs=2, shuffle=False, verbose=0)
    assert distance(model.get_weights(), twin.get_weights()) == 0


def test_loading_for_other_variables_raises(tmp_path):
    model = tiny.mlp()
    optimizer = kt.optimizers.discriminative(keras.optimizers.SGD(0.1), model)
    config = optimizer.get_config()
    other = tiny.mlp(widths=(5, 3))
    with pytest.raises(ValueError, match=r"saved for 6 variables, but .* trains 4"):
        type(optimizer).from_config(config).build(other.trainable_variables)
    other = tiny.mlp(widths=(5, 7, 3))
    with pytest.raises(ValueError, match="differ in name or shape"):
        type(optimizer).from_config(config).build(other.trainable_variables)


def test_ema_with_frozen_layers_is_assigned_to_the_right_layers():
    x, y = data()
    model = tiny.mlp(widths=(6, 6, 3))
    sgd = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    optimizer = kt.optimizers.discriminative(sgd, model, layer_decay=1.0)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    model.layers[1].trainable = False
    frozen, moving = model.get_weights()[0], model.get_weights()[2]
    model.fit(x, y, epochs=2, verbose=0)
    assert np.array_equal(model.get_weights()[0], frozen)
    assert not np.array_equal(model.get_weights()[2], moving)


def test_stock_ema_with_frozen_layers_is_assigned_to_the_wrong_layer():
    x, _ = data()
    y = x
    model = tiny.mlp(widths=(6, 6, 6))
    sgd = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    model.compile(sgd, "mse", jit_compile=False)
    sgd.build(model.trainable_variables)
    model.layers[1].trainable = False
    first = model.get_weights()[0]
    # If this test fails, Keras has fixed the pairing, and our code is not needed.
    if not ON_TENSORFLOW:
        with pytest.raises(ValueError, match="length of model variables"):
            model.fit(x, y, epochs=2, verbose=0)
        return
    model.fit(x, y, epochs=2, verbose=0)
    assert np.allclose(model.get_weights()[2], first)


def test_swap_ema_weights_does_not_change_frozen_layers():
    x, y = data()
    model = tiny.mlp()
    sgd = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    optimizer = kt.optimizers.discriminative(sgd, model)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    model.layers[1].trainable = False
    frozen = model.get_weights()[0]
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()[0])
    )
    model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[swap, look], verbose=0)
    assert all(np.array_equal(each, frozen) for each in seen)


@pytest.mark.slow
@pytest.mark.parametrize("clip", DISTRIBUTED, ids=str)
def test_two_replicas_equal_one_with_clipping(strategy, clip):
    x, y = data()

    def trained():
        keras.utils.set_random_seed(0)
        model = tiny.mlp((4, 3))
        adamw = keras.optimizers.AdamW(0.01, weight_decay=0.1, **clip)
        model.compile(
            kt.optimizers.discriminative(adamw, model, layer_decay=0.5),
            "mse",
            jit_compile=False,
        )
        model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
        return model.get_weights()

    alone = trained()
    with strategy.scope():
        together = trained()
    assert distance(alone, together) < 1e-6


@pytest.mark.slow
def test_learning_rate_callbacks_keep_the_ratios():
    x, y = data()
    model = tiny.mlp()
    before = model.get_weights()
    sgd = keras.optimizers.SGD(0.5)
    model.compile(
        kt.optimizers.discriminative(sgd, model, rates=RATES), "mse", jit_compile=False
    )
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)
    model.fit(x, y, callbacks=[schedule], verbose=0)
    twin = tiny.mlp()
    twin.set_weights(before)
    twin.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
    twin.fit(x, y, verbose=0)
    ours = [a - b for a, b in zip(model.get_weights(), before, strict=True)]
    plain = [a - b for a, b in zip(twin.get_weights(), before, strict=True)]
    np.testing.assert_allclose(ours[0], 0.25 * plain[0], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(ours[4], plain[4], rtol=1e-3, atol=1e-7)


def test_memory_grows_by_a_few_numbers_per_variable():
    model = tiny.mlp()
    plain = keras.optimizers.Adam()
    plain.build(model.trainable_variables)
    ours = kt.optimizers.discriminative(keras.optimizers.Adam(), model)
    ours.build(model.trainable_variables)

    def size(optimizer):
        return sum(np.prod(v.shape, dtype=int) for v in optimizer.variables)

    assert size(ours) - size(plain) <= 2 * len(model.weights) + 6


@pytest.mark.parametrize(
    "rates",
    [{"dense_0": 0.0}, {"dense_0": -1.0}, {"dense_0": float("nan")}, {"dense_0": True}],
    ids=str,
)
def test_a_rate_must_be_a_finite_number_above_zero(rates):
    with pytest.raises(ValueError, match="finite number above 0"):
        kt.optimizers.discriminative(keras.optimizers.SGD(), tiny.mlp(), rates=rates)


def test_wrong_arguments_raise():
    model = tiny.mlp()
    sgd = keras.optimizers.SGD()
    make = kt.optimizers.discriminative
    with pytest.raises(ValueError, match=r"Did you mean 'dense_0'"):
        make(sgd, model, rates={"dens_0": 0.5})
    with pytest.raises(ValueError, match="matches no variable of group"):
        make(sgd, model, rates={("dense_0", "lora_b"): 0.5})
    with pytest.raises(TypeError, match="A key of `rates`"):
        make(sgd, model, rates={3: 0.5})
    with pytest.raises(ValueError, match="layer_decay=1.5 must be"):
        make(sgd, model, layer_decay=1.5)
    with pytest.raises(ValueError, match="finite number above 0"):
        make(sgd, model, layer_decay=1e-200)
    with pytest.raises(TypeError, match="is not a dict"):
        make(sgd, model, rates=[0.5, 1.0])
    with pytest.raises(ValueError, match="not a regular expression"):
        make(sgd, model, rates={("dense_0", "("): 0.5})
    with pytest.raises(ValueError, match="no_weight_decay=True has no effect"):
        make(sgd, model, no_weight_decay=True)
    adamw = keras.optimizers.AdamW()
    with pytest.raises(ValueError, match="'gamma' of no_weight_decay matches no"):
        make(adamw, model, no_weight_decay=["gamma"])
    with pytest.raises(TypeError, match="is a string"):
        make(adamw, model, no_weight_decay="bias")
    with pytest.raises(TypeError, match="not a Keras optimizer"):
        make("adam", model)
    with pytest.raises(ValueError, match="no rate with the name 'hed'"):
        make(sgd, model).set_rates({"hed": 1.0})


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda: keras.optimizers.Ftrl(), "divides by the learning rate"),
        (lambda: keras.optimizers.Muon(), "two weight decays"),
        (lambda: keras.optimizers.Adadelta(), "step size does not come"),
        (
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
            "inner_optimizer",
        ),
    ],
)
def test_unsupported_optimizers_raise(make, reason):
    with pytest.raises(ValueError, match=reason):
        kt.optimizers.discriminative(make(), tiny.mlp())


def test_a_used_or_discriminative_optimizer_raises():
    model = tiny.mlp()
    used = keras.optimizers.SGD()
    apply(used, model.trainable_variables, gradients(model, steps=2))
    with pytest.raises(ValueError, match="has made 2 updates"):
        kt.optimizers.discriminative(used, model)
    ours = kt.optimizers.discriminative(keras.optimizers.SGD(), model)
    with pytest.raises(ValueError, match="discriminative already"):
        kt.optimizers.discriminative(ours, model)


def test_variables_of_another_model_raise():
    model, other = tiny.mlp(), tiny.mlp()
    optimizer = kt.optimizers.discriminative(keras.optimizers.SGD(), model)
    with pytest.raises(ValueError, match="belong to no layer group"):
        optimizer.build(other.trainable_variables)
