"""kt.report: layer groups, phases and starts, and that it does not change a model."""

import json
import random

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.analysis.report.facts import group_facts
from tests import tiny

SPARSE = keras.losses.SparseCategoricalCrossentropy


def images(count=40):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 8, 8, 3)).astype("float32")
    return x, generator.integers(0, 3, count)


def compiled(model, optimizer="adam", **kwargs):
    kwargs = dict(metrics=["accuracy"], jit_compile=False) | kwargs
    model.compile(optimizer, SPARSE(from_logits=True), **kwargs)
    return model


def group(report, name):
    """Return the row of one group in a report."""
    rows = report.to_dict()["groups"]
    return next(row for row in rows if row["name"] == name)


# How far groups moved.


def test_moved_is_the_relative_norm_by_hand():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    model.layers[0].set_weights(
        [np.array([[3.0, 0.0], [0.0, 0.0]]), np.array([4.0, 0.0])]
    )
    kt.analysis.record_start(model)
    model.layers[0].set_weights(
        [np.array([[3.0, 0.6], [0.0, 0.0]]), np.array([4.0, 0.8])]
    )
    row = group(kt.report(model), "out")
    assert row["moved"] == pytest.approx(1.0 / 5.0)
    assert row["moved_is_relative"]
    assert "0.2" in str(kt.report(model))


def test_moved_is_absolute_if_the_start_is_zero():
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")]
    )
    kt.analysis.record_start(model)
    model.layers[0].set_weights([np.array([[3.0]]), np.array([4.0])])
    report = kt.report(model)
    row = report.to_dict()["groups"][0]
    assert row["moved"] == 5.0 and not row["moved_is_relative"]
    assert "5 abs." in str(report) and "because w0 is zero" in str(report)


def test_a_group_that_did_not_move_shows_zero():
    model = tiny.mlp()
    kt.analysis.record_start(model)
    report = kt.report(model)
    assert [row["moved"] for row in report.to_dict()["groups"]] == [0.0, 0.0, 0.0]
    assert "groups.moved" not in report.to_dict()["not_recorded"]


def test_the_total_covers_all_weights():
    model = tiny.mlp()
    before = np.concatenate([each.ravel() for each in model.get_weights()])
    kt.analysis.record_start(model)
    model.layers[2].kernel.assign(model.layers[2].kernel + 0.5)
    after = np.concatenate([each.ravel() for each in model.get_weights()])
    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    total = kt.report(model).to_dict()["total"]
    assert total["moved"] == pytest.approx(expected, rel=1e-6)


def test_statistics_of_batch_norm_are_counted_and_not_part_of_the_norm():
    model = tiny.convnet()
    kt.analysis.record_start(model)
    norm = model.get_layer("norm")
    norm.moving_mean.assign(norm.moving_mean + 100)
    report = kt.report(model)
    row = group(report, "norm")
    assert (row["statistics"], row["statistics_moved"]) == (2, 1)
    assert row["moved"] == 0.0
    assert group(report, "conv")["statistics"] == 0
    assert "1 of 2" in str(report)


@pytest.mark.slow
def test_statistics_move_in_training_and_stay_when_frozen():
    for frozen in (False, True):
        model = tiny.convnet()
        model.get_layer("norm").trainable = not frozen
        kt.analysis.record_start(model)
        compiled(model).fit(*images(), verbose=0)
        row = group(kt.report(model), "norm")
        assert row["statistics_moved"] == (0 if frozen else 2)
        assert (row["moved"] == 0) == frozen


def test_without_a_start_nothing_shows_zero():
    report = kt.report(tiny.convnet())
    found = report.to_dict()
    assert found["start"] is None
    assert {row["moved"] for row in found["groups"]} == {None}
    assert group(report, "norm")["statistics_moved"] is None
    assert "record_start" in found["not_recorded"]["groups.moved"]
    assert "moved: not recorded." in str(report)


def test_weights_without_a_start_are_reported():
    model = tiny.mlp()
    kt.analysis.record_start(model)
    model.layers[1].enable_lora(2)
    outer = keras.Sequential([keras.Input((6,)), model, keras.layers.Dense(2)])
    reasons = kt.report(model).to_dict()["not_recorded"]
    assert "2 of 4 variables" in reasons["groups.dense_0.moved"]
    found = kt.report(outer).to_dict()
    assert model.name in found["start"]
    assert found["groups"][-1]["moved"] is None
    assert "2 of 2 variables" in found["not_recorded"]["groups.head.moved"]


