"""Gradual unfreezing in one `fit`, special cases of Keras, and wrong input."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.callbacks.monitor import PhaseState
from tests import tiny
from tests.contracts.callback_contract import CallbackContract
from tests.contracts.compute import tensorflow_only

GradualUnfreezing = kt.callbacks.GradualUnfreezing


def data(features=6, classes=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, features)).astype("float32")
    return x, rng.normal(size=(16, classes)).astype("float32")


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 8, 8, 3)), rng.integers(0, 3, 8)


def compiled(optimizer="sgd", model=None, **kwargs):
    model = model or tiny.mlp()
    # The contract tests XLA, so the other tests can do without it.
    model.compile(optimizer, "mse", **dict(jit_compile=False) | kwargs)
    return model


def fit(model, *callbacks, epochs=3, xy=None, **kwargs):
    x, y = xy or data()
    settings = dict(batch_size=8, shuffle=False, verbose=0)
    return model.fit(
        x, y, epochs=epochs, callbacks=list(callbacks), **settings | kwargs
    )


class Recorder(keras.callbacks.Callback):
    """Store the weights before training and after each epoch."""

    def on_train_begin(self, logs=None):
        self.weights = [self.model.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())

    def moved(self):
        """Return, for each epoch, whether each weight changed."""
        return [
            [not np.array_equal(a, b) for a, b in zip(old, new, strict=True)]
            for old, new in zip(self.weights, self.weights[1:])
        ]


class TraceCounter(keras.Model):
    """Count how often the train step is traced."""

    traces = 0

    def train_step(self, *data):
        type(self).traces += 1
        return super().train_step(*data)


class TestGradualUnfreezing(CallbackContract):
    """The contract of a callback."""

    representative = True
    replaces_optimizer = True

    def make_model(self, **settings):
        return compiled("adam", tiny.mlp((4, 3)), **settings)

    def make_callbacks(self, model):
        return [GradualUnfreezing(model)]

    @pytest.mark.slow
    def test_backup_may_come_first(self, tmp_path):
        self.check_backup(tmp_path, backup_first=True)


class TestMonitored(CallbackContract):
    """The contract of a callback whose phases end early."""

    replaces_optimizer = True
    # The compiled steps are those of the contract above.
    test_steps_per_execution_trains_the_same = test_xla_trains_the_same = None
    test_two_replicas_equal_one = None

    def make_model(self, **settings):
        return compiled("adam", tiny.mlp((4, 3)), **settings)

    def make_callbacks(self, model):
        return [GradualUnfreezing(model, epochs_per_phase=9, monitor="loss")]


def test_each_phase_trains_only_its_groups():
    model, recorder = compiled(), Recorder()
    fit(model, GradualUnfreezing(model), recorder, epochs=4)
    assert recorder.moved() == [
        [False, False, False, False, True, True],
        [False, False, True, True, True, True],
        [True] * 6,
        [True] * 6,
    ]


@tensorflow_only("Keras on JAX raises an error")
def test_stock_keras_ignores_a_toggle_without_a_retrace():
    model, recorder = compiled(), Recorder()
    for layer in model.layers[:-1]:
        layer.trainable = False

    class Toggle(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                for layer in self.model.layers:
                    layer.trainable = True

    fit(model, Toggle(), recorder, epochs=2)
    # If this test fails, Keras follows the flags and our retrace is not needed.
    assert recorder.moved()[1] == [False, False, False, False, True, True]


def test_a_frozen_layer_inside_a_trainable_parent_is_unfrozen():
    inner = tiny.mlp(widths=(5, 4))
    model = keras.Sequential([inner, keras.layers.Dense(3)])
    model.build((None, 6))
    inner.trainable = True
    inner.layers[1].trainable = False
    assert len(model.trainable_variables) == 4
    recorder = Recorder()
    fit(compiled(model=model), GradualUnfreezing(model), recorder, epochs=3)
    assert recorder.moved()[-1] == [True] * 6


@tensorflow_only("it counts the traces of TensorFlow")
def test_two_alternating_sets_of_layers_are_traced_twice():
    TraceCounter.traces = 0
    plain = tiny.mlp()
    model = compiled(model=TraceCounter(plain.inputs[0], plain.outputs[0]))
    groups = kt.layer_groups(model)
    last, both = groups.names[-1], groups.names[-2:]
    phases = [(last, 1), (both, 1), (last, 1), (both, 1)]
    fit(model, GradualUnfreezing(groups, phases), epochs=4)
    four = TraceCounter.traces
    TraceCounter.traces = 0
    fit(model, GradualUnfreezing(groups, phases[:2]), epochs=2)
    assert four == TraceCounter.traces == 2


@pytest.mark.slow
def test_compiling_again_removes_old_functions():
    model = compiled(keras.optimizers.SGD(1e-3))
    callback = GradualUnfreezing(model)
    fit(model, callback, epochs=3)
    compiled(keras.optimizers.SGD(0.0), model=model)
    before = model.get_weights()
    fit(model, callback, epochs=3)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_moments_and_the_count_of_updates_persist_over_the_phases():
    model = compiled("adam")
    fit(model, GradualUnfreezing(model), epochs=4)
    assert type(model.optimizer).__name__ == "DiscriminativeAdam"
    assert len(_keras.trained_by(model.optimizer)) == 6
    assert _keras.value(model.optimizer.iterations) == 8


def test_groups_that_never_train_have_no_slots():
    model = compiled("adam")
    fit(model, GradualUnfreezing(model, [("dense_2", 1), (["dense_1", "dense_2"], 1)]))
    assert len(_keras.trained_by(model.optimizer)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Adam", "Nadam", "Adamax", "Lamb"])
def test_a_late_group_starts_as_with_a_new_optimizer(name):
    def first_step(late):
        keras.utils.set_random_seed(0)
        optimizer = getattr(keras.optimizers, name)(1e-9)
        model = compiled(optimizer, tiny.mlp((4, 3)))
        groups = kt.layer_groups(model)
        phases = [("dense_1", 10), ("dense_0", None)] if late else [("dense_0", None)]
        epochs = 11 if late else 1
        callback = GradualUnfreezing(groups, phases)
        # At a rate of 1e-9 no weight changes, so both runs have the same gradients.
        fit(model, callback, epochs=epochs, batch_size=16)
        slots = {v.path.split("/")[-1]: v for v in model.optimizer.variables}
        kernel = [v for path, v in slots.items() if "dense_0_kernel" in path]
        return [_keras.value(v) for v in kernel], model.optimizer

    late, optimizer = first_step(late=True)
    fresh, _ = first_step(late=False)
    for a, b in zip(late, fresh, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)
    assert _keras.value(optimizer._clock).tolist() == [1, 1, 10, 10]


@tensorflow_only("stock Adam on JAX raises an error")
def test_the_first_update_of_a_late_group_is_smaller_than_with_stock_adam():
    def largest(ours):
        model, recorder = compiled(keras.optimizers.Adam(1e-4)), Recorder()
        phases = [("dense_2", 1), ("dense_0", None)]
        callback = GradualUnfreezing(model, phases)
        optimizer = model.optimizer
        if ours:
            fit(model, callback, epochs=1)
        else:
            optimizer.build(model.trainable_variables)
            train_only(model, model.layers[1].weights)
        model.optimizer.iterations.assign(1000)
        more = [callback] if ours else []
        fit(model, recorder, *more, initial_epoch=1, epochs=2, batch_size=16)
        old, new = recorder.weights
        return np.abs(new[0] - old[0]).max() / 1e-4

    assert largest(ours=True) < 1.01
    assert largest(ours=False) > 2.4


def test_the_rate_of_a_phase_does_not_change_the_learning_rate():
    def step(rate):
        keras.utils.set_random_seed(0)
        model, recorder = compiled(keras.optimizers.SGD(0.1)), Recorder()
        phases = [("dense_2", None, rate)]
        fit(model, GradualUnfreezing(model, phases), recorder, epochs=1, batch_size=16)
        assert float(_keras.value(model.optimizer.learning_rate)) == np.float32(0.1)
        return recorder.weights[1][4] - recorder.weights[0][4]

    np.testing.assert_allclose(step(0.5), 0.5 * step(1.0), rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_batch_norm_trains_or_stays_frozen_as_set(batch_norm):
    model = tiny.convnet()
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    recorder = Recorder()
    callback = GradualUnfreezing(model, batch_norm=batch_norm)
    fit(model, callback, recorder, xy=images(), epochs=4)
    names = [weight.path for weight in model.weights]
    first, last = recorder.moved()[0], recorder.moved()[-1]
    norm = [i for i, name in enumerate(names) if name.startswith("norm/")]
    assert len(norm) == 4
    assert not any(first[i] for i in norm)
    assert all(last[i] == (batch_norm == "train") for i in norm)


def test_lp_ft_trains_the_head_first_and_then_all_groups():
    model, recorder = compiled(), Recorder()
    callback = GradualUnfreezing.lp_ft(model, head_epochs=2)
    fit(model, callback, recorder, epochs=3)
    assert [sum(moved) for moved in recorder.moved()] == [2, 2, 6]


def test_without_a_model_the_phases_are_known_in_fit():
    model = compiled()
    callback = GradualUnfreezing(epochs_per_phase=2)
    with pytest.raises(AttributeError, match="not known before `fit`"):
        print(callback.phases)
    fit(model, callback, epochs=1)
    assert callback.phases.starts() == [0, 2, 4]


def test_config_makes_the_same_callback():
    model = compiled()
    callback = GradualUnfreezing(
        model, [("dense_2", 2)], batch_norm="train", monitor="loss", patience=2
    )
    again = GradualUnfreezing.from_config(callback.get_config())
    fit(model, again, epochs=1)
    assert again.get_config() == callback.get_config()
    assert list(again.phases) == list(callback.phases)
    plain = GradualUnfreezing(epochs_per_phase=3)
    assert GradualUnfreezing.from_config(plain.get_config()).epochs_per_phase == 3


@pytest.mark.slow
def test_a_phase_ends_early_when_the_monitor_stops_improving():
    model = compiled(keras.optimizers.SGD(1e-12), run_eagerly=True)
    callback = GradualUnfreezing(
        model, epochs_per_phase=50, monitor="val_loss", patience=2
    )
    fit(model, callback, epochs=7, validation_data=data())
    # Epoch 0 sets the best value. Epochs 1 and 2 do not improve it, so the phase
    # changes at epoch 3.
    assert PhaseState.kept_by(model.optimizer)[:2] == (2, 6)


@pytest.mark.parametrize("mode, phase", [("min", 0), ("max", 1)])
def test_the_mode_sets_which_direction_is_better(mode, phase):
    model = compiled(keras.optimizers.SGD(0.01), run_eagerly=True)
    callback = GradualUnfreezing(
        model, epochs_per_phase=50, monitor="loss", patience=2, mode=mode
    )
    fit(model, callback, epochs=4)
    assert PhaseState.kept_by(model.optimizer)[0] == phase


def test_a_monitor_name_without_a_known_direction_raises():
    with pytest.raises(ValueError, match="does not work for 'mean_io_u'"):
        GradualUnfreezing(monitor="mean_io_u")


def test_a_second_fit_with_a_monitor_starts_again_at_phase_0():
    model = compiled(keras.optimizers.SGD(1e-12), run_eagerly=True)
    callback = GradualUnfreezing(model, epochs_per_phase=2, monitor="loss", patience=9)
    fit(model, callback, epochs=5)
    assert PhaseState.kept_by(model.optimizer)[0] == 2
    fit(model, callback, epochs=1)
    assert PhaseState.kept_by(model.optimizer)[:2] == (0, 0)


@pytest.mark.slow
def test_an_unused_optimizer_built_for_too_few_variables_is_replaced():
    model = compiled("adam")
    model.layers[1].trainable = False
    model.optimizer.build(model.trainable_variables)
    fit(model, GradualUnfreezing(model))
    assert len(_keras.trained_by(model.optimizer)) == 6
    rates = {"dense_0": 0.5, "dense_2": 2.0}
    optimizer = kt.optimizers.discriminative(
        keras.optimizers.Adam(), model, rates=rates
    )
    compiled(optimizer, model)
    model.layers[1].trainable = False
    optimizer.build(model.trainable_variables)
    fit(model, GradualUnfreezing(model))
    assert len(_keras.trained_by(model.optimizer)) == 6
    assert model.optimizer.rates == rates | {"dense_1": 1.0}


@pytest.mark.slow
def test_freeze_compile_fit_works_under_a_strategy(strategy):
    with strategy.scope():
        model = tiny.mlp()
        for layer in model.layers[:-1]:
            layer.trainable = False
        compiled(model=model)
    recorder = Recorder()
    fit(model, GradualUnfreezing(model), recorder, epochs=3)
    assert recorder.moved()[-1] == [True] * 6


@pytest.mark.slow
def test_mixed_precision_keeps_its_loss_scale():
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled("adam")
    recorder = Recorder()
    fit(model, GradualUnfreezing(model), recorder, epochs=3)
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert type(model.optimizer.inner_optimizer).__name__ == "DiscriminativeAdam"
    assert recorder.moved()[-1] == [True] * 6


def test_works_with_early_stopping_and_epoch_checkpoints(tmp_path):
    model = compiled(keras.optimizers.SGD(1e-12))
    stop = keras.callbacks.EarlyStopping(
        "loss", patience=1, min_delta=1.0, restore_best_weights=True
    )
    keep = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", save_weights_only=True
    )
    history = fit(model, keep, GradualUnfreezing(model), stop, epochs=9)
    assert len(history.epoch) == 2
    assert (tmp_path / "best.weights.h5").exists()


@pytest.mark.slow
def test_a_task_of_keras_hub_is_unfrozen_block_by_block():
    model = tiny.bert_classifier(num_layers=1)
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=[], jit_compile=False
    )
    ids = np.random.default_rng(0).integers(1, 64, (4, 8))
    x = dict(token_ids=ids, segment_ids=0 * ids, padding_mask=0 * ids + 1)
    recorder = Recorder()
    callback = GradualUnfreezing(model)
    # A Task turns arrays into a tf.data.Dataset. fit() warns if it should shuffle it.
    fit(model, callback, recorder, xy=(x, np.array([0, 1, 2, 0])), epochs=3)
    moved = [sum(each) for each in recorder.moved()]
    assert moved[0] == 2 and moved == sorted(moved) and moved[-1] > moved[-2]


@pytest.mark.slow
def test_each_epoch_logs_its_phase_and_cost():
    model = compiled(run_eagerly=True)
    unfreezing = GradualUnfreezing(model, epochs_per_phase=2)
    history = fit(model, unfreezing, epochs=5, validation_data=data()).history
    assert history["phase"] == [0, 0, 1, 1, 2]
    assert history["trainable_parameters"] == [15, 15, 39, 39, 74]
    assert all(seconds > 0 for seconds in history["seconds"])
    assert len(history["seconds"]) == 5


def test_a_phase_that_ends_early_is_logged():
    model = compiled(keras.optimizers.SGD(1e-12), run_eagerly=True)
    unfreezing = GradualUnfreezing(model, epochs_per_phase=9, monitor="loss")
    history = fit(model, unfreezing, epochs=5).history
    assert history["phase"] == [0, 0, 1, 1, 2]


@pytest.mark.slow
def test_the_start_is_recorded_once():
    model = compiled(run_eagerly=True)
    first = model.get_weights()
    for _ in range(2):
        fit(model, GradualUnfreezing(model), epochs=3)
    start = kt.analysis.recorded_start.start_of(model)
    for variable, before in zip(model.weights, first, strict=True):
        assert np.array_equal(start.get(variable), before)
        assert not np.array_equal(_keras.value(variable), before)


def test_a_frozen_backbone_below_all_phases_is_allowed():
    backbone = kt.backbones.FrozenBackbone(tiny.mlp(widths=(5, 4)))
    model = keras.Sequential([keras.Input((6,)), backbone, keras.layers.Dense(3)])
    recorder = Recorder()
    unfreezing = GradualUnfreezing(model, [("head", None)])
    fit(compiled(model=model), unfreezing, recorder, epochs=2)
    assert recorder.moved() == [[False] * 4 + [True] * 2] * 2
    below = kt.layer_groups(model).names[-2]
    with pytest.raises(ValueError, match="cannot be unfrozen"):
        GradualUnfreezing(model, [("head", 1), ((below, "head"), 1)])


def test_a_frozen_backbone_raises_and_the_error_names_the_fix():
    backbone = kt.backbones.FrozenBackbone(tiny.mlp(widths=(5, 4)))
    model = keras.Sequential([keras.Input((6,)), backbone, keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"`FrozenBackbone\.layer`"):
        GradualUnfreezing(model)


def test_a_used_optimizer_without_the_slots_raises():
    model = compiled("adam")
    model.layers[1].trainable = False
    fit(model, epochs=1)
    before = [each.trainable for each in model.weights]
    with pytest.raises(ValueError, match=r"keras_transfer\.resume"):
        fit(model, GradualUnfreezing(model))
    assert [each.trainable for each in model.weights] == before
    assert type(model.optimizer) is keras.optimizers.Adam


def test_an_optimizer_that_cannot_have_factors_raises():
    model = compiled(keras.optimizers.Ftrl())
    with pytest.raises(ValueError, match="divides by the learning rate"):
        fit(model, GradualUnfreezing(model))


def test_a_callback_of_another_model_raises():
    model, other = compiled(), tiny.mlp()
    optimizer = model.optimizer
    with pytest.raises(ValueError, match="which has other weights"):
        fit(model, GradualUnfreezing(other))
    outer = keras.Sequential([model, keras.layers.Dense(3)])
    outer.build((None, 6))
    with pytest.raises(ValueError, match="which has other weights"):
        fit(model, GradualUnfreezing(outer))
    assert model.optimizer is optimizer


def test_an_optimizer_of_another_model_raises_and_is_unchanged():
    model, other = tiny.mlp(), tiny.mlp(widths=(7, 4, 3))
    optimizer = kt.optimizers.discriminative(keras.optimizers.Adam(), other)
    compiled(optimizer, model)
    with pytest.raises(ValueError, match="belong to no layer group"):
        fit(model, GradualUnfreezing(model))
    assert model.optimizer is optimizer


@pytest.mark.slow
def test_variables_that_were_frozen_one_by_one_stay_frozen(tmp_path):
    model = tiny.mlp()
    for layer in model.layers[1:]:
        layer.kernel.trainable = False  # as in BitFit
    recorder = Recorder()
    fit(compiled(model=model), GradualUnfreezing(model), recorder, epochs=4)
    assert recorder.moved()[-1] == [False, True] * 3
    model.save(tmp_path / "bias.keras")
    again = kt.resume(tmp_path / "bias.keras")
    recorder = Recorder()
    fit(again, GradualUnfreezing(again), recorder, initial_epoch=4, epochs=5)
    assert recorder.moved()[-1] == [False, True] * 3


@keras.saving.register_keras_serializable("tests")
class WithToken(keras.Model):
    """A model with its own weight, like the class token of a vision transformer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(4, name="hidden")
        self.out = keras.layers.Dense(3, name="out")

    def build(self, shape):
        self.token = self.add_weight(shape=(6,), name="token")
        self.hidden.build(shape)
        self.out.build((None, 4))

    def call(self, x):
        return self.out(self.hidden(keras.ops.add(x, self.token)))


