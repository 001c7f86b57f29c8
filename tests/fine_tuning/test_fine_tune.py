"""fine_tune: each strategy, kinds of data and models, and runs that continue."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import _keras
from tests import tiny
from tests.contracts.compare import assert_close
from tests.fine_tuning.killed import Kill
from tests.fine_tuning.killed import Killed

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
CACHED = "the head trains alone on features that are computed once"


def data(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6)).astype("float32"), np.arange(count) % 3


def dataset(count=12):
    return tf.data.Dataset.from_tensor_slices(data(count)).batch(6)


def compiled(model, optimizer=None, loss=SPARSE, **settings):
    # One test below trains each strategy with XLA.
    settings = dict(jit_compile=False) | settings
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, **settings)
    return model


def make(*below, optimizer=None, seed=3, **settings):
    """Return a compiled model of a backbone with two groups, dropout and a head."""
    keras.utils.set_random_seed(seed)
    layers = [tiny.mlp(widths=(5, 4)), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *below, *layers])
    return compiled(model, optimizer, **settings)


def tune(model, xy=None, **settings):
    defaults = dict(epochs=3, verbose=0)
    if xy is None or isinstance(xy, tuple):
        defaults["batch_size"] = 6
    return kt.fine_tune(model, xy or data(), **defaults | settings)


class Moved(keras.callbacks.Callback):
    """Count the weights that changed in each epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.counts = self.counts if epoch else []
        self.before = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        pairs = zip(self.before, self.model.get_weights(), strict=True)
        self.counts.append(sum(not np.array_equal(a, b) for a, b in pairs))


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy, phases, counts, end",
    [
        ("probe", [0, 0, 0], [2, 2, 2], "head"),
        ("lp-ft", [0, 0, 0], [6, 6, 6], "dense_0, dense_1, head"),
        ("gradual", [0, 1, 1], [4, 6, 6], "dense_0, dense_1, head"),
        ("full", [0, 0, 0], [6, 6, 6], "dense_0, dense_1, head"),
        ("auto", [0, 0, 0], [6, 6, 6], "dense_0, dense_1, head"),
    ],
)
def test_each_strategy_trains_its_groups(strategy, phases, counts, end, capsys):
    model, moved = make(jit_compile=True), Moved()
    history = tune(model, strategy=strategy, callbacks=[moved], verbose=2)
    assert moved.counts == counts
    assert history.history["phase"] == phases
    assert history.epoch == [0, 1, 2]
    assert len(model.trainable_variables) == counts[-1]
    assert type(model.optimizer).__name__ == "DiscriminativeAdam"
    assert _keras.value(model.optimizer.iterations) == 6
    said = capsys.readouterr().out
    assert f"trainable now, as in the last phase: {end}\n" in said
    assert (CACHED in said) == (strategy != "full")
    assert ("the head starts where it has converged: logistic" in said) == (
        strategy != "full"
    )
    if strategy == "auto":
        assert "strategy 'lp-ft', by default" in said
    start = kt.analysis.recorded_start.start_of(model)
    first = start.get(model.weights[-2])
    assert not np.array_equal(first, _keras.value(model.weights[-2]))


@pytest.mark.slow
def test_nothing_is_printed_with_verbose_0(capfd):
    tune(make(), strategy="lp-ft", validation_data=data(6), verbose=0)
    assert capfd.readouterr() == ("", "")


def test_a_single_epoch():
    for strategy in ("full", "auto"):
        assert tune(make(), epochs=1, strategy=strategy).epoch == [0]


# Rates.


@pytest.mark.slow
def test_pretrained_groups_train_at_a_share_of_the_rate_of_a_new_head():
    model = make()
    tune(model, strategy="full")
    rates = model.optimizer.rates
    assert rates == pytest.approx({"dense_0": 0.3, "dense_1": 0.3, "head": 1.0})
    schedule = _keras.settings(model.optimizer)["learning_rate"]
    expected = kt.optimizers.SlantedTriangular(0.01, 6).get_config()
    assert schedule.get_config() == pytest.approx(expected)


