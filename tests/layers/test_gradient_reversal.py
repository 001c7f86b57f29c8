import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_transfer as kt
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import compiled
from tests.contracts.compute import exports
from tests.contracts.compute import ON_TENSORFLOW
from tests.contracts.compute import tensorflow_only
from tests.contracts.compute import value_and_gradients
from tests.contracts.compute import weight_gradients
from tests.contracts.compute import wide
from tests.contracts.layer_contract import LayerContract

# Values whose bits arithmetic would lose: signed zero, infinities, small and large.
HARD = [0.0, -0.0, 1.0, -1.5, 1e-7, 3e4, -3e4, np.inf, -np.inf]
reads_iterations = tensorflow_only("a step on JAX cannot read the optimizer")


def by_hand(reversal):
    """Return a model x -> w x -> reversal; the gradient of w shows the strength."""
    x = keras.Input((1,))
    hidden = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(x)
    return keras.Model(x, reversal(hidden))


def moves(model, **kwargs):
    """Return an array of the changes of w in each epoch of one step."""
    seen = [float(model.get_weights()[0].squeeze())]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            float(model.get_weights()[0].squeeze())
        )
    )
    x = np.ones((8, 1), "float32")
    model.fit(x, x, batch_size=8, verbose=0, callbacks=[keep], **kwargs)
    return np.diff(seen)


def mean_of_outputs(y, outputs):
    return ops.mean(outputs, axis=-1)


class TestGradientReversal(LayerContract):
    representative = True
    half_tolerance = 5e-2

    def make(self):
        return kt.layers.GradientReversal(0.5)

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


@pytest.mark.parametrize(
    "dtype", [pytest.param("float64", marks=wide), "float32", "bfloat16", "float16"]
)
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("strength", [0.0, 7.3])
def test_forward_is_bit_exact_and_gradient_is_minus_the_strength(dtype, mode, strength):
    layer = kt.layers.GradientReversal(strength, dtype=dtype)

    def gradient(x, upstream):
        return value_and_gradients(layer, x, upstream=upstream)

    function = {
        "eager": gradient,
        "graph": compiled(gradient, jit_compile=False),
        "xla": compiled(gradient),
    }[mode]
    x = ops.cast(np.array(HARD), dtype)
    upstream = ops.cast(np.arange(1, 1 + len(HARD)), dtype)
    y, (found,) = function(x, upstream)
    assert y.dtype == found.dtype == x.dtype
    assert arrays(y)[0].tobytes() == arrays(x)[0].tobytes()
    expected = -ops.cast(strength, dtype) * upstream
    np.testing.assert_array_equal(*arrays([found, expected]))


def test_strength_gets_no_gradient():
    strength = keras.Variable(2.0)
    layer = kt.layers.GradientReversal(strength)
    (found,) = weight_gradients(lambda: ops.sum(layer(ops.ones((2, 2)))), [strength])
    if ON_TENSORFLOW:
        assert found is None
    else:
        assert_close(found, np.zeros(()))


def test_a_changed_variable_is_read_in_the_graph():
    strength = keras.Variable(1.0, trainable=False)
    model = by_hand(kt.layers.GradientReversal(strength))
    model.compile(keras.optimizers.SGD(1.0), mean_of_outputs, jit_compile=False)
    assert_close(moves(model), np.array([1.0]), 1e-6)
    strength.assign(0.25)
    assert_close(moves(model), np.array([0.25]), 1e-6)


def test_variable_is_loaded_with_its_value(tmp_path):
    strength = keras.Variable(1.0, trainable=False)
    model = by_hand(kt.layers.GradientReversal(strength))
    model.compile(keras.optimizers.SGD(1.0), mean_of_outputs, jit_compile=False)
    strength.assign(0.25)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(
        tmp_path / "model.keras", {"mean_of_outputs": mean_of_outputs}
    )
    assert_close(moves(again), np.array([0.25]), 1e-6)
    again.layers[-1].strength.assign(0.5)
    assert_close(moves(again), np.array([0.5]), 1e-6)


def linear(step):
    return 0.1 * ops.cast(step, "float32")


@reads_iterations
@pytest.mark.parametrize("jit_compile", [False, True])
def test_schedule_follows_the_steps(jit_compile):
    optimizer = keras.optimizers.SGD(1.0)
    reversal = kt.layers.GradientReversal(linear, step=optimizer.iterations)
    model = by_hand(reversal)
    model.compile(optimizer, mean_of_outputs, jit_compile=jit_compile)
    assert_close(moves(model, epochs=4), np.array([0.0, 0.1, 0.2, 0.3]), 1e-6)
    assert optimizer.iterations not in model.variables