def test_weights_that_are_not_finite_are_reported():
    model = tiny.mlp()
    kt.analysis.record_start(model)
    model.layers[1].bias.assign(model.layers[1].bias * np.nan)
    report = kt.report(model)
    assert group(report, "dense_0")["moved"] is None
    reason = report.to_dict()["not_recorded"]["groups.dense_0.moved"]
    assert "not finite" in reason
    report.to_json()


def test_a_reference_can_be_a_model_or_its_weights():
    model = tiny.mlp()
    start = model.get_weights()
    reference = keras.models.clone_model(model)
    reference.set_weights(start)
    kernel = model.layers[1].kernel
    kernel.assign(kernel * 1.5)
    squares = [np.sum(np.square(each)) for each in start[:2]]
    expected = 0.5 * np.sqrt(squares[0] / sum(squares))
    for given in (reference, start):
        row = group(kt.report(model, None, given), "dense_0")
        assert row["moved"] == pytest.approx(expected, rel=1e-5)


def test_a_reference_has_priority_over_a_recorded_start():
    model = tiny.mlp()
    kt.analysis.record_start(model)
    zeros = [np.zeros_like(each) for each in model.get_weights()]
    row = group(kt.report(model, reference=zeros), "dense_0")
    assert row["moved"] > 0 and not row["moved_is_relative"]


# Trainable parameters and optimizer bytes.


def test_adam_uses_eight_bytes_for_each_trainable_parameter():
    model = tiny.mlp()
    model.layers[1].trainable = False
    compiled(model).fit(np.ones((8, 6)), np.zeros(8), verbose=0)
    report = kt.report(model)
    first, second, third = report.to_dict()["groups"]
    assert (first["parameters"], first["trainable"]) == (35, 0)
    assert first["optimizer_bytes"] == 0
    for row in (second, third):
        assert row["trainable"] == row["parameters"]
        assert row["optimizer_bytes"] == 8 * row["parameters"]
    optimizer = report.to_dict()["optimizer"]
    kept = sum(_keras.value(each).nbytes for each in model.optimizer.variables)
    assert optimizer["bytes"] == kept
    assert optimizer["shared_bytes"] == kept - 8 * (24 + 15)
    assert optimizer["class"] == "Adam" and optimizer["updates"] == 1


@pytest.mark.parametrize(
    "make, slots",
    [
        (lambda: keras.optimizers.SGD(), 0),
        (lambda: keras.optimizers.SGD(momentum=0.9), 1),
        (lambda: keras.optimizers.AdamW(use_ema=True), 3),
        (lambda: keras.optimizers.Adam(amsgrad=True), 3),
        (lambda: keras.optimizers.Lion(gradient_accumulation_steps=2), 2),
        (lambda: keras.optimizers.Nadam(), 2),
    ],
    ids=["sgd", "momentum", "ema", "amsgrad", "accumulation", "nadam"],
)
def test_slots_are_assigned_to_the_groups_of_their_variables(make, slots):
    model = tiny.mlp()
    plain = compiled(model, make())
    plain.optimizer.build(model.trainable_variables)
    rows = kt.report(model).to_dict()["groups"]
    assert [row["optimizer_bytes"] for row in rows] == [
        4 * slots * row["parameters"] for row in rows
    ]
    optimizer = kt.optimizers.discriminative(make(), model)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse", jit_compile=False)
    rows = kt.report(model).to_dict()["groups"]
    assert [row["optimizer_bytes"] for row in rows] == [
        4 * slots * row["parameters"] for row in rows
    ]


def test_slots_of_adafactor_and_of_several_optimizers():
    model = tiny.mlp()
    compiled(model, keras.optimizers.Adafactor())
    model.optimizer.build(model.trainable_variables)
    # A row and a column of the kernel, two empty slots of the bias, and one slot of
    # the same size as the weights.
    expected = 4 * (6 + 5 + 2 + 35)
    assert group(kt.report(model), "dense_0")["optimizer_bytes"] == expected
    several = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(), {"dense_0/.*": keras.optimizers.Adam()}
    )
    compiled(model, keras.optimizers.MultiOptimizer(several))
    model.optimizer.build(model.trainable_variables)
    rows = kt.report(model).to_dict()["groups"]
    assert [row["optimizer_bytes"] for row in rows] == [280, 0, 0]


def test_a_missing_or_unbuilt_optimizer_is_not_recorded():
    model = tiny.mlp()
    found = kt.report(model).to_dict()
    assert found["optimizer"] is None
    assert found["not_recorded"]["optimizer"] == "the model is not compiled"
    found = kt.report(compiled(model)).to_dict()
    assert found["optimizer"]["bytes"] is None
    assert {row["optimizer_bytes"] for row in found["groups"]} == {None}
    assert "when training begins" in found["not_recorded"]["optimizer.bytes"]


