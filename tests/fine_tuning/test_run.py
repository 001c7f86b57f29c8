"""A run is complete, and wrong input raises, before anything changes."""

import dataclasses
from inspect import signature

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.run import Call
from keras_transfer.fine_tuning.run import Run
from tests import tiny
from tests.contracts.compare import assert_close

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data(count=12, classes=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6)).astype("float32"), np.arange(count) % classes


def labeled(y):
    return data(len(y))[0], np.asarray(y)


def dataset(count=12):
    return tf.data.Dataset.from_tensor_slices(data(count)).batch(6)


def make(optimizer="adam"):
    model = keras.Sequential(
        [keras.Input((6,)), tiny.mlp(widths=(5, 4)), keras.layers.Dense(3)]
    )
    model.compile(optimizer, SPARSE, metrics=["accuracy"], jit_compile=False)
    return model


class Batches(keras.utils.PyDataset):
    """Return the same batch `count` times."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        return data()


def state(model):
    config = _keras.compile_arguments(model)
    return (
        model.optimizer,
        model.optimizer.built,
        {name: id(value) for name, value in config.items()},
        _keras.flags(model),
        [weight.trainable for weight in model.weights],
        model.get_weights(),
    )


def run_of(model, path=None, **settings):
    names = ("batch_size", "callbacks", "class_weight", "validation_freq", "verbose")
    defaults = {
        name: signature(kt.fine_tune).parameters[name].default for name in names
    }
    settings = defaults | {"verbose": 0} | settings
    call = Call(model, data(), data(6), 3, path, (), settings)
    return Run.of(call, Candidate("lp-ft"))


def test_making_a_run_changes_nothing(tmp_path):
    model = make()
    *before, weights = state(model)
    run = run_of(model, tmp_path / "run", batch_size=5, class_weight={1: 2.0})
    *after, same = state(model)
    assert after == before and not (tmp_path / "run").exists()
    assert_close(same, weights)
    assert (run.strategy.name, run.head_epochs, run.epochs) == ("lp-ft", 0, 3)
    assert (run.num_batches, run.scheduled_batches) == (3, 9)
    assert (run.done, run.finished, run.verbose) == (0, False, 0)
    assert run.settings == {
        "class_weight": {0: 1.0, 1: 2.0, 2: 1.0},
        "validation_freq": 1,
    }
    assert run.data.seed == run.seed and run.data.clock is run.clock
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.seed = 0


@pytest.mark.slow
def test_a_run_continues_with_the_seed_of_its_folder(tmp_path):
    keras.utils.set_random_seed(1)
    seed = run_of(make()).seed
    keras.utils.set_random_seed(1)
    history = kt.fine_tune(
        make(), data(), epochs=3, strategy="lp-ft", directory=tmp_path, verbose=0
    )
    again = run_of(make(), tmp_path)
    assert again.seed == again.data.seed == seed
    assert (again.done, again.finished) == (len(history.epoch), True)


def test_with_a_callback_that_sets_the_rate_there_is_no_schedule():
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    assert run_of(make(), callbacks=scheduler).scheduled_batches is None


def refused(model, error, message, **arguments):
    arguments = dict(data=data(), epochs=3, verbose=0) | arguments
    before = state(model) if model.compiled and model.built else None
    with pytest.raises(error, match=message):
        kt.fine_tune(model, **arguments)
    if before:
        *others, weights = state(model)
        assert others == list(before[:-1])
        assert_close(weights, before[-1])


DATA = {
    "a generator": ((x for x in [data()]), TypeError, "only one pass"),
    "an iterator": (iter(dataset()), TypeError, "only one pass"),
    "an array": (data()[0], TypeError, r"tuple of arrays \(x, y\)"),
    "no labels": (data()[:1], ValueError, "no labels"),
    "None for labels": ((data()[0], None), ValueError, "no labels"),
    "a dataset of inputs": (dataset().map(lambda x, y: x), ValueError, "no labels"),
    "empty": (data(0), ValueError, "empty"),
    "an empty dataset": (dataset().take(0), ValueError, "empty"),
    "none is left": (dataset().filter(lambda x, y: False), ValueError, "empty"),
    "empty batches": (Batches(0), ValueError, "empty"),
    "infinite": (dataset().repeat(), ValueError, "no end"),
    "infinite batches": (Batches(None), ValueError, "no end"),
    "not batched": (dataset().unbatch(), ValueError, "not batched"),
    "unequal": ((data()[0], data(9)[1]), ValueError, r"\[9, 12\] examples"),
    "fewer than classes": (labeled([0, 1]), ValueError, r"2 label\(s\) for 3 classes"),
    "out of range": (labeled([0, 1, 2, 3]), ValueError, "1 of 4 .* outside 0 to 2: 3"),
    "negative": (labeled([0, 1, 2, -1]), ValueError, "outside 0 to 2: -1"),
    "one class": (labeled([1] * 9), ValueError, "of one class, 1"),
    "NaN": (labeled([0, 1, np.nan, 2]), ValueError, "1 of 4 labels are NaN"),
    "words": (labeled(["good", "bad"] * 6), ValueError, "2 names, bad, good, but"),
    "one-hot": (labeled(np.eye(3)), ValueError, "argmax"),
}


@pytest.mark.parametrize("case", DATA)
def test_wrong_data_raises(case):
    values, error, message = DATA[case]
    refused(make(), error, message, data=values)


@pytest.mark.slow
def test_features_that_are_not_finite_raise_unless_the_model_fixes_them():
    x, y = data()
    x[[3, 7], 0] = np.nan, np.inf
    refused(
        make(),
        ValueError,
        r"2 of 12 examples .*\(the first has the index 3\)",
        data=(x, y),
    )
    message = "In validation_data: 2 of 12 examples have features"
    refused(make(), ValueError, message, validation_data=(x, y))
    inputs = keras.Input((6,))
    # A ReLU turns NaN into 0 in the outputs, but not in the gradients.
    rectified = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(3)]
    )
    rectified.compile("adam", SPARSE, jit_compile=False)
    refused(rectified, ValueError, "2 of 12 examples", data=(x, y))
    filled = keras.layers.Lambda(lambda x: keras.ops.nan_to_num(x, posinf=1.0))(inputs)
    model = keras.Model(inputs, make()(filled))
    model.compile("adam", SPARSE, jit_compile=False)
    history = kt.fine_tune(model, (x, y), epochs=1, strategy="full", verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 of 3 classes have no label")
def test_a_class_without_labels_warns_and_training_runs():
    assert kt.fine_tune(make(), data(classes=2), epochs=1, verbose=0).epoch == [0]


@pytest.mark.parametrize(
    "values, error, message",
    [
        (labeled([0, 3]), ValueError, "In validation_data: 1 of 2 .* outside 0 to 2"),
        (labeled([0, np.nan]), ValueError, "In validation_data: 1 of 2 labels"),
        ((data()[0], data(9)[1]), ValueError, r"In validation_data: .*\[9, 12\]"),
        (dataset().repeat(), ValueError, "In validation_data: .* no end"),
        (data(0), ValueError, "In validation_data: .* empty"),
        ([*data()], TypeError, "In validation_data: .* tuple of arrays"),
    ],
    ids=["range", "NaN", "unequal", "infinite", "empty", "a list"],
)
def test_wrong_validation_data_raises(values, error, message):
    refused(make(), error, message, validation_data=values)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(strategy="probing"), "strategy='probing' must be"),
        (dict(strategy="lp-ft", epochs=1, data=Batches(2)), "epochs=1 is too few"),
        (dict(epochs=0), "epochs=0 must be a whole number"),
        (dict(epochs=2.5), "epochs=2.5 must be a whole number"),
        (dict(batch_size=0), "batch_size=0 must be"),
        (dict(batch_size=4, data=dataset()), "already batched"),
        (dict(class_weight=np.ones(2)), r"class_weight=array.*and there are 3 classes"),
        (dict(data=(*data(), np.full(12, np.nan))), "12 of 12 sample weights are NaN"),
        (dict(data=(*data(), ["a"] * 12)), "sample weights are not numbers but"),
        (
            dict(data=(*data(), np.ones(12)), class_weight={0: 2.0}),
            "class_weight and sample weights",
        ),
        (
            dict(callbacks=[keras.callbacks.BackupAndRestore("backup")]),
            "BackupAndRestore cannot be used .* Pass `directory=`",
        ),
        (
            dict(callbacks=kt.callbacks.GradualUnfreezing()),
            "GradualUnfreezing cannot be used",
        ),
        (
            dict(callbacks=[[keras.callbacks.ModelCheckpoint("whole.h5")]]),
            "mixes up weights",
        ),
    ],
)
def test_wrong_settings_raise(settings, message):
    refused(make(), ValueError, message, **settings)


@pytest.mark.parametrize(
    "settings, advice",
    [
        (dict(sample_weight=1), "Put the weights into `data`"),
        (dict(initial_epoch=2), "Pass `directory=`"),
        (dict(validation_split=0.2), "Pass `validation_data=`"),
    ],
)
def test_arguments_of_fit_that_fine_tune_lacks_raise(settings, advice):
    refused(make(), TypeError, advice, **settings)


@pytest.mark.slow
def test_unsupported_optimizers_raise():
    refused(make(keras.optimizers.Ftrl()), ValueError, "divides by the learning rate")
    refused(make(keras.optimizers.SGD(0.0)), ValueError, "peak_learning_rate=0.0")
    model = make()
    model.fit(*data(), verbose=0)
    refused(model, ValueError, "has made updates already")


def test_models_that_are_not_compiled_or_built_raise():
    with pytest.raises(TypeError, match="is not a Keras model"):
        kt.fine_tune(keras.layers.Dense(3), data())
    refused(tiny.mlp(), ValueError, "is not compiled")
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("adam", SPARSE, jit_compile=False)
    refused(unbuilt, ValueError, "is not built")


def test_other_folders_raise(tmp_path):
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    refused(make(), ValueError, "is not the folder of a run", directory=tmp_path)
    refused(make(), ValueError, "is a file", directory=str(thesis))
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]
    assert thesis.read_text() == "years of work"


def test_a_callback_that_raises_in_set_model_leaves_the_optimizer():
    class Picky(keras.callbacks.Callback):
        def set_model(self, model):
            raise ValueError("not this one")

    refused(make(), ValueError, "not this one", callbacks=[Picky()])