@reads_iterations
def test_schedule_changes_within_one_execution_of_several_steps():
    optimizer = keras.optimizers.SGD(1.0)
    reversal = kt.layers.GradientReversal(linear, step=optimizer.iterations)
    model = by_hand(reversal)
    model.compile(optimizer, mean_of_outputs, steps_per_execution=4, jit_compile=False)
    x = np.ones((8, 1), "float32")
    model.fit(x, x, batch_size=2, verbose=0)
    assert_close(model.get_weights()[0], np.array([[1.6]]), 1e-6)


@reads_iterations
@pytest.mark.slow
def test_schedule_continues_after_loading_with_its_step(tmp_path):
    optimizer = keras.optimizers.SGD(1.0)
    ramp_up = kt.optimizers.GaninRampUp(total_steps=10)
    model = by_hand(kt.layers.GradientReversal(ramp_up, step=optimizer.iterations))
    model.compile(optimizer, mean_of_outputs, jit_compile=False)
    expected = [float(ramp_up(step)) for step in range(4)]
    assert_close(moves(model, epochs=3), np.array(expected[:3]), 1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(
        tmp_path / "model.keras", {"mean_of_outputs": mean_of_outputs}
    )
    x = np.ones((8, 1), "float32")
    assert_close(again.predict(x, verbose=0), model.predict(x, verbose=0))
    with pytest.raises(ValueError, match="was loaded, and the layer has no `step`"):
        again.fit(x, x, verbose=0)
    again.layers[-1].step = again.optimizer.iterations
    assert_close(moves(again), np.array(expected[3:]), 1e-6)


def test_loads_with_a_schedule_in_a_new_process(tmp_path):
    optimizer = keras.optimizers.SGD(1.0)
    ramp_up = kt.optimizers.GaninRampUp(total_steps=10)
    model = by_hand(kt.layers.GradientReversal(ramp_up, step=optimizer.iterations))
    model.save(tmp_path / "model.keras")
    x = np.ones((2, 1), "float32")
    again = fresh.load(tmp_path / "model.keras", x)
    assert_close(again.outputs, model.predict(x, verbose=0))


@exports
@pytest.mark.parametrize("kind", ["number", "variable", "schedule"])
def test_exports(tmp_path, kind):
    optimizer = keras.optimizers.SGD(1.0)
    reversal = {
        "number": lambda: kt.layers.GradientReversal(0.5),
        "variable": lambda: kt.layers.GradientReversal(keras.Variable(0.5)),
        "schedule": lambda: kt.layers.GradientReversal(linear, optimizer.iterations),
    }[kind]()
    model = by_hand(reversal)
    model.compile(optimizer, "mse", jit_compile=False)
    fit(model, np.ones((8, 1)), np.zeros((8, 1)))
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    x = tf.ones((3, 1))
    assert_close(served.serve(x), model.predict(x, verbose=0), 1e-6)


@pytest.mark.slow
def test_schedule_under_two_replicas(strategy):
    with strategy.scope():
        optimizer = keras.optimizers.SGD(1.0)
        reversal = kt.layers.GradientReversal(linear, step=optimizer.iterations)
        model = by_hand(reversal)
        model.compile(optimizer, "mae", jit_compile=False)
    x = np.ones((8, 1), "float32")
    model.fit(x, 0 * x, batch_size=8, epochs=3, verbose=0)
    assert_close(model.get_weights()[0], np.array([[1.3]]), 1e-6)


def test_mask_is_kept():
    layer = kt.layers.GradientReversal()
    masked = keras.layers.Masking()(np.zeros((2, 3, 1), "float32"))
    assert keras.ops.convert_to_numpy(layer(masked)._keras_mask).sum() == 0


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strength_out_of_range_raises(strength):
    with pytest.raises(ValueError, match="finite number of 0 or more"):
        kt.layers.GradientReversal(strength)
    with pytest.raises(ValueError, match="finite number of 0 or more"):
        kt.layers.GradientReversal(keras.Variable(strength))


def test_strength_of_another_type_raises():
    with pytest.raises(TypeError, match="Pass a number"):
        kt.layers.GradientReversal("high")
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        kt.layers.GradientReversal(keras.Variable([1.0, 2.0]))


def test_schedule_without_a_step_raises():
    with pytest.raises(ValueError, match="the layer has no `step`"):
        kt.layers.GradientReversal(linear)
    with pytest.raises(ValueError, match="`step` has no effect"):
        kt.layers.GradientReversal(0.5, step=keras.Variable(1))