# Training cost.


def unfrozen():
    """Return a model that was fitted in three phases, and its history."""
    model = compiled(tiny.convnet())
    phases = [("logits", 1), (["hidden", "logits"], 2), (["conv", "logits"], 1)]
    unfreezing = kt.callbacks.GradualUnfreezing(model, phases)
    x, y = images()
    return model, model.fit(
        x, y, validation_data=(x, y), epochs=5, callbacks=[unfreezing], verbose=0
    )


@pytest.mark.slow
def test_phases_come_from_gradual_unfreezing():
    model, history = unfrozen()
    report = kt.report(model, history)
    phases = report.to_dict()["phases"]
    assert [each["phase"] for each in phases] == [0, 1, 2]
    assert [each["first_epoch"] for each in phases] == [0, 1, 3]
    assert [each["num_epochs"] for each in phases] == [1, 2, 2]
    seconds = history.history["seconds"]
    assert phases[1]["seconds"] == pytest.approx(seconds[1] + seconds[2])
    for phase, epoch in zip(phases, (0, 2, 4), strict=True):
        names = {"loss", "accuracy", "val_loss", "val_accuracy"}
        assert phase["at_its_end"].keys() == names
        assert phase["at_its_end"]["loss"] == history.history["loss"][epoch]
    names = [each.pop("groups") for each in phases]
    assert names == [["logits"], ["hidden", "logits"], ["conv", "logits"]]
    plain = kt.report(model, history.history).to_dict()
    assert [each.pop("groups") for each in plain["phases"]] == [None] * 3
    assert plain["phases"] == phases
    assert "GradualUnfreezing" in plain["not_recorded"]["phases.groups"]


def test_a_plain_history_has_no_phases_and_no_seconds():
    history = {"loss": [3.0, 2.0, 1.0]}
    report = kt.report(tiny.mlp(), history)
    (phase,) = report.to_dict()["phases"]
    assert phase["phase"] is None and phase["seconds"] is None
    assert phase["trainable_parameters"] is None
    assert (phase["num_epochs"], phase["at_its_end"]) == (3, {"loss": 1.0})
    missing = report.to_dict()["not_recorded"]
    assert {"history.phase", "history.seconds"} <= missing.keys()
    row = next(each for each in str(report).splitlines() if "loss 1" in each)
    assert row.split("  ")[0].strip() == "not recorded"


def test_a_history_with_an_initial_epoch_keeps_its_epochs():
    model = compiled(tiny.mlp())
    x, y = np.ones((8, 6)), np.zeros(8)
    history = model.fit(x, y, initial_epoch=4, epochs=6, verbose=0)
    found = kt.report(model, history).to_dict()
    assert found["epochs"] == [4, 5]
    assert found["phases"][0]["last_epoch"] == 5


def test_a_history_with_values_that_are_not_numbers():
    history = {
        "loss": [1.0, float("nan")],
        "phase": ["head", "all"],
        "seconds": [1.5, 2.5],
        "trainable_parameters": [10, 20],
        "learning_rate": [0.1, 0.01],
        "val_loss": [1.0],
        "f1": [[1.0, 2.0], [3.0, 4.0]],
    }
    report = kt.report(tiny.mlp(), history)
    found = report.to_dict()
    first, second = found["phases"]
    assert [first["phase"], second["phase"]] == ["head", "all"]
    assert first["at_its_end"] == {"loss": 1.0}
    assert second["at_its_end"] == {"loss": None}
    assert [each["trainable_parameters"] for each in found["phases"]] == [10, 20]
    missing = found["not_recorded"]
    assert missing["history.val_loss"] == "1 value(s) for 2 epoch(s)"
    assert missing["history.loss"] == "some values are NaN or infinite"
    assert found["not_finite"] == {"loss": 1}
    assert "not numbers" in missing["history.f1"]
    assert "loss not recorded" in str(report)
    report.to_html()


@pytest.mark.parametrize(
    "history, error, message",
    [
        ({}, ValueError, "no epochs"),
        ({"loss": []}, ValueError, "no epochs"),
        (keras.callbacks.History(), ValueError, "no epochs"),
        ([1.0, 2.0], TypeError, "is a list"),
        ({"loss": 1.0}, TypeError, "is a dict"),
        ("loss", TypeError, "is a str"),
    ],
)
def test_a_history_that_cannot_be_read_raises(history, error, message):
    with pytest.raises(error, match=message):
        kt.report(tiny.mlp(), history)