@pytest.mark.slow
def test_a_converged_head_trains_like_the_rest_with_a_warmup_where_groups_thaw():
    model = make()
    tune(model, strategy="lp-ft", epochs=11)
    assert set(model.optimizer.rates.values()) == {0.3}
    schedule = _keras.settings(model.optimizer)["learning_rate"]
    assert schedule.get_config() | {"peak_learning_rate": 0.01} == {
        "peak_learning_rate": 0.01,
        "total_steps": 22,
        "thaws": [0],
        "warmup_steps": 2,
    }


@pytest.mark.slow
def test_an_adapter_is_new_and_trains_at_the_rate_itself():
    model = make()
    kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, verbose=0)
    tune(compiled(model), strategy="lp-ft", epochs=2)
    assert set(model.optimizer.rates.values()) == {1.0}


def test_the_schedule_has_as_many_steps_as_updates():
    model = make(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    tune(model, strategy="probe", epochs=2, batch_size=3)
    schedule = _keras.settings(model.optimizer)["learning_rate"]
    assert schedule.total_steps == 4 == _keras.value(model.optimizer.iterations)


@pytest.mark.slow
def test_rates_and_schedules_of_the_user_are_kept():
    model = make()
    adamw = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer = kt.optimizers.discriminative(adamw, model, rates={"dense_0": 0.3})
    optimizer.exclude_from_weight_decay(var_list=[model.weights[0]])
    tune(compiled(model, optimizer), strategy="full")
    assert model.optimizer.rates == {"dense_0": 0.3, "dense_1": 1.0, "head": 1.0}
    assert model.optimizer.decay_mask == (False, *[True] * 5)
    assert model.optimizer.weight_decay == 0.1
    for rate in (keras.optimizers.schedules.CosineDecay(0.1, 9), lambda: 0.1):
        model = make(optimizer=keras.optimizers.SGD(rate))
        tune(model, strategy="probe", epochs=1)
        assert _keras.settings(model.optimizer)["learning_rate"] is rate


# Models.


@pytest.mark.slow
def test_batch_norm_below_the_head_stays_frozen():
    x = np.random.default_rng(0).normal(size=(12, 8, 8, 3))
    # A group with only frozen BatchNorm gets no phase.
    for strategy, phases in (("gradual", [0, 1, 1, 1]), ("full", [0, 0, 0, 0])):
        model = compiled(tiny.convnet())
        before = model.get_layer("norm").get_weights()
        history = tune(model, (x, data()[1]), strategy=strategy, epochs=4)
        assert_close(model.get_layer("norm").get_weights(), before)
        assert history.history["phase"] == phases


def test_auto_is_probe_for_a_frozen_backbone():
    backbone = kt.backbones.FrozenBackbone(tiny.mlp(widths=(5, 4)))
    model = compiled(kt.models.TransferClassifier(backbone, 3))
    moved = Moved()
    tune(model, callbacks=[moved])
    assert moved.counts == [2, 2, 2]
    model = compiled(kt.models.TransferClassifier(backbone, 3))
    with pytest.raises(ValueError, match=r"`FrozenBackbone\.layer`"):
        tune(model, strategy="lp-ft")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, name="hidden")
        self.out = keras.layers.Dense(3, name="out")

    def call(self, x):
        return self.out(self.hidden(x))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        x, y = data()
        return x[6 * index :][:6], y[6 * index :][:6]


def noisy(x, y):
    return x + tf.random.uniform((1,)), y


@pytest.mark.parametrize(
    "make_model, xy, reason",
    [
        (Subclassed, data(), "Subclassed has its own call"),
        (lambda: make(Noise(name="noise")), data(), r"['noise'] below the head"),
        (make, Batches(), "the PyDataset of training can differ"),
        (make, dataset().map(noisy), "in each pass (the dataset of training)"),
    ],
    ids=["subclassed", "noise", "PyDataset", "augmented"],
)
def test_if_features_change_the_whole_model_runs(make_model, xy, reason, capsys):
    model, moved = make_model(), Moved()
    model(np.ones((1, 6)))
    compiled(model)
    held = dict(validation_data=data(6), callbacks=[moved])
    history = tune(model, xy, strategy="lp-ft", epochs=2, verbose=2, **held)
    said = capsys.readouterr().out
    assert "phase 0 runs the whole model in each epoch" in said and reason in said
    assert moved.counts == [2, len(model.weights)]
    assert len(history.history["val_loss"]) == 2


