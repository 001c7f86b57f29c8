"""L2SP: its loss and steps by hand, in phases, after reload, and wrong models."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit

L2SP = kt.regularizers.L2SP
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.arange(8) % 3


def compiled(model=None, rate=0.1, **settings):
    model = model or tiny.mlp()
    optimizer = keras.optimizers.SGD(rate)
    model.compile(optimizer, SPARSE, jit_compile=False, **settings)
    return model


def anchored(alpha=0.7, beta=0.3, **settings):
    model = tiny.mlp()
    L2SP(alpha, beta).attach(model, head=model.layers[-1])
    return compiled(model, **settings)


def moved(model):
    """Move all weights by known amounts, and return the penalty by hand."""
    total = 0.0
    for place, variable in enumerate(model.trainable_variables):
        step = np.random.default_rng(place).normal(size=variable.shape)
        variable.assign_add(step)
        head = "dense_2" in variable.path
        total += 0.3 * np.sum(array(variable) ** 2) if head else 0.7 * np.sum(step**2)
    return total / 2


def test_loss_is_the_formula():
    model = anchored()
    assert float(sum(model.losses)) == pytest.approx(
        0.15 * np.sum(array(model.layers[-1].kernel) ** 2), rel=1e-5
    )
    penalty = moved(model)
    label_loss = float(SPARSE(Y, model(X)))
    assert model.evaluate(X, Y, verbose=0) - label_loss == pytest.approx(penalty, 1e-4)


def test_a_step_of_sgd_pulls_to_the_start_and_the_head_to_zero():
    model, plain = anchored(), compiled()
    start = plain.get_weights()
    moved(model)
    plain.set_weights(model.get_weights())
    before = model.get_weights()
    fit(model, X, Y, batch_size=8)
    fit(plain, X, Y, batch_size=8)
    weights = zip(model.get_weights(), plain.get_weights(), before, start, strict=True)
    for place, (ours, theirs, here, first) in enumerate(weights):
        pull = 0.3 * here if place >= 4 else 0.7 * (here - first)
        np.testing.assert_allclose(ours, theirs - 0.1 * pull, atol=1e-5)


def test_a_regularizer_of_the_user_is_kept_and_detach_restores_it():
    inputs = keras.Input((6,))
    dense = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5))
    model = keras.Model(inputs, keras.layers.Dense(3)(dense(inputs)))
    kind, before = type(model), float(sum(model.losses))
    L2SP(1.0, 0.0).attach(model, head=[])
    assert float(sum(model.losses)) == pytest.approx(before)
    dense.kernel.assign_add(np.ones((6, 2)))
    own = 0.5 * np.sum(array(dense.kernel) ** 2)
    assert float(sum(model.losses)) == pytest.approx(own + 6.0, rel=1e-5)
    kt.regularizers.detach(model)
    assert type(model) is kind
    assert float(sum(model.losses)) == pytest.approx(own, rel=1e-5)


@pytest.mark.slow
def test_a_pretrained_model_can_be_the_anchor_of_a_trained_one():
    model, pretrained = tiny.mlp(), tiny.mlp()
    moved(model)
    L2SP(1.0, 0.0).attach(model, head=[], anchor=pretrained)
    gaps = zip(model.weights, pretrained.weights, strict=True)
    expected = sum(np.sum((array(a) - array(b)) ** 2) for a, b in gaps) / 2
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_phases_of_gradual_unfreezing_penalize_what_trains():
    model = anchored(beta=0.0)
    for layer in model.layers[1:3]:
        layer.kernel.assign_add(np.ones(layer.kernel.shape))
    start = model.get_weights()
    phases = [(["dense_2"], 1), (["dense_1", "dense_2"], 1)]
    weights = []
    callbacks = [
        kt.callbacks.GradualUnfreezing(model, phases),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: weights.append(model.get_weights())
        ),
    ]
    # Zeros give no gradient to these kernels, so only the penalty moves them.
    fit(model, 0 * X, Y, batch_size=8, epochs=2, callbacks=callbacks)
    np.testing.assert_array_equal(weights[0][2], start[2])  # frozen
    # Then SGD pulls by 0.1 * 0.7 * (distance 1).
    np.testing.assert_allclose(weights[1][2], start[2] - 0.07, atol=1e-6)
    np.testing.assert_array_equal(weights[1][0], start[0])  # never trains


def test_reload_in_a_fresh_process_goes_on_with_the_same_anchors(tmp_path):
    model = anchored()
    fit(model, X, Y, epochs=2)
    model.save(tmp_path / "model.keras")
    more = dict(x=X, y=Y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    again = fresh.load(tmp_path / "model.keras", X, fit=more)
    resumed = kt.resume(tmp_path / "model.keras")
    resumed.fit(**more)
    fit(model, X, Y, epochs=2)
    assert_close(again.weights, model.get_weights(), 1e-6)
    assert_close(resumed.get_weights(), model.get_weights(), 1e-6)
    assert type(resumed) is type(model)
    assert float(sum(resumed.losses)) == pytest.approx(float(sum(model.losses)))


@pytest.mark.slow
def test_a_weights_file_carries_the_anchors_and_no_weight_is_added(tmp_path):
    model = anchored()
    assert len(model.weights) == len(tiny.mlp().weights)
    penalty = moved(model)
    model.save_weights(tmp_path / "a.weights.h5")
    other = tiny.mlp()
    moved(other)  # other anchors
    L2SP(0.7, 0.3).attach(other, head=other.layers[-1])
    other.load_weights(tmp_path / "a.weights.h5")
    assert float(sum(other.losses)) == pytest.approx(penalty, rel=1e-5)
    with pytest.raises(ValueError, match="variables"):
        tiny.mlp().load_weights(tmp_path / "a.weights.h5")
    wide = tiny.mlp((5, 3))
    L2SP().attach(wide, head=wide.layers[-1])
    with pytest.raises(ValueError, match="penalties of another model"):
        wide.load_own_variables({"penalty.L2SP.0.center": np.zeros((6, 5))})


@pytest.mark.slow
def test_subclassed_model_and_a_model_around_it():
    @keras.saving.register_keras_serializable("tests.l2_sp")
    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.body, self.top = keras.layers.Dense(4), keras.layers.Dense(3)

        def build(self, shape):
            self.body.build(shape)
            self.top.build((None, 4))
            self.built = True

        def call(self, x):
            return self.top(self.body(x))

    model = Net()
    model.build((None, 6))
    L2SP(2.0, 0.0).attach(model, head=model.top)
    model.body.bias.assign_add(np.ones(4))
    assert float(sum(model.losses)) == pytest.approx(4.0)
    around = keras.Sequential([keras.Input((6,)), model])
    assert float(sum(around.losses)) == pytest.approx(4.0)
    compiled(model, run_eagerly=True)
    assert fit(model, X, Y, batch_size=8).history["loss"][0] > 4.0
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model)
    )
    assert isinstance(again, Net) and type(again) is not Net


def test_adapters_come_first_and_their_weights_are_anchored(tmp_path):
    backbone = tiny.mlp((5, 4))
    model = kt.models.TransferClassifier(backbone, 3)
    kt.adapters.LoRA(rank=2, targets="dense_").attach(model, verbose=0)
    L2SP(1.0, 0.0).attach(model)
    pair = [v for v in model.trainable_variables if "lora_b" in v.path]
    pair[0].assign_add(np.ones(pair[0].shape))
    expected = 0.5 * np.prod(pair[0].shape)
    assert float(sum(model.losses)) == pytest.approx(expected)
    compiled(model)
    fit(model, X, Y)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again.get_weights(), model.get_weights())
    assert float(sum(again.losses)) == pytest.approx(float(sum(model.losses)))
    for change in (
        lambda: kt.adapters.LoRA(rank=1, targets="dense_").attach(model, "second"),
        lambda: kt.adapters.merge(model),
        lambda: kt.adapters.detach(model),
        lambda: kt.adapters.remove(model, "default"),
    ):
        with pytest.raises(ValueError, match="Attach adapters before penalties"):
            change()
    kt.regularizers.detach(model)
    kt.adapters.merge(model)
    assert type(model) is kt.models.TransferClassifier


@pytest.mark.slow
def test_mixed_precision_keeps_the_digits_of_small_distances():
    keras.config.set_dtype_policy("mixed_float16")
    model = anchored(beta=0.0)
    for variable in model.trainable_variables:
        variable.assign_add(np.full(variable.shape, 1e-4))
    count = sum(np.prod(v.shape) for v in model.trainable_variables[:4])
    assert float(sum(model.losses)) == pytest.approx(0.35 * count * 1e-8, rel=0.02)
    fit(model, X, Y)


@pytest.mark.slow
def test_two_replicas_equal_one_and_xla_equals_plain(strategy):
    one = anchored()
    fit(one, X, Y, epochs=3)
    with strategy.scope():
        two = anchored()
        fit(two, X, Y, epochs=3)
    assert_close(two.get_weights(), one.get_weights(), 1e-5)
    xla = tiny.mlp()
    L2SP(0.7, 0.3).attach(xla, head=xla.layers[-1])
    xla.compile(keras.optimizers.SGD(0.1), SPARSE, jit_compile=True)
    fit(xla, X, Y, epochs=3)
    assert_close(xla.get_weights(), one.get_weights(), 1e-5)


def test_what_would_be_silent_is_an_error():
    model = anchored()
    clone = keras.models.clone_model(model)
    made = type(model).from_config(model.get_config())
    for copy, message in ((clone, "is a copy"), (made, "has no values yet")):
        compiled(copy)
        with pytest.raises(ValueError, match=message):
            copy.fit(X, Y, verbose=0)
    model.layers[1].kernel.regularizer = None
    with pytest.raises(ValueError, match="no longer have their L2SP"):
        model.fit(X, Y, verbose=0)

    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return keras.ops.mean(y_pred)

    inputs = keras.Input((6,))
    own = Own(inputs, keras.layers.Dense(2)(inputs))
    L2SP().attach(own, head=[])
    compiled(own)
    with pytest.raises(ValueError, match="does not add `self.losses`"):
        own.fit(X, Y, verbose=0)


def test_wrong_models_and_arguments():
    model = tiny.mlp()
    cases = [
        (lambda: L2SP(-1), "alpha=-1"),
        (lambda: L2SP(0, 0), "penalize nothing"),
        (lambda: L2SP().attach(7), "not a Keras model"),
        (lambda: L2SP().attach(keras.Sequential([keras.layers.Dense(1)])), "not built"),
        (lambda: L2SP().attach(model), "without a head"),
        (lambda: L2SP().attach(model, head="dense_2"), "not a layer or a list"),
        (lambda: L2SP().attach(model, head=tiny.mlp().layers[1]), "not a layer of"),
        (lambda: L2SP().attach(model, head=model.layers), "nothing to keep"),
        (lambda: L2SP().attach(model, head=[], anchor=tiny.mlp((2,))), "another model"),
        (lambda: L2SP().attach(model, head=[], anchor=3), "anchor is a int"),
        (lambda: kt.regularizers.detach(model), "has no penalties"),
    ]
    for call, message in cases:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
    assert type(model) is keras.models.Model or not model.losses
    L2SP().attach(model, head=[])
    with pytest.raises(ValueError, match="already"):
        L2SP().attach(model, head=[])