# Errors.


def test_a_reference_of_another_shape_raises():
    model = tiny.mlp()
    with pytest.raises(ValueError, match=r"dense_1/kernel.*\(5, 4\)"):
        kt.report(model, reference=tiny.mlp(widths=(5, 7, 3)))
    arrays = model.get_weights()
    with pytest.raises(ValueError, match="has 5 weights, but the model .* has 6"):
        kt.report(model, reference=arrays[:-1])
    with pytest.raises(ValueError, match=r"'array 0' of shape \(5,\)"):
        kt.report(model, reference=arrays[1:] + arrays[:1])
    with pytest.raises(TypeError, match="reference is a str"):
        kt.report(model, reference="model.keras")


def test_a_reference_with_weights_in_another_order_raises():
    def norms(center):
        layer = keras.layers.BatchNormalization(center=center, scale=not center)
        return keras.Sequential([keras.Input((3,)), layer])

    with pytest.raises(ValueError, match="does not fit"):
        kt.report(norms(True), reference=norms(False))


def test_a_model_that_cannot_be_reported_raises():
    with pytest.raises(TypeError, match="not str"):
        kt.report("model")
    with pytest.raises(ValueError, match="not built"):
        kt.report(keras.Sequential([keras.layers.Dense(1)]))
    groups = kt.layer_groups(tiny.mlp())
    groups.model.layers[1].enable_lora(2)
    with pytest.raises(ValueError, match="Call `layer_groups` again"):
        kt.report(groups)


def test_custom_groups_are_used():
    model = tiny.mlp()
    groups = kt.layer_groups(model, [("body", "dense_[01]"), ("top", "dense_2")])
    assert [row["name"] for row in kt.report(groups).to_dict()["groups"]] == [
        "body",
        "top",
    ]


# A report does not change the model.