class Noise(keras.layers.Layer):
    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


@pytest.mark.slow
@pytest.mark.parametrize(
    "xy",
    [
        dataset().unbatch().shuffle(12).batch(5),
        dataset().unbatch().filter(lambda x, y: True).batch(5),
        dataset().map(lambda x, y: (x, y, tf.ones_like(y))),
    ],
    ids=["shuffled", "of unknown length", "weighted"],
)
def test_datasets_are_cached(xy, capsys):
    model = make(metrics=["accuracy"])
    arguments = dict(strategy="lp-ft", epochs=2, validation_data=xy, verbose=2)
    history = tune(model, xy, **arguments)
    assert CACHED in capsys.readouterr().out
    updates = 2 * sum(1 for _ in xy)
    assert _keras.value(model.optimizer.iterations) == updates
    assert _keras.settings(model.optimizer)["learning_rate"].total_steps == updates
    assert np.isfinite(history.history["val_loss"]).all()


@pytest.mark.slow
def test_raw_strings_for_a_task_are_shuffled(capsys):
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer(vocabulary=words), sequence_length=4
    )
    model = keras_hub.models.BertTextClassifier(
        backbone=tiny.bert(num_layers=1, dropout=0.0),
        num_classes=1,
        preprocessor=preprocessor,
    )
    seen = [[], [], []]

    class Epoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.seen = seen[epoch]

        def on_epoch_end(self, epoch, logs=None):
            self.seen = []  # the loss is evaluated after the last epoch

    def loss(y, x):
        tf.py_function(lambda y: epoch.seen.extend(y.numpy()[:, 0]), [y], [])
        return keras.ops.square(y - x)

    epoch = Epoch()
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["mae"], jit_compile=False)
    texts = list("abcdefgh")
    epoch.seen = []  # the head trains to its end before the first epoch begins
    tune(model, (texts, range(8)), strategy="lp-ft", callbacks=[epoch], verbose=2)
    assert CACHED in capsys.readouterr().out
    orders = {tuple(each) for each in seen}
    assert len(orders) == 3 and all(sorted(x) == list(range(8)) for x in orders)


@pytest.mark.slow
def test_a_task_without_a_preprocessor_accepts_token_ids():
    model = compiled(tiny.bert_classifier(num_layers=1, dropout=0.0), metrics=[])
    ids = np.random.default_rng(0).integers(1, 64, (12, 8))
    x = dict(token_ids=ids, segment_ids=0 * ids, padding_mask=0 * ids + 1)
    history = tune(model, (x, data()[1]), strategy="lp-ft", epochs=2)
    assert history.history["phase"] == [0, 0]


# Seeds.


@pytest.mark.slow
def test_the_seed_determines_the_result():
    def trained(seed):
        model = make()
        keras.utils.set_random_seed(seed)
        tune(model, strategy="full", epochs=2)
        return model.get_weights()

    first, again, other = trained(1), trained(1), trained(2)
    assert_close(first, again)
    assert not np.array_equal(first[0], other[0])


# After fine_tune.


@pytest.mark.slow
def test_the_model_can_be_saved_loaded_and_trained_again(tmp_path):
    model = make()
    tune(model, strategy="gradual")
    model.save(tmp_path / "model.keras")
    again = kt.resume(tmp_path / "model.keras")
    assert_close(again.get_weights(), model.get_weights())
    assert_close(again.optimizer.variables, model.optimizer.variables)
    for each in (model, again):
        assert len(each.fit(*data(), epochs=1, verbose=0).epoch) == 1
    with pytest.raises(ValueError, match="has made updates already"):
        tune(model)
    moved = Moved()
    tune(compiled(model), strategy="probe", epochs=1, callbacks=[moved])
    assert moved.counts == [2]


# A run that continues after an interruption.


def without_seconds(history):
    assert len(history.history["seconds"]) == len(history.epoch)
    values = {k: v for k, v in history.history.items() if k != "seconds"}
    return history.epoch, values


