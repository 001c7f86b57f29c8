"""adapt: what it returns, what it leaves unchanged, kinds of models, and bad input."""

import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers
from keras import ops

import keras_transfer as kt
from keras_transfer.fine_tuning.adaptation import candidates as module
from keras_transfer.fine_tuning.adaptation.candidates import METHODS
from keras_transfer.fine_tuning.adaptation.domains import read_domains
from tests import tiny
from tests.contracts.compare import assert_close
from tests.fine_tuning.test_short_texts import task
from tests.fine_tuning.test_short_texts import TEXTS

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COUNT = 240


def domain(shift, seed, count=COUNT):
    """Return points of three clusters on a ring, turned by `shift` radians."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    angle = 2 * np.pi * y / 3 + shift + rng.normal(0, 0.4, count)
    x = np.stack([np.cos(angle), np.sin(angle), rng.normal(size=count)], axis=1)
    return x.astype("float32"), y


X, Y = domain(0.0, 0)
TARGET, HIDDEN = domain(0.9, 1)  # the labels are used to judge only


def network(classes=3, activation=None):
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(16, "tanh", name="low"),
            layers.Dense(16, "relu", name="high"),
            layers.Dense(classes, activation, name="label"),
        ]
    )


def compiled(model, loss=LOGITS, rate=0.02):
    metrics = [keras.metrics.CategoricalAccuracy(name="acc")]
    if loss is LOGITS:
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="acc")]
    model.compile(keras.optimizers.Adam(rate), loss, metrics=metrics, jit_compile=False)
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = compiled(network())
    model.fit(X, Y, epochs=15, verbose=0)
    return model


def state(model):
    """Return what `adapt` must leave as it was: weights, optimizer and metrics."""
    slots = [ops.convert_to_numpy(each) for each in model.optimizer.variables]
    metrics = {name: float(x) for name, x in model.get_metrics_result().items()}
    return model.get_weights(), model.optimizer, slots, metrics


@pytest.fixture(scope="module")
def before(model):
    """Return the state of the model before `adapted`."""
    return state(model)


@pytest.fixture(scope="module")
def adapted(model, before):
    """Return the result of one run, which the tests must not change."""
    return adapt(model)


def adapt(model, source=(X, Y), target=TARGET, **settings):
    chosen = dict(epochs=1, methods=["DeepCORAL"], verbose=0)
    return kt.adapt(model, source, target, **chosen | settings)


def accuracy(model, x=TARGET, y=HIDDEN):
    return np.mean(model.predict(x, verbose=0).argmax(1) == y)


@pytest.mark.slow
def test_all_methods_are_tried_and_the_target_gains(model, capsys, monkeypatch):
    monkeypatch.setattr(module, "RATE", 0.03)  # for fewer steps
    before = model.get_weights(), accuracy(model)
    adapted = kt.adapt(model, (X, Y), TARGET, epochs=10)
    rows = {row["method"]: row for row in adapted.adaptation.to_dict()["rows"]}
    assert [*rows] == ["source only", *METHODS[1:]]
    assert all(row["source_accuracy"] > 0.8 for row in rows.values())
    assert adapted.adaptation.chosen != "source only"
    assert accuracy(adapted) > before[1] + 0.02
    assert_close(model.get_weights(), before[0], 0)
    printed = capsys.readouterr().out
    for text in ("DANN took", "left out: AdaBN", "chose ", "reverse accuracy"):
        assert text in printed, text


def test_the_given_model_stays_as_it_was(model, before, adapted):
    weights, optimizer, slots, metrics = before
    after = state(model)
    assert adapted is not model and not hasattr(model, "adaptation")
    assert model.optimizer is optimizer
    assert_close(after[0], weights, 0)
    assert_close(after[2], slots, 0)
    assert after[3] == metrics
    shared = {id(each) for each in model.weights} & {id(x) for x in adapted.weights}
    assert not shared


def test_the_result_is_an_ordinary_compiled_model(adapted, tmp_path):
    assert isinstance(adapted, keras.Sequential)
    assert adapted.evaluate(TARGET, HIDDEN, verbose=0, return_dict=True).keys() == {
        "loss",
        "acc",
    }
    adapted.save(tmp_path / "adapted.keras")
    loaded = keras.saving.load_model(tmp_path / "adapted.keras")
    assert_close(loaded.predict(X, verbose=0), adapted.predict(X, verbose=0), 1e-6)


def test_the_seed_decides_and_the_random_state_is_kept(model, adapted):
    np.random.seed(3)
    again = adapt(model)
    drawn = np.random.rand()
    np.random.seed(3)
    assert drawn == np.random.rand()
    assert_close(again.get_weights(), adapted.get_weights(), 0)
    first, again, other = (
        read_domains(model, (X, Y), TARGET, seed).held_out[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_datasets_give_the_same_as_arrays(model, adapted):
    source = tf.data.Dataset.from_tensor_slices((X, Y)).batch(50)
    target = tf.data.Dataset.from_tensor_slices(TARGET).batch(70)
    rows = []
    for each in (adapt(model, source, target), adapted):
        rows.append(each.adaptation.to_dict()["rows"])
        for row in rows[-1]:
            del row["seconds"]
    assert rows[0] == rows[1]


def test_the_table_is_saved(adapted, tmp_path):
    result = adapted.adaptation
    assert isinstance(result, kt.fine_tuning.Adaptation)
    for name in ("a.html", "a.md", "a.json", "a.txt"):
        result.save(tmp_path / name)
        assert "DeepCORAL" in (tmp_path / name).read_text()
    assert result.chosen in str(result) and result.why in str(result)


# Kinds of models.


def copy(model):
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


@pytest.mark.slow
def test_an_untrained_network_trains_on_the_source_first():
    keras.utils.set_random_seed(0)
    model = compiled(network())
    adapted = adapt(model, epochs=15)
    assert "All layers are new" in str(adapted.adaptation)
    assert accuracy(adapted, X, Y) > 0.85


@pytest.mark.slow
def test_a_new_head_is_fine_tuned_first(model):
    trained = copy(model)
    body = keras.Sequential([keras.Input((3,)), *trained.layers[:2]])
    model = compiled(kt.models.TransferClassifier(body, num_classes=3), rate=1e-3)
    adapted = adapt(model, epochs=2)
    assert type(adapted) is kt.models.TransferClassifier
    assert "was first fine-tuned" in str(adapted.adaptation)
    assert accuracy(adapted, X, Y) > 0.85


@pytest.mark.slow
def test_batch_norm_adds_adabn():
    keras.utils.set_random_seed(0)
    model = compiled(
        keras.Sequential(
            [
                keras.Input((3,)),
                layers.Dense(16),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Dense(3),
            ]
        )
    )
    model.fit(X, Y, epochs=10, verbose=0)
    adapted = adapt(model, target=3 * TARGET + 2, methods=["AdaBN"])
    assert [row["method"] for row in adapted.adaptation.to_dict()["rows"]] == [
        "source only",
        "AdaBN",
    ]


@pytest.mark.slow
def test_an_adapter_is_copied_and_trains_on(model):
    model = compiled(copy(model))
    kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
    model.fit(X, Y, epochs=1, verbose=0)
    adapted = adapt(model, methods=["MCC"])
    assert len(adapted.weights) == len(model.weights)
    frozen = [each.trainable for each in model.weights]
    assert [each.trainable for each in adapted.weights] == frozen


@pytest.mark.slow
def test_softmax_and_one_hot_labels():
    keras.utils.set_random_seed(0)
    model = compiled(network(activation="softmax"), "categorical_crossentropy")
    one_hot = np.eye(3)[Y]
    model.fit(X, one_hot, epochs=10, verbose=0)
    adapted = adapt(model, (X, one_hot), methods=["MCC"])
    row = adapted.adaptation.to_dict()["rows"][0]
    assert row["source_accuracy"] > 0.85


@pytest.mark.slow
def test_one_output_leaves_out_methods_with_two_heads():
    keras.utils.set_random_seed(0)
    model = network(1, "sigmoid")
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", jit_compile=False)
    y = (Y == 1).astype("float32")
    model.fit(X, y, epochs=10, verbose=0)
    adapted = adapt(model, (X, y), methods=["MDD", "MCC", "DANN"])
    rows = adapted.adaptation.to_dict()["rows"]
    assert [row["method"] for row in rows] == ["source only", "DANN"]
    assert rows[0]["source_accuracy"] > 0.85
    assert "left out: MDD, MCC" in str(adapted.adaptation)


@pytest.mark.slow
def test_a_model_of_two_domains_keeps_its_kind():
    keras.utils.set_random_seed(0)
    whole = network()
    body = keras.Sequential([keras.Input((3,)), *whole.layers[:2]])
    model = compiled(kt.models.DANN(body, layers.Dense(3)))
    data = kt.data.domain_dataset((X, Y), TARGET, 32)
    model.fit(data, epochs=2, shuffle=False, verbose=0)
    adapted = adapt(model)
    assert type(adapted) is kt.models.DANN
    assert adapted.predict(TARGET, verbose=0).shape == (COUNT, 3)


@pytest.mark.slow
def test_token_ids_in_a_dictionary():
    rng = np.random.default_rng(0)

    def texts(low):
        ids = rng.integers(low, 60, (64, 12))
        ids[:, 0] = 1 + np.arange(64) % 3
        whole = np.ones((64, 12), "int32")
        return {"token_ids": ids, "segment_ids": 0 * whole, "padding_mask": whole}

    keras.utils.set_random_seed(0)
    model = tiny.bert_classifier(dropout=0.0, num_layers=1)
    model.compile(
        keras.optimizers.Adam(1e-3), LOGITS, metrics=["accuracy"], jit_compile=False
    )
    adapted = adapt(model, (texts(4), np.arange(64) % 3), texts(30), methods=["MCC"])
    assert type(adapted) is type(model)
    assert adapted.adaptation.to_dict()["rows"][1]["method"] == "MCC"


@pytest.mark.slow
def test_raw_texts_of_a_task():
    texts = np.array(TEXTS * 6, dtype=object)
    y = np.arange(len(texts)) % 2
    model = task()
    before = model.preprocessor.sequence_length
    adapted = adapt(model, (texts, y), [f"{text} h" for text in texts], methods=["MCC"])
    assert type(adapted) is type(model)
    assert model.preprocessor.sequence_length == before
    assert adapted.predict(texts[:4], verbose=0).shape == (4, 2)


def test_a_frozen_backbone_stays_and_adversaries_are_left_out(model):
    frozen = copy(model)
    for layer in frozen.layers[:2]:
        layer.trainable = False
    compiled(frozen)
    adapted = adapt(frozen, methods=["DANN", "MCC"])
    assert_close(adapted.get_weights()[:4], model.get_weights()[:4], 0)
    assert [each.trainable for each in adapted.layers] == [False, False, True]
    assert "left out: DANN" in str(adapted.adaptation)


def test_a_frozen_model_stays_as_it_is(model):
    frozen = copy(model)
    frozen.trainable = False
    adapted = adapt(compiled(frozen), methods=["DANN", "MCC"])
    assert "The model is frozen" in str(adapted.adaptation)
    assert adapted.adaptation.why == "No method can change the model."


def share_of_first(y, outputs):
    return ops.mean(ops.cast(ops.argmax(outputs, -1) == 0, "float32"))


def test_own_metrics_and_compile_options_are_kept(model):
    own = copy(model)
    own.compile(
        "sgd",
        LOGITS,
        metrics=[share_of_first],
        steps_per_execution=2,
        jit_compile=False,
    )
    adapted = adapt(own)
    assert adapted.steps_per_execution == 2 and own.compiled
    results = adapted.evaluate(X, Y, verbose=0, return_dict=True)
    assert results.keys() == {"loss", "share_of_first"}


class Unfinished(keras.metrics.Mean):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold


def test_a_metric_that_cannot_be_copied_is_named(model):
    own = keras.models.clone_model(model)
    own.compile("sgd", LOGITS, metrics=[Unfinished(0.5)], jit_compile=False)
    with pytest.raises(ValueError, match="metric 'mean'.*get_config"):
        adapt(own)


def test_several_classes_of_one_example_raise():
    own = network(activation="sigmoid")
    own.compile("sgd", "binary_crossentropy", jit_compile=False)
    with pytest.raises(ValueError, match="several classes"):
        adapt(own, (X, np.eye(3)[Y]))


def test_tables_need_the_same_columns(model, adapted):
    source, target = (
        pd.DataFrame(x, columns=list(names))
        for x, names in ((X, "abc"), (TARGET, "cab"))
    )
    with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\].*\['c', 'a', 'b'\]"):
        adapt(model, (source, Y), target)
    # float64 is float32, as in `fit`.
    target = pd.DataFrame(TARGET.astype("f8"), columns=list("abc"))
    found = adapt(model, (source, Y), target)
    assert_close(found.get_weights(), adapted.get_weights(), 0)


def test_names_of_classes_are_kept(model):
    names = np.array(["left", "right", "top"])[Y]
    adapted = adapt(model, (X, names), TARGET[:20])
    assert kt.data.class_names.class_names_of(adapted) == ("left", "right", "top")


# Bad input.


class WithLabels(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return TARGET[:40], HIDDEN[:40]


# One example of two of the three classes.
SKEWED = np.concatenate([np.flatnonzero(Y == 0), [1, 2]])


@pytest.mark.parametrize(
    "source, target, match",
    [
        ((X, Y), (TARGET, HIDDEN), "labels.*leak"),
        (
            (X, Y),
            tf.data.Dataset.from_tensor_slices((TARGET, HIDDEN)).batch(8),
            "labels.*leak",
        ),
        ((X[:, :2], Y), TARGET[:, :2], "shape|incompatible"),
        ((X, Y), TARGET[:, :2], r"float32 of \(3,\).*float32 of \(2,\)"),
        ((X[Y == 0], Y[Y == 0]), TARGET, "class"),
        ((X, Y + 7), TARGET, "outside"),
        ((X, np.full(len(X), np.nan)), TARGET, "NaN|not numbers|whole"),
        ((X, Y), TARGET[:0], "empty"),
        ((X, Y), np.full_like(TARGET, np.nan), "In `target`: .*NaN or infinite"),
        ((X, Y), WithLabels(workers=1), "labels.*leak"),
        ((X[:30], Y[:30]), TARGET, "30 examples.*at least 40"),
        ((X[SKEWED], Y[SKEWED]), TARGET, "too few examples of all classes but one"),
    ],
)
def test_data_that_do_not_fit_raise(model, source, target, match):
    with pytest.raises(ValueError, match=match):
        adapt(model, source, target)


def test_a_few_target_examples_train_nothing(model):
    adapted = adapt(model, target=TARGET[:20])
    assert adapted.adaptation.chosen == "source only"
    assert "20 examples" in adapted.adaptation.why
    assert_close(adapted.get_weights(), model.get_weights(), 0)


def test_domains_without_overlap_are_told(model):
    adapted = adapt(model, target=TARGET * 0 + np.float32(9) + 0.01 * TARGET)
    assert "do not overlap" in str(adapted.adaptation)


def test_a_candidate_that_diverges_is_named(model, monkeypatch):
    monkeypatch.setattr(module, "RATE", 1e30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = adapt(model)
    assert adapted.adaptation.chosen == "source only"
    rows = adapted.adaptation.to_dict()["rows"]
    assert "diverged" in rows[1]["verdict"]
    assert_close(adapted.get_weights(), model.get_weights(), 0)


def functional(output):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, output(layers.Conv2D(4, 3)(inputs)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def subclassed():
    model = Subclassed()
    model(X[:2])
    return model


@pytest.mark.parametrize(
    "make, x, match",
    [
        (lambda: functional(lambda x: layers.Conv2D(3, 1)(x)), None, "cannot be cut"),
        (subclassed, None, "cannot be (cut|copied)"),
        (
            lambda: functional(lambda x: layers.Dense(3)(layers.Flatten()(x))),
            X,
            "shape|incompatible",
        ),
    ],
)
def test_models_that_do_not_fit_raise(make, x, match):
    model = compiled(make())
    with pytest.raises(ValueError, match=match):
        adapt(model, (X if x is None else x, Y))


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"methods": ["DAMN"]}, "DAMN.*source only"),
        ({"methods": []}, "methods="),
        ({"methods": None}, "methods=None"),
        ({"methods": ["DANN", "DANN"]}, "different names"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**40}, "seed=1099511627776"),
        ({"verbose": "loud"}, "verbose='loud'"),
    ],
)
def test_wrong_settings_raise(model, settings, match):
    with pytest.raises(ValueError, match=match):
        adapt(model, **settings)


def test_a_model_that_is_not_ready_raises():
    with pytest.raises(ValueError, match="not compiled"):
        adapt(network())
    with pytest.raises(TypeError, match="not a Keras model"):
        adapt("model")
    regression = network()
    regression.compile("adam", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="crossentropy"):
        adapt(regression, (X, np.eye(3)[Y]))
