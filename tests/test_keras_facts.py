"""Behavior of Keras 3 that we work around. A failure names the code we can remove.

Other such tests are next to the tests of our code:

- callbacks/test_gradual_unfreezing.py: flags without a retrace, Adam's late updates;
- optimizers/test_discriminative.py: averages in the wrong layer, sparse gradients, lost
  weight decay choices;
- models/test_transfer_classifier.py: flags that keras-hub does not save;
- saving/test_resume.py: flags and optimizer state that keras-hub does not save;
- backbones/test_frozen.py: `training=False` in a call.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_transfer import _keras
from keras_transfer._keras import inner_loop
from keras_transfer.optimizers.variable_rates import NadamRates
from keras_transfer.optimizers.variable_rates import VariableRates
from tests import tiny
from tests.contracts.compare import arrays
from tests.contracts.compare import fit


def data(count=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6)).astype("float32")
    return x, rng.normal(size=(count, 3)).astype("float32")


# Flags. If these fail: train_only and FrozenBackbone can set a single flag instead of
# the flags of every layer and variable.


def test_setting_an_unchanged_flag_does_not_reach_the_children():
    model = tiny.mlp()
    model.layers[1].trainable = False
    model.trainable = True  # it is already True
    assert model.layers[1].trainable is False
    model.trainable = False
    model.layers[1].trainable = True
    model.trainable = False  # it is already False
    assert model.layers[1].trainable is True


def test_frozen_parent_hides_a_trainable_child_that_the_grandparent_lists():
    inner = tiny.mlp()
    model = keras.Sequential([inner])
    model.build((None, 6))
    inner.trainable = False
    inner.layers[1].trainable = True
    assert inner.trainable_variables == []
    assert len(model.trainable_variables) == 2


def test_a_flag_is_passed_on_to_variables():
    layer = tiny.mlp().layers[1]
    layer.trainable = False
    assert not any(variable.trainable for variable in layer.variables)


def test_dropout_of_a_frozen_layer_is_active():
    # If this fails: FrozenBackbone no longer needs to call its layer with
    # training=False.
    model = keras.Sequential([keras.Input((50,)), layers.Dropout(0.5)])
    model.trainable = False
    assert (arrays(model(np.ones((4, 50)), training=True))[0] == 0).any()


# Slots of the optimizer. If these fail: GradualUnfreezing no longer needs to build the
# optimizer over the variables of all phases, and no longer needs to replace an
# optimizer with fewer slots.


def unfreeze_in_fit(retrace):
    """Fit an optimizer built on the head, and unfreeze the rest in the second epoch."""
    model = tiny.mlp()
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(), "mse")

    def unfreeze(epoch, logs=None):
        if epoch == 1:
            for layer in model.layers:
                layer.trainable = True
            retrace(model)

    fit(model, *data(), epochs=2, callbacks=[unfreezing(unfreeze)])


def unfreezing(on_epoch_begin):
    return keras.callbacks.LambdaCallback(on_epoch_begin=on_epoch_begin)


@pytest.mark.slow
def test_an_optimizer_rejects_a_variable_without_slots():
    with pytest.raises(ValueError, match="Unknown variable"):
        unfreeze_in_fit(lambda model: model.make_train_function(force=True))


def test_compile_inside_fit_fails():
    # If this fails: each phase can have its own optimizer.
    with pytest.raises(TypeError, match="not callable"):
        unfreeze_in_fit(lambda model: model.compile("adam", "mse"))


@pytest.mark.slow
def test_building_an_optimizer_again_loses_the_moments():
    model = tiny.mlp()
    adam = keras.optimizers.Adam()
    model.compile(adam, "mse")
    fit(model, *data())
    moments = arrays(adam.variables)[2:]
    assert any(moment.any() for moment in moments)
    adam.built = False
    adam.build(model.trainable_variables)
    momentums = [v for v in adam.variables if "momentum" in v.path]
    assert not any(moment.any() for moment in arrays(momentums)[-6:])


@pytest.mark.slow
def test_fit_builds_the_optimizer_before_the_callbacks_under_a_strategy(strategy):
    built = []

    class Recorder(keras.callbacks.Callback):
        def set_model(self, model):
            super().set_model(model)
            built.append(model.optimizer.built)

    def run():
        model = tiny.mlp()
        model.compile(keras.optimizers.Adam(), "mse")
        fit(model, *data(), callbacks=[Recorder()])

    run()
    with strategy.scope():
        run()
    assert built == [False, True]


def test_compile_keeps_the_optimizer_argument():
    # If this fails: _keras.replace_optimizer must set the optimizer in other places.
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.mlp()
    adam = keras.optimizers.Adam()
    model.compile(adam, "mse")
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert model._compile_config.config["optimizer"] is adam
    inner = keras.optimizers.SGD()
    _keras.replace_optimizer(model, inner)
    assert model.optimizer.inner_optimizer is inner
    config = model.get_compile_config()
    assert config["optimizer"]["class_name"] == "SGD"


def test_a_schedule_cannot_be_replaced_by_assignment():
    # If this fails: the rate of a Phase can be a learning rate instead of a factor.
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    adam = keras.optimizers.Adam(schedule)
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        adam.learning_rate = 0.1


# Rates by group. If these fail: keras.optimizers.MultiOptimizer can replace
# discriminative(), and RateTable can bind by path instead of position.


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning")
def test_multi_optimizer_loses_its_groups_after_loading(tmp_path):
    def reloaded(kind):
        inner = keras.Sequential([keras.Input((6,)), layers.Dense(4)], name="encoder")
        model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(3)])
        optimizers = keras.optimizers.OptimizerMap(kind(0.1), {"encoder/.*": kind(0.0)})
        model.compile(keras.optimizers.MultiOptimizer(optimizers), "mse")
        before = model.get_weights()[0]
        fit(model, *data())
        np.testing.assert_array_equal(model.get_weights()[0], before)
        assert model.weights[0].path == "encoder/dense/kernel"
        model.save(tmp_path / "model.keras")
        return keras.saving.load_model(tmp_path / "model.keras")

    model = reloaded(keras.optimizers.SGD)  # without a warning if there are no slots
    assert model.weights[0].path == "dense/kernel"
    before = model.get_weights()[0]
    fit(model, *data())
    assert np.abs(model.get_weights()[0] - before).max() > 1e-3

    keras.utils.clear_session(free_memory=False)
    with pytest.raises(ValueError, match="could not be loaded"):
        reloaded(keras.optimizers.Adam)


def test_nadam_has_one_momentum_product_for_all_variables():
    # If this fails: NadamRates no longer needs to keep its own products.
    first, late = keras.Variable(np.ones(2)), keras.Variable(np.ones(2))
    nadam = keras.optimizers.Nadam()
    nadam.build([first, late])
    for _ in range(3):
        nadam.apply([keras.ops.ones(2)], [first])
    assert nadam._u_product.shape == ()
    assert nadam._u_product < 0.2  # it would be 1 for `late` alone


def test_nadam_uses_the_product_of_the_block():
    moved = []
    for product in (0.9, 0.5):
        variable = keras.Variable(np.ones(2))
        nadam = keras.optimizers.Nadam(0.1)
        nadam.build([variable])
        own = nadam._u_product
        with _keras.momentum_product(nadam, keras.ops.convert_to_tensor(product)):
            nadam.update_step(keras.ops.ones(2), variable, 0.1)
        assert nadam._u_product is own
        moved.append(1 - _keras.value(variable)[0])
    assert moved[0] > 1.5 * moved[1] > 0


@pytest.mark.slow
def test_adafactor_caps_the_learning_rate():
    # If this fails: AdafactorRates can scale the rate as VariableRates does.
    moved = []
    for rate in (100.0, 50.0):
        model = tiny.mlp()
        before = model.get_weights()[0]
        model.compile(keras.optimizers.Adafactor(rate), "mse")
        fit(model, *data(4))
        moved.append(model.get_weights()[0] - before)
    np.testing.assert_array_equal(*moved)


def test_clipping_under_a_strategy_is_separate_for_each_replica(strategy):
    # If this fails: VariableRates no longer needs to clip after the sum over replicas.
    def trained():
        keras.utils.set_random_seed(0)
        model = tiny.mlp()
        model.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.01), "mse")
        x, y = data()
        fit(model, x, np.concatenate([y[:4], 100 * y[4:]]), batch_size=8)
        return model.get_weights()

    one = trained()
    with strategy.scope():
        two = trained()
    assert max(np.abs(a - b).max() for a, b in zip(one, two, strict=True)) > 1e-4


# Files and data.


def test_legacy_h5_swaps_weights_of_partly_frozen_layers(tmp_path):
    # If this fails: GradualUnfreezing and resume() can accept whole-model `.h5` files.
    def stack():
        inner = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.Dense(6)])
        inputs = keras.Input((6,))
        return keras.Model(inputs, inner(inputs))

    model = stack()
    model.layers[1].layers[0].trainable = False
    model.save(tmp_path / "model.h5")
    unfrozen = stack()
    unfrozen.load_weights(tmp_path / "model.h5")
    kernels, loaded = model.get_weights()[::2], unfrozen.get_weights()[::2]
    np.testing.assert_array_equal(loaded[0], kernels[1])
    np.testing.assert_array_equal(loaded[1], kernels[0])


@pytest.mark.slow
def test_a_keras_hub_task_does_not_shuffle_arrays():
    # If this fails: examples and guides no longer need to shuffle the data of a Task.
    seen = []
    model = tiny.bert_classifier(num_layers=1)
    step = model.train_step

    def train_step(batch):
        seen.extend(arrays(batch[0]["token_ids"])[0][:, 0])
        return step(batch)

    model.train_step = train_step
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=[], run_eagerly=True)
    ids = np.arange(8)[:, None].repeat(4, axis=1)
    x = dict(token_ids=ids, segment_ids=0 * ids, padding_mask=0 * ids + 1)
    with pytest.warns(UserWarning, match="`shuffle=True` was passed"):
        model.fit(x, np.zeros(8), batch_size=4, epochs=2, verbose=0)
    assert seen == [*range(8), *range(8)]


@pytest.mark.slow
def test_a_dataset_of_unknown_length_causes_extra_updates():
    # If this fails: data.epochs.with_length can be removed.
    known = tf.data.Dataset.from_tensor_slices(data()).batch(4)
    unknown = known.filter(lambda x, y: True)
    updates = []
    for dataset in (known, unknown):
        model = tiny.mlp()
        model.compile("adam", "mse")
        with warnings.catch_warnings(record=True, action="always") as caught:
            model.fit(dataset, epochs=2, shuffle=False, verbose=0)
        updates.append(_keras.value(model.optimizer.iterations).item())
    assert updates == [4, 6]
    assert "ran out of data" in str(caught[0].message)


def test_class_weight_with_a_dataset_must_name_all_classes():
    # If this fails: fine_tuning.class_weights no longer needs to name all classes.
    x, _ = data()
    y = np.arange(8) % 3
    model = tiny.mlp()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, class_weight={0: 2.0}, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(dataset, class_weight={0: 2.0}, shuffle=False, verbose=0)


@pytest.mark.slow
def test_a_metric_shared_by_two_models_is_not_reset_at_the_start():
    # If this fails: CachedHead no longer needs to reset its shared metrics.
    metric = keras.metrics.MeanAbsoluteError()
    counts = []

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counts.append(int(_keras.value(metric.variables[1])))

    for _ in range(2):
        model = tiny.mlp()
        model.compile("sgd", "mse", metrics=[metric])
        fit(model, *data(4), callbacks=[Recorder()])
    assert counts == [4, 8]


def test_saved_weights_do_not_include_the_seeds(tmp_path):
    # If this fails: RunFolder no longer needs to save the seeds next to the weights.
    model = keras.Sequential([keras.Input((6,)), layers.Dropout(0.5), layers.Dense(3)])
    model.compile("sgd", "mse")
    model.save_weights(tmp_path / "first.weights.h5")
    fit(model, *data())
    (after,) = arrays(_keras.seeds(model))
    model.load_weights(tmp_path / "first.weights.h5")
    assert np.array_equal(arrays(_keras.seeds(model))[0], after)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numpy_warns_about_a_keras_variable():
    # If this fails: _keras.value can be keras.ops.convert_to_numpy.
    variable = keras.Variable(np.ones(2))
    with pytest.warns(DeprecationWarning, match="__array__"):
        keras.ops.convert_to_numpy(variable)


# Private APIs. If one of these fails, Keras has renamed an attribute that `_keras`
# reads or a method that VariableRates overrides, so the override has no effect.


@pytest.mark.parametrize("kind", [VariableRates, NadamRates])
def test_all_private_methods_that_we_override_exist(kind):
    parent = keras.optimizers.Nadam if kind is NadamRates else keras.Optimizer
    own = {"_mask"}
    names = {k for k, v in vars(kind).items() if callable(v) and k[:2] != "__"} - own
    overridden = {name for name in names if name.startswith("_")} | {"update_step"}
    assert overridden <= set(dir(parent))


def test_all_private_attributes_that_we_read_exist():
    model = tiny.mlp()
    assert [type(child).__name__ for child in model._layers][1:] == ["Dense"] * 3
    layer = model.layers[1]
    assert [v.name for v in layer._trainable_variables] == ["kernel", "bias"]
    assert layer._non_trainable_variables == []
    assert layer._trainable is True
    assert next(iter(model._flatten_layers())) is model
    adam = keras.optimizers.Adam(use_ema=True)
    adam.build(model.trainable_variables)
    assert _keras.trained_by(adam) == model.trainable_variables
    shapes = [average.shape for average in _keras.moving_averages(adam)]
    assert shapes == [variable.shape for variable in model.trainable_variables]
    assert _keras.variable_index(adam, layer.bias) == 1
    assert _keras.decays(adam, layer.kernel)
    assert hasattr(adam, "_distribution_strategy")


def test_tensorflow_stores_traced_functions_where_we_read_them():
    class Model(keras.Model):
        @tf.function
        def call(self, x):
            return x

    model, count = Model(), tf.function(lambda x: x)
    x = np.ones((2, 3))
    model(x)
    assert model in vars(Model)["call"]._descriptor_cache
    count(x)
    assert hasattr(count, "_key_for_call_stats")
    clone = count._clone(None)
    assert clone.python_function is count.python_function
    assert clone.experimental_get_tracing_count() == 0
    model.compile(loss="mse")
    _keras.remake_functions(model, "train", "predict")
    assert type(model.predict_function) is type(count)
    cells = [cell.cell_contents for cell in model.train_function.__closure__]
    assert type(count) in map(type, cells)


def test_keras_stores_the_history_of_symbolic_tensors_where_we_read_it():
    inputs = keras.Input((5,))
    embedding = layers.Embedding(9, 4, mask_zero=True)
    embedded = embedding(inputs)
    again = embedding(inputs)
    assert _keras.source(embedded) == (embedding, 0, [inputs])
    operation, call, _ = _keras.source(again)
    assert operation is embedding and call == 1
    assert _keras.has_mask(embedded) and not _keras.has_mask(inputs)


def test_random_layers_are_recognized_by_their_generator():
    assert _keras.is_random(layers.Dropout(0.5))
    assert _keras.is_random(layers.RandomFlip())
    assert not _keras.is_random(layers.Dense(3))
    model = keras.Sequential([keras.Input((6,)), layers.Dropout(0.5), layers.Dense(3)])
    (seed,) = _keras.seeds(model)
    assert seed.shape == (2,)


def test_compile_arguments_are_kept_unchanged():
    model, metric = tiny.mlp(), keras.metrics.MeanAbsoluteError()
    sgd, loss = keras.optimizers.SGD(), keras.losses.MeanSquaredError()
    model.compile(sgd, loss, metrics=[metric])
    compiled = _keras.compile_arguments(model)
    assert compiled["loss"] is loss and compiled["metrics"] == [metric]
    model.compile("sgd")  # the earlier loss and metrics stay
    again = _keras.compile_arguments(model)
    assert again["loss"] is loss and again["metrics"] == [metric]
    assert set(fit(model, *data()).history) == {"loss", metric.name}
    model.compile(**compiled)
    kept = _keras.CompiledOptimizer(model)
    _keras.replace_optimizer(model, keras.optimizers.Adam())
    kept.restore()
    assert model.optimizer is sgd
    assert _keras.compile_arguments(model)["optimizer"] is sgd


def test_compiled_metrics_state_their_direction():
    model = tiny.mlp()
    assert _keras.metric_directions(model) == {}
    score = keras.metrics.R2Score()
    model.compile("sgd", "mse", metrics=["mae", score, lambda y, z: z])
    assert _keras.metric_directions(model) == {}
    fit(model, *data())
    assert _keras.metric_directions(model) == {"mae": False, score.name: True}


# Two domains. If these fail: _keras.running_epoch, unscaled and label_loss need another
# way to read `fit`. If Keras passes the epoch to a model, remove running_epoch.


class EpochRecorder(keras.Model):
    """A functional model that records the epoch of `fit` in `reset_metrics`."""

    def __init__(self):
        model = tiny.mlp()
        super().__init__(inputs=model.inputs, outputs=model.outputs)
        self.seen = []

    def reset_metrics(self):
        super().reset_metrics()
        self.seen.append(_keras.running_epoch(self))


@pytest.mark.slow
def test_running_epoch_is_available_in_reset_metrics():
    model = EpochRecorder()
    model.compile("sgd", "mse")
    x, y = data()
    model.fit(x, y, batch_size=4, epochs=5, initial_epoch=3, verbose=0)
    epochs = [each for each in model.seen if each is not None]
    assert epochs == [(3, 5, 2), (4, 5, 2)]
    model.evaluate(x, y, verbose=0)
    assert model.seen[-1] is None


def test_a_vector_loss_is_divided_by_the_replicas_and_a_scalar_is_not(strategy):
    class Whole(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(y_pred)

    class Vector(Whole):
        def call(self, y_true, y_pred):
            return keras.ops.reshape(super().call(y_true, y_pred), (1,))

    def values(loss):
        found = strategy.run(lambda: loss(tf.ones((2, 1)), tf.ones((2, 1))))
        return [float(each) for each in strategy.experimental_local_results(found)]

    assert values(Whole()) == [1.0, 1.0]
    assert values(Vector()) == [0.5, 0.5]


def test_the_compiled_loss_works_for_other_outputs():
    model = tiny.mlp()
    model.compile("sgd", "mse")
    x, y = data()
    fit(model, x, y)
    found = _keras.label_loss(model, y, np.zeros_like(y), None)
    assert abs(float(found) - (y**2).mean()) < 1e-6


def test_losses_of_layers_and_of_functions_are_as_keras_makes_them():
    layers = [keras.Input((6,)), keras.layers.Dense(3, kernel_regularizer="l2")]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    x, _ = data()
    outputs = model(x)
    whole = model.compute_loss(x, np.zeros(outputs.shape), outputs)
    squares = _keras.loss_of_function(keras.losses.get("mse"))
    labels = squares(np.zeros(outputs.shape), outputs)
    assert float(_keras.added_loss(model)) > 0
    assert abs(float(labels + _keras.added_loss(model) - whole)) < 1e-5


def test_calls_of_a_layer_can_run_through_a_function():
    model = tiny.mlp()
    x, _ = data()
    right = model(x)
    layer = model.layers[-1]

    def double(layer, call, x, **kwargs):
        return 2 * call(x, **kwargs)

    with _keras.calls_through([layer], double):
        np.testing.assert_allclose(model(x), 2 * right, rtol=1e-6)
    np.testing.assert_array_equal(model(x), right)


# Recurrent layers. If this fails: `substituted` must find the weight elsewhere.


def test_a_cell_reads_its_kernel_from_its_attributes():
    layer = layers.LSTM(3)
    layer.build((2, 5, 4))
    weight = layer.cell.recurrent_kernel
    x = np.ones((2, 5, 4), "float32")
    before = arrays(layer(x))
    with _keras.substituted(layer.cell, "recurrent_kernel", lambda w: 0 * w):
        inside = arrays(layer(x))
    assert np.abs(inside[0] - before[0]).max() > 1e-4
    assert layer.cell.recurrent_kernel is weight
    assert [v.name for v in layer.weights] == ["kernel", "recurrent_kernel", "bias"]
    np.testing.assert_array_equal(arrays(layer(x)), before)


# Rematerialization. If this fails: test and measure `quantize` in a traced `fit`.


def test_no_model_trains_in_a_remat_scope_in_a_graph():
    with keras.RematScope("full"):
        model = tiny.mlp()
    x, _ = data()
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="custom_gradient decorator currently"):
        model.fit(x, np.zeros((len(x), *model.output_shape[1:])), verbose=0)


def test_logits_distillation_applies_its_default_loss_to_logits():
    """The name of the default loss is a function, and only the class gets softmax.

    When Keras is fixed, `StateDistiller` need not refuse the default.
    """
    logits = np.array([[2.0, -1.0, 0.5]], "float32")
    other = np.array([[-1.0, 0.0, 3.0]], "float32")
    teacher, student = (np.exp(x) / np.exp(x).sum() for x in (logits, other))
    expected = np.sum(teacher * np.log(teacher / student))
    right = keras.distillation.LogitsDistillation(1.0, keras.losses.KLDivergence())
    stock = keras.distillation.LogitsDistillation(1.0)
    assert abs(float(right.compute_loss(logits, other)) - expected) < 1e-4
    assert abs(float(stock.compute_loss(logits, other)) - expected) > 0.1


def test_moments_of_tensorflow_have_wrong_second_derivatives():
    """The variance of n numbers has the second derivatives `2 (d_ij - 1 / n) / n`.

    When TensorFlow is fixed, `call_with` need not replace the moments.
    """
    for function, shift in ((tf.nn.moments, 0.0), (inner_loop._moments, 1 / 3)):
        x = tf.constant([1.0, 2.0, 4.0])
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                variance = function(x, [0], False)[1]
            slope = inner.gradient(variance, x)
        np.testing.assert_allclose(slope, 2 * (x - 7 / 3) / 3, atol=1e-6)
        found = outer.jacobian(slope, x, experimental_use_pfor=False)
        np.testing.assert_allclose(found, 2 * (np.eye(3) - shift) / 3, atol=1e-6)