@pytest.mark.slow
def test_a_run_killed_in_each_phase_ends_like_an_uninterrupted_run(tmp_path):
    settings = dict(epochs=4, strategy="gradual", validation_data=data(6))

    def run(path, seed, *callbacks):
        model = make(seed=seed, metrics=[keras.metrics.SparseCategoricalAccuracy()])
        return model, tune(model, directory=path, callbacks=[*callbacks], **settings)

    whole, expected = run(tmp_path / "whole", 3)
    assert expected.history["phase"] == [0, 1, 1, 1]
    for epoch in (0, 1, 3):
        with pytest.raises(Killed):
            # Another seed than in the first run, as in a process without a seed.
            run(tmp_path / "killed", 3 + epoch, Kill(epoch))
    model, history = run(tmp_path / "killed", 9)
    assert_close(model.get_weights(), whole.get_weights())
    assert_close(model.optimizer.variables, whole.optimizer.variables)
    assert without_seconds(history) == without_seconds(expected)
    assert model.history is history


@pytest.mark.slow
def test_a_finished_run_returns_at_once(tmp_path, capsys):
    class Never(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("a log file would be overwritten")

    stop = keras.callbacks.EarlyStopping("loss", min_delta=9, restore_best_weights=True)
    for strategy, callbacks, epochs in (("probe", [], 3), ("lp-ft", [stop], 2)):
        arguments = dict(strategy=strategy, directory=tmp_path / strategy)
        first, again = make(), make(seed=4)
        history = tune(first, callbacks=callbacks, **arguments)
        assert len(history.epoch) == epochs
        same = tune(again, callbacks=[Never()], verbose=1, **arguments)
        assert without_seconds(same) == without_seconds(history)
        assert_close(again.get_weights(), first.get_weights())
        assert _keras.flags(again) == _keras.flags(first)
        assert len(again.trainable_variables) == (2 if strategy == "probe" else 6)
        assert f"ended after {epochs} epochs" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_on_a_dataset_continues(tmp_path):
    def trained():
        model = make()
        model.layers[-1].bias.assign([0.1, 0.2, 0.3])  # so the head trains alone first
        return model

    arguments = dict(strategy="lp-ft", directory=tmp_path / "run", epochs=4)
    for epoch in (0, 2):
        with pytest.raises(Killed):
            tune(trained(), dataset(), callbacks=[Kill(epoch)], **arguments)
    model = trained()
    history = tune(model, dataset(), **arguments)
    assert history.epoch == [0, 1, 2, 3]
    assert history.history["phase"] == [0, 1, 1, 1]
    whole = trained()
    tune(whole, dataset(), strategy="lp-ft", epochs=4)
    assert_close(model.get_weights(), whole.get_weights(), 1e-7)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return the folder of a run that was killed in its first epoch."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        tune(make(), strategy="probe", directory=folder, callbacks=[Kill(0)])
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(epochs=4), "epochs: 3 in the folder, 4 in this call"),
        (dict(strategy="lp-ft"), "'probe' in the folder, 'lp-ft' in this call"),
        (dict(batch_size=4), "batch_size: 6 in the folder, 4 in this call"),
        (dict(xy=data(seed=1)), "data: "),
        (dict(optimizer=keras.optimizers.Adam(0.1)), "learning_rate: 0.0"),
        (dict(optimizer=keras.optimizers.SGD(0.01)), "optimizer: 'Adam' in the folder"),
    ],
)
def test_another_run_raises_and_writes_nothing(killed, change, message):
    arguments = dict(strategy="probe", directory=killed)
    before = {each: each.stat().st_mtime_ns for each in killed.rglob("*")}
    model = make(optimizer=change.pop("optimizer", None))
    weights, optimizer = model.get_weights(), model.optimizer
    with pytest.raises(ValueError, match=message):
        tune(model, **arguments | change)
    assert {each: each.stat().st_mtime_ns for each in killed.rglob("*")} == before
    assert_close(model.get_weights(), weights)
    assert model.optimizer is optimizer


def test_layers_of_the_head_that_are_kept_frozen_do_not_converge():
    keras.utils.set_random_seed(3)
    inside = keras.layers.Dense(4, activation="relu", name="inside")
    head = [inside, keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), tiny.mlp(widths=(5, 4)), *head])
    before = inside.get_weights()
    tune(compiled(model), epochs=1, frozen="inside")
    assert_close(inside.get_weights(), before, 0)