def test_a_weight_of_the_model_itself_is_unfrozen_in_its_phase(tmp_path):
    model = WithToken()
    model.build((None, 6))
    recorder = Recorder()
    callback = GradualUnfreezing(model)
    assert len(callback.phases) == 3
    fit(compiled(model=model), callback, recorder, epochs=1)
    assert [sum(moved) for moved in recorder.moved()] == [2]
    model.save(tmp_path / "token.keras")
    again = kt.resume(tmp_path / "token.keras")
    assert len(again.trainable_variables) == 2
    recorder = Recorder()
    fit(again, GradualUnfreezing(again), recorder, initial_epoch=1, epochs=3)
    assert [sum(moved) for moved in recorder.moved()] == [4, 5]


class Tied(keras.layers.Layer):
    """Multiply by the transposed kernel of another layer, and add a bias."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.kernel, self.width = other.kernel, other.kernel.shape[0]

    def build(self, shape):
        self.bias = self.add_weight(shape=(self.width,), name="bias")

    def call(self, x):
        return x @ keras.ops.transpose(self.kernel) + self.bias


def test_a_tied_weight_trains_with_its_group():
    first = keras.layers.Dense(4, name="first")
    inputs = keras.Input((6,))
    x = first(inputs)
    model = keras.Model(inputs, Tied(first, name="tied")(x))
    recorder = Recorder()
    xy = data(classes=6)
    callback = GradualUnfreezing(model, [("tied", 1), ("first", 1)])
    fit(compiled(model=model), callback, recorder, xy=xy, epochs=2)
    names = [weight.path for weight in model.weights]
    assert names == ["first/kernel", "first/bias", "tied/bias"]
    assert recorder.moved() == [[False, False, True], [True, True, False]]


def test_a_model_that_the_user_froze_is_unfrozen():
    model = tiny.mlp()
    model.trainable = False
    recorder = Recorder()
    fit(compiled(model=model), GradualUnfreezing(model), recorder, epochs=3)
    assert recorder.moved()[-1] == [True] * 6


def test_the_rate_of_the_last_phase_has_no_effect_after_fit():
    model, recorder = compiled(keras.optimizers.SGD(0.1)), Recorder()
    fit(model, GradualUnfreezing(model, [("dense_2", None, 1e-9)]), recorder, epochs=1)
    assert np.abs(recorder.weights[1][4] - recorder.weights[0][4]).max() < 1e-6
    fit(model, recorder, epochs=1)
    assert np.abs(recorder.weights[1][4] - recorder.weights[0][4]).max() > 1e-4


def test_a_schedule_without_a_config_is_kept():
    class Halving(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 * 0.5 ** keras.ops.cast(step, "float32")

    for rate in (Halving(), lambda: 0.1):
        model = compiled(keras.optimizers.SGD(rate))
        recorder = Recorder()
        fit(model, GradualUnfreezing(model), recorder, epochs=1)
        assert sum(recorder.moved()[0]) == 2
        assert model.optimizer._learning_rate is rate


def test_weights_set_between_two_fits_are_not_undone_by_averages():
    sgd = keras.optimizers.SGD(0.1, use_ema=True)
    model = compiled(sgd)
    callback = GradualUnfreezing(
        model, [("dense_2", 9), (["dense_1", "dense_2"], None)]
    )
    fit(model, callback, epochs=1)
    model.layers[2].set_weights([np.ones((5, 4)), np.ones(4)])
    fit(model, callback, epochs=1)
    assert (model.layers[2].get_weights()[0] == 1).all()


def test_the_state_of_another_schedule_is_ignored():
    model = compiled(keras.optimizers.SGD(1e-12), run_eagerly=True)
    first = GradualUnfreezing(model, monitor="loss")
    fit(model, first, epochs=3)
    assert PhaseState.kept_by(model.optimizer)[0] == 2
    second = GradualUnfreezing.lp_ft(model, head_epochs=9, monitor="loss")
    fit(model, second, initial_epoch=3, epochs=4)
    assert PhaseState.kept_by(model.optimizer)[:2] == (0, 0)


def test_a_constant_value_does_not_improve():
    model = compiled(keras.optimizers.SGD(1e-12))
    callback = GradualUnfreezing(model, epochs_per_phase=50, monitor="loss")
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    for epoch in range(2):
        callback.on_epoch_end(epoch, {"loss": 0.1})
    assert PhaseState.kept_by(model.optimizer)[:2] == (1, 2)


def test_epochs_without_validation_do_not_count():
    model = compiled(keras.optimizers.SGD(1e-12), run_eagerly=True)
    callback = GradualUnfreezing(
        model, epochs_per_phase=50, monitor="val_loss", patience=1
    )
    fit(model, callback, epochs=5, validation_data=data(), validation_freq=2)
    assert PhaseState.kept_by(model.optimizer)[:2] == (1, 4)


def test_two_schedules_in_one_fit_raise():
    model = compiled()
    with pytest.raises(ValueError, match="two GradualUnfreezing"):
        fit(model, GradualUnfreezing(model), GradualUnfreezing(model))


def test_a_whole_model_in_the_legacy_format_raises(tmp_path):
    model = compiled()
    keep = keras.callbacks.ModelCheckpoint(str(tmp_path / "model.h5"))
    with pytest.raises(ValueError, match="mixes up weights"):
        fit(model, GradualUnfreezing(model), keep)
    with pytest.raises(ValueError, match="mixes up weights"):
        fit(model, keep, GradualUnfreezing(model))


def test_a_backup_before_a_monitor_raises(tmp_path):
    model = compiled()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(ValueError, match="first in the list of callbacks"):
        fit(model, backup, GradualUnfreezing(model, monitor="loss"))


def test_an_optimizer_made_outside_the_scope_raises(strategy):
    adam = keras.optimizers.Adam()
    with strategy.scope():
        model = tiny.mlp()
        model.compile("adam", "mse", jit_compile=False)
    model.optimizer = adam
    callback = GradualUnfreezing(model)
    with pytest.raises(ValueError, match="outside the tf.distribute scope"):
        callback.set_model(model)


def test_a_monitor_that_is_not_logged_raises():
    model = compiled()
    with pytest.raises(ValueError, match="needs validation_data"):
        fit(model, GradualUnfreezing(model, monitor="val_loss"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(batch_norm="thaw"), "batch_norm='thaw' must be"),
        (dict(mode="up"), "no effect without a monitor"),
        (dict(monitor="loss", mode="up"), "mode='up' must be"),
        (dict(patience=3), "no effect without a monitor"),
        (dict(monitor="loss", patience=0), "above 0"),
        (dict(epochs_per_phase=0), "above 0"),
        (dict(phases=[("head", 1)], epochs_per_phase=2), "has its own epochs"),
        (dict(phases=[]), "no phases"),
    ],
    ids=str,
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(compiled(), GradualUnfreezing(**arguments))
