"""TargetValidation: its logs, callbacks that monitor them, and wrong input."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from tests import tiny
from tests.contracts.callback_contract import CallbackContract
from tests.contracts.compare import build

TargetValidation = kt.callbacks.TargetValidation
DomainOverlapWarning = kt.analysis.DomainOverlapWarning
FOUR = (
    "source_accuracy",
    "target_entropy",
    "information_maximization",
    "soft_neighborhood_density",
)
RISKS = ("importance_weighted_risk", "deep_embedded_validation")
SPARSE = keras.losses.SparseCategoricalCrossentropy


def domain(count, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, size=(count, 6)).astype("float32")
    return x, (np.arange(count) % 3).astype("int32")


SOURCE, TARGET = domain(22), domain(13, 0.3, 1)[0]


def compiled(loss=None, model=None, **kwargs):
    model = model or tiny.mlp()
    kwargs = dict(jit_compile=False) | kwargs
    model.compile(
        keras.optimizers.SGD(0.01), loss or SPARSE(from_logits=True), **kwargs
    )
    return model


def with_features(model):
    """Return the model from the inputs to the input of the last layer."""
    return keras.Model(model.inputs, model.layers[-1].input)


def fit(model, *callbacks, **kwargs):
    x, y = domain(12, seed=2)
    settings = dict(batch_size=4, epochs=2, shuffle=False, verbose=0) | kwargs
    build(model, x, y)
    return model.fit(x, y, callbacks=list(callbacks), **settings).history


class TestTargetValidation(CallbackContract):
    epochs = 3

    def make_callbacks(self, model):
        # The loss of the contract is not a cross entropy.
        return [
            TargetValidation(
                SOURCE,
                TARGET,
                validators=["target_entropy", "importance_weighted_risk"],
                features=with_features(model),
                from_logits=True,
                batch_size=8,
            )
        ]


# The logs.


@pytest.mark.slow
def test_logs_equal_the_validators_on_the_outputs_of_predict():
    model = compiled()
    validation = TargetValidation(
        SOURCE, TARGET, validators=[*FOUR, *RISKS], features=with_features(model)
    )
    logs = fit(model, validation, epochs=1)
    x, y = SOURCE
    source, target = (model.predict(each, verbose=0) for each in (x, TARGET))
    features = [with_features(model).predict(e, verbose=0) for e in (x, TARGET)]
    weights = kt.analysis.importance_weights(*features)
    losses = -np.log(keras.ops.softmax(source).numpy()[np.arange(len(y)), y])
    risk = kt.analysis.importance_weighted_risk(losses, weights.weights)
    dev = kt.analysis.deep_embedded_validation(losses, weights.ratios)
    density = kt.analysis.soft_neighborhood_density(target, from_logits=True)
    expected = {
        "val_source_accuracy": np.mean(source.argmax(1) == y),
        "val_target_entropy": kt.analysis.target_entropy(target, from_logits=True),
        "val_information_maximization": kt.analysis.information_maximization(
            target, from_logits=True
        ),
        "val_soft_neighborhood_density": density,
        "val_importance_weighted_risk": -risk,
        "val_deep_embedded_validation": -dev,
        "val_effective_sample_size": weights.effective_sample_size,
    }
    assert set(logs) - {"loss"} == set(expected) == set(validation.keys)
    for name, value in expected.items():
        assert logs[name][0] == pytest.approx(value, rel=1e-4), name
        assert type(logs[name][0]) is float


def test_default_is_the_four_validators_without_features():
    history = fit(compiled(), TargetValidation(SOURCE, TARGET))
    assert set(history) == {"loss"} | {f"val_{name}" for name in FOUR}
    assert all(len(values) == 2 for values in history.values())


def test_one_hot_labels_and_probabilities():
    inputs = keras.Input((6,))
    outputs = keras.layers.Softmax()(tiny.mlp()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    one_hot = np.eye(3)[SOURCE[1]]
    x, y = domain(12)
    callbacks = [TargetValidation((SOURCE[0], one_hot), TARGET)]
    logs = model.fit(x, np.eye(3)[y], callbacks=callbacks, verbose=0).history
    expected = kt.analysis.target_entropy(model.predict(TARGET, verbose=0))
    assert logs["val_target_entropy"][0] == pytest.approx(expected, rel=1e-5)


def test_one_output_distinguishes_two_classes():
    model = compiled(keras.losses.BinaryCrossentropy(True), tiny.mlp((4, 1)))
    x, y = domain(12)[0], np.arange(12) % 2
    validation = TargetValidation((x, y), TARGET)
    logs = model.fit(x, y, callbacks=[validation], verbose=0).history
    expected = np.mean((model.predict(x, verbose=0)[:, 0] > 0) == y)
    assert logs["val_source_accuracy"][0] == pytest.approx(expected)


@pytest.mark.slow
def test_datasets_give_the_same_logs_as_arrays():
    first = fit(compiled(), TargetValidation(SOURCE, TARGET))
    source = tf.data.Dataset.from_tensor_slices(SOURCE).batch(5)
    # It shuffles again in each pass, so labels and outputs must come from one pass.
    source = source.unbatch().shuffle(22).batch(5)
    target = tf.data.Dataset.from_tensor_slices(TARGET).batch(4)
    for others in ((source, target), (Batches(SOURCE), Batches((TARGET,)))):
        again = fit(compiled(), TargetValidation(*others))
        for name in first:
            np.testing.assert_allclose(again[name], first[name], rtol=1e-4)


class Batches(keras.utils.PyDataset):
    def __init__(self, data, size=6):
        super().__init__()
        self.data, self.size = data, size

    def __len__(self):
        return math.ceil(len(keras.tree.flatten(self.data)[0]) / self.size)

    def __getitem__(self, index):
        part = slice(index * self.size, (index + 1) * self.size)
        return keras.tree.map_structure(lambda each: each[part], self.data)


def test_validators_on_the_target_need_no_source():
    names = ["information_maximization", "target_entropy"]
    history = fit(compiled(), TargetValidation(None, TARGET, validators=names))
    assert list(history)[-2:] == [f"val_{name}" for name in names]


def test_inputs_may_be_a_dict():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    model = keras.Model({"a": a, "b": b}, tiny.mlp()(keras.layers.Add()([a, b])))
    compiled(model=model)
    x, y = {"a": SOURCE[0], "b": SOURCE[0]}, SOURCE[1]
    validation = TargetValidation((x, y), {"a": TARGET, "b": TARGET})
    logs = model.fit(x, y, callbacks=[validation], verbose=0).history
    assert 0 <= logs["val_source_accuracy"][0] <= 1


@pytest.mark.slow
def test_features_default_to_the_feature_extractor_of_the_model():
    class Adapted(keras.Model):
        def __init__(self, feature_extractor, head):
            inputs = keras.Input((6,))
            super().__init__(inputs, head(feature_extractor(inputs)))
            self.feature_extractor = feature_extractor

    model = compiled(model=Adapted(tiny.mlp(), keras.layers.Dense(3)))
    validation = TargetValidation(SOURCE, TARGET, validators=RISKS)
    logs = fit(model, validation, epochs=1)
    features = [
        model.feature_extractor.predict(e, verbose=0) for e in (SOURCE[0], TARGET)
    ]
    expected = kt.analysis.importance_weights(*features).effective_sample_size
    assert logs["val_effective_sample_size"][0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_features_without_overlap_warn():
    model = compiled()
    features = keras.Sequential([keras.Input((6,)), keras.layers.Identity()])
    validation = TargetValidation(
        SOURCE, TARGET + 100, validators=RISKS, features=features
    )
    with pytest.warns(DomainOverlapWarning):
        logs = fit(model, validation)
    assert np.isfinite(list(logs.values())).all()


# The training is unchanged.


@pytest.mark.slow
def test_training_is_the_same_without_the_callback():
    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(inputs))
        x = keras.layers.GaussianNoise(0.1)(x)
        model = compiled(model=keras.Model(inputs, tiny.mlp()(x)))
        fit(model, *callbacks, shuffle=True)
        return model.get_weights()

    plain, watched = trained(), trained(TargetValidation(SOURCE, TARGET))
    for one, other in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(one, other)


class Counting(keras.layers.Layer):
    """Count how often the layer is traced for inference."""

    traces = 0

    def call(self, inputs, training=False):
        Counting.traces += not training
        return inputs


@pytest.mark.slow
def test_outputs_are_traced_once_for_all_epochs():
    def traces(epochs):
        inputs = keras.Input((6,))
        model = compiled(model=keras.Model(inputs, tiny.mlp()(Counting()(inputs))))
        validation = TargetValidation(SOURCE, TARGET, batch_size=100)
        before = Counting.traces
        fit(model, validation, epochs=epochs)
        return Counting.traces - before

    assert traces(5) == traces(2)


def test_layers_that_changed_in_place_after_predict_are_traced_again():
    model = compiled(SPARSE(from_logits=True))
    model.predict(TARGET, verbose=0)  # traced without the adapter
    kt.adapters.LoRA(rank=2, targets="dense_0").attach(model)
    for weight in model.trainable_weights:
        weight.assign(keras.ops.ones(weight.shape))
    model.compile(
        keras.optimizers.SGD(0.0), SPARSE(from_logits=True), jit_compile=False
    )
    logs = fit(model, TargetValidation(SOURCE, TARGET))
    now = model(TARGET, training=False)
    expected = kt.analysis.target_entropy(now, from_logits=True)
    assert logs["val_target_entropy"][0] == pytest.approx(expected, rel=1e-5)


# Callbacks that monitor the values.


def monitors(name, mode="max", **kwargs):
    return keras.callbacks.EarlyStopping(f"val_{name}", mode=mode, **kwargs)


@pytest.mark.slow
def test_checkpoint_and_early_stopping_monitor_the_values(tmp_path):
    model = compiled()
    keep = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras",
        monitor="val_target_entropy",
        mode="max",
        save_best_only=True,
    )
    stop = monitors("target_entropy", patience=1, min_delta=10.0)
    logs = fit(model, TargetValidation(SOURCE, TARGET), keep, stop, epochs=9)
    assert len(logs["loss"]) == 2  # no entropy improves by 10 nats
    best = keras.models.load_model(tmp_path / "best.keras").predict(TARGET, verbose=0)
    found = kt.analysis.target_entropy(best, from_logits=True)
    assert found == pytest.approx(max(logs["val_target_entropy"]), rel=1e-5)


@pytest.mark.parametrize(
    "before, message",
    [
        (monitors("target_entropy"), "EarlyStopping comes before"),
        (keras.callbacks.CSVLogger("x.csv"), "CSVLogger comes before"),
        (keras.callbacks.ReduceLROnPlateau("val_source_accuracy"), "before"),
    ],
)
def test_a_monitoring_callback_before_this_one_raises(before, message):
    with pytest.raises(ValueError, match=message):
        fit(compiled(), before, TargetValidation(SOURCE, TARGET))


@pytest.mark.parametrize("mode", ["min", "auto"])
def test_the_wrong_mode_raises(mode):
    stop = monitors("target_entropy", mode)
    with pytest.raises(ValueError, match="Pass mode=.max"):
        fit(compiled(), TargetValidation(SOURCE, TARGET), stop)


def test_monitoring_a_validator_that_is_not_computed_raises():
    stop = monitors("deep_embedded_validation")
    with pytest.raises(ValueError, match="not among the validators"):
        fit(compiled(), TargetValidation(SOURCE, TARGET), stop)


def test_other_callbacks_may_come_first():
    stop = keras.callbacks.EarlyStopping("loss", mode="min")
    logs = fit(compiled(), stop, TargetValidation(SOURCE, TARGET))
    assert len(logs["loss"]) == len(logs["val_source_accuracy"]) == 2


def test_two_in_one_fit_raise():
    two = [TargetValidation(SOURCE, TARGET) for _ in range(2)]
    with pytest.raises(ValueError, match="two TargetValidation"):
        fit(compiled(), *two)


def test_a_metric_of_the_same_name_raises():
    model = compiled(
        metrics=[keras.metrics.SparseCategoricalAccuracy("source_accuracy")]
    )
    with pytest.raises(ValueError, match="in the logs already"):
        fit(model, TargetValidation(SOURCE, TARGET), validation_data=SOURCE)


# Logits or probabilities.


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        lambda y, p: keras.ops.mean(p),
        keras.losses.MeanSquaredError(),
    ],
)
def test_a_loss_without_from_logits_raises(loss):
    model, validation = compiled(loss), TargetValidation(SOURCE, TARGET)
    x, y = domain(12)
    with pytest.raises(ValueError, match="from_logits=True or False"):
        model.fit(x, np.eye(3)[y], callbacks=[validation], verbose=0)


@pytest.mark.parametrize(
    "loss",
    [
        [SPARSE(from_logits=True)],
        {"dense_2": SPARSE(from_logits=True)},
    ],
)
def test_the_loss_sets_from_logits(loss):
    logs = fit(compiled(loss), TargetValidation(SOURCE, TARGET))
    assert np.isfinite(logs["val_source_accuracy"]).all()


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", SPARSE()])
def test_logits_with_a_loss_on_probabilities_raise(loss):
    with pytest.raises(ValueError, match="not probabilities"):
        fit(compiled(loss), TargetValidation(SOURCE, TARGET))


def test_several_labels_per_example_raise():
    model = compiled(keras.losses.BinaryCrossentropy(True))
    x, y = domain(12)
    validation = TargetValidation(SOURCE, TARGET)
    with pytest.raises(ValueError, match="exactly one class for each"):
        model.fit(x, np.eye(3)[y], callbacks=[validation], verbose=0)


def test_outputs_that_are_nan_raise():
    model = compiled()
    model.set_weights([each * np.nan for each in model.get_weights()])
    with pytest.raises(ValueError, match="training diverged"):
        fit(model, TargetValidation(SOURCE, TARGET))


@pytest.mark.slow
def test_several_outputs_raise():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, {"a": tiny.mlp()(inputs), "b": tiny.mlp()(inputs)})
    model.compile("sgd", {"a": SPARSE(True), "b": SPARSE(True)}, jit_compile=False)
    x, y = domain(12)
    validation = TargetValidation(SOURCE, TARGET, from_logits=True)
    with pytest.raises(ValueError, match="several outputs"):
        model.fit(x, {"a": y, "b": y}, callbacks=[validation], verbose=0)


# Wrong data and arguments.


def batched(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(4)


@pytest.mark.parametrize(
    "target", [domain(9), batched(*domain(9)), domain(9) + (np.ones(9),)]
)
def test_target_labels_raise(target):
    with pytest.raises(ValueError, match="leak"):
        TargetValidation(SOURCE, target)


def test_target_labels_of_a_py_dataset_raise():
    with pytest.raises(ValueError, match="leak"):
        fit(compiled(), TargetValidation(SOURCE, Batches(domain(9))))


@pytest.mark.parametrize(
    "source, target, message",
    [
        (SOURCE[0], TARGET, "with their labels"),
        (SOURCE + (np.ones(22),), TARGET, "tuple of 3"),
        ((SOURCE[0], None), TARGET, "with their labels"),
        ((SOURCE[0], SOURCE[1][:3]), TARGET, r"\[3, 22\] examples"),
        (SOURCE, TARGET[:0], "`target` is empty"),
        ((SOURCE[0][:0], SOURCE[1][:0]), TARGET, "`source` is empty"),
        (SOURCE, batched(TARGET).take(0), "`target` is empty"),
        (batched(*SOURCE).repeat(), TARGET, "has no end"),
        (batched(*SOURCE).unbatch(), TARGET, "not batched"),
        (None, TARGET, "source is None"),
    ],
)
def test_wrong_data_raises(source, target, message):
    with pytest.raises(ValueError, match=message):
        TargetValidation(source, target)


def test_iterators_raise():
    with pytest.raises(TypeError, match="only one pass"):
        TargetValidation(SOURCE, iter([TARGET]))


def test_a_source_with_one_class_raises():
    source = SOURCE[0], np.ones(22, int)
    with pytest.raises(ValueError, match="every class"):
        fit(compiled(), TargetValidation(source, TARGET))


def test_a_target_of_another_shape_raises():
    with pytest.raises(ValueError, match="(?i)shape|incompatible"):
        fit(compiled(), TargetValidation(SOURCE, TARGET[:, :4]))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"validators": ["entropy"]}, "'soft_neighborhood_density'"),
        ({"validators": []}, "one or more"),
        ({"validators": ["target_entropy"] * 2}, "without repetition"),
        ({"validators": ["target_entropy"]}, "no effect"),
        ({"clip": 2.0}, "no effect"),
        ({"features": keras.Sequential()}, "no effect"),
        ({"batch_size": 0}, "above 0"),
    ],
)
def test_wrong_values_raise(given, message):
    with pytest.raises(ValueError, match=message):
        TargetValidation(SOURCE, TARGET, **given)


@pytest.mark.parametrize(
    "given",
    [{"validators": "target_entropy"}, {"batch_size": 2.5}, {"from_logits": "yes"}],
)
def test_wrong_types_raise(given):
    with pytest.raises(TypeError, match=next(iter(given))):
        TargetValidation(SOURCE, TARGET, **given)


def test_a_batch_size_with_datasets_raises():
    with pytest.raises(ValueError, match="batches of their own"):
        TargetValidation(batched(*SOURCE), batched(TARGET), batch_size=4)


def test_risks_without_features_raise():
    validation = TargetValidation(SOURCE, TARGET, validators=RISKS)
    with pytest.raises(ValueError, match="no `feature_extractor`"):
        fit(compiled(), validation)


def test_config_restores_the_arguments():
    given = dict(validators=[*RISKS], from_logits=False, clip=3.0, batch_size=7)
    config = TargetValidation(SOURCE, TARGET, **given).get_config()
    assert config == given
    assert TargetValidation(SOURCE, TARGET, **config).get_config() == config


@pytest.mark.slow
def test_a_fit_that_ended_on_nan_still_restores_its_best_weights():
    def rate(epoch):
        return 0.01 if epoch < 2 else 1e38

    model = compiled()
    stop = keras.callbacks.EarlyStopping(
        "val_target_entropy", mode="max", patience=5, restore_best_weights=True
    )
    history = fit(
        model,
        keras.callbacks.LearningRateScheduler(rate),
        keras.callbacks.TerminateOnNaN(),
        TargetValidation(None, TARGET, validators=["target_entropy"]),
        stop,
        epochs=6,
    )
    assert math.isnan(history["val_target_entropy"][-1])
    assert all(np.isfinite(each).all() for each in model.get_weights())