class Restless(keras.layers.Layer):
    """Layer that changes its state in each call, also in inference."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def build(self, shape):
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls"
        )

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs + 0.0 * keras.random.normal((), seed=self.seed)


def restless():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(Restless()(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Dropout(0.5)(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def state(model):
    """Return all state that a report could change, except `_called`."""
    variables = [*model.variables, *model.metrics_variables]
    if model.compiled and model.optimizer.built:
        variables += model.optimizer.variables
    return {
        "variables": [
            [part.tobytes() for part in parts] for parts in _keras.snapshot(variables)
        ],
        "flags": (_keras.flags(model), [each.trainable for each in model.weights]),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "keras": _keras.value(keras.random.uniform((2,))).tolist(),
        "attributes": {k: id(v) for k, v in vars(model).items() if k != "_called"},
        "functions": [
            id(getattr(model, f"{name}_function"))
            for name in ("train", "test", "predict")
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_report_changes_nothing(used, tmp_path):
    model = compiled(restless(), jit_compile="auto")
    x, y = images()
    model.layers[1].trainable = False
    history = None
    if used:
        kt.analysis.record_start(model)
        history = model.fit(x, y, validation_data=(x, y), verbose=0)
        model.predict(x[:4], verbose=0)
    model.jit_compile  # noqa: B018  Keras sets the value at the first access
    keras.utils.set_random_seed(3)
    before = state(model)
    keras.utils.set_random_seed(3)
    report = kt.report(model, history, data=(x, y))
    str(report)
    report.to_markdown()
    for suffix in ("html", "json"):
        report.save(tmp_path / f"report.{suffix}")
    after = state(model)
    for key, value in before.items():
        assert after[key] == value, key


def test_an_error_halfway_changes_nothing():
    model = compiled(restless())
    x, y = images()
    keras.utils.set_random_seed(3)
    before = state(model)
    keras.utils.set_random_seed(3)
    y[-1] = 3
    with pytest.raises(ValueError, match="not a class of the model") as caught:
        kt.report(model, data=(x, y))
    # The state must be restored although the traceback still exists.
    assert state(model) == before
    del caught


def test_two_reports_are_equal():
    model, history = compiled(tiny.convnet()), {"loss": [2.0, 1.0], "phase": [0, 1]}
    kt.analysis.record_start(model)
    first, second = (kt.report(model, history, data=images()) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert first.to_html() == second.to_html()


@pytest.mark.slow
def test_a_report_does_not_change_further_training():
    losses = []
    for read in (False, True):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model = compiled(restless())
        for _ in range(2):
            model.fit(*images(), verbose=0)
            if read:
                kt.report(model, data=images())
        losses.append(model.evaluate(*images(), verbose=0))
    assert losses[0] == losses[1]


# All kinds of models.


@pytest.mark.slow
def test_a_model_on_two_replicas(strategy):
    with strategy.scope():
        model = compiled(tiny.convnet(), keras.optimizers.Adam())
    kt.analysis.record_start(model)
    x, y = images()
    history = model.fit(x, y, batch_size=20, verbose=0)
    before = _keras.snapshot(model.variables)
    report = kt.report(model, history, data=(x, y))
    found = report.to_dict()
    for a, b in zip(before, _keras.snapshot(model.variables), strict=True):
        assert [each.tobytes() for each in a] == [each.tobytes() for each in b]
    assert found["groups"][0]["optimizer_bytes"] == 8 * 112
    assert found["total"]["statistics_moved"] == 2
    expected = model.predict(x, verbose=0).argmax(1)
    assert found["evaluation"]["examples"] == 40
    assert found["evaluation"]["accuracy"] == pytest.approx(np.mean(expected == y))


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_a_model_in_half_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = compiled(tiny.convnet(), keras.optimizers.SGD(0.1, momentum=0.9))
    kt.analysis.record_start(model)
    model.fit(*images(), verbose=0)
    found = kt.report(model, data=images()).to_dict()
    size = 4 if policy == "mixed_float16" else 2
    assert found["groups"][0]["optimizer_bytes"] == size * 112
    assert found["groups"][0]["moved"] > 0
    assert found["evaluation"]["examples"] == 40
    assert found["optimizer"]["class"] == "SGD"


def test_integer_weights_are_not_part_of_the_norm():
    layer = keras.layers.Dense(2, name="out")
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.quantize("int8")
    kt.analysis.record_start(model)
    layer.bias.assign(layer.bias + 1)
    report = kt.report(model)
    assert group(report, "out")["moved"] > 0
    assert report.to_dict()["total"]["parameters"] == 12 - 2 + 2


def test_frozen_backbones_and_transfer_classifiers():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")]
    )
    frozen = kt.backbones.FrozenBackbone(inner)
    model = compiled(kt.models.TransferClassifier(frozen, 3))
    kt.analysis.record_start(model)
    model.fit(*images(), verbose=0)
    total = kt.report(model, data=images()).to_dict()["total"]
    assert total["trainable"] == 4 * 3 + 3 < total["parameters"]


@pytest.mark.slow
def test_a_task_with_raw_texts():
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=8
    )
    model = keras_hub.models.BertTextClassifier(
        backbone=tiny.bert(num_layers=1), num_classes=2, preprocessor=preprocessor
    )
    texts, labels = ["good", "bad <b>film</b>\x1b[31m", "good good"], [0, 0, 0]
    predicted = model.predict(np.array(texts), verbose=0).argmax(1)
    labels = 1 - predicted  # all wrong
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((texts, labels)).batch(2)
    for data in ((texts, labels), (np.array(texts), labels), dataset):
        report = kt.report(model, data=data)
        found = report.to_dict()["evaluation"]
        assert found["accuracy"] == 0.0
        assert {each["example"] for each in found["worst"]} == set(texts)
        assert "\x1b" not in str(report) + report.to_html()
        assert "&lt;b&gt;film&lt;/b&gt;" in report.to_html()
    json.loads(report.to_json())


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_model_with_string_inputs(shape):
    vectors = keras.layers.TextVectorization(
        output_sequence_length=4, vocabulary=["good", "bad"]
    )
    model = keras.Sequential(
        [
            keras.Input(shape, dtype="string"),
            vectors,
            keras.layers.Embedding(5, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    bias = model.layers[-1].bias
    bias.assign([100.0, 0.0])
    texts = np.array(["good", "bad"]).reshape(2, *shape)
    found = kt.report(model, data=(texts, [0, 1])).to_dict()["evaluation"]
    assert found["examples"] == 2
    assert [each["example"] for each in found["worst"]] == ["bad"]


def test_the_facts_add_up():
    model = compiled(tiny.convnet())
    model.optimizer.build(model.trainable_variables)
    facts, _ = group_facts(kt.layer_groups(model), None)
    for key in ("layers", "parameters", "trainable", "statistics"):
        assert facts["total"][key] == sum(row[key] for row in facts["groups"])
    assert facts["total"]["parameters"] == model.count_params()
    used = sum(row["optimizer_bytes"] for row in facts["groups"])
    assert used + facts["optimizer"]["shared_bytes"] == facts["optimizer"]["bytes"]
