"""The findings of a report: each rule on cases made by hand, and on real fits."""

import json

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.analysis.report.findings import findings
from tests import tiny

SPARSE = keras.losses.SparseCategoricalCrossentropy
NOTHING = "Nothing notable was found. Checked: "


def history_of(groups=None, **logs):
    """Return a History with these logs, and the groups of its phases."""
    history = keras.callbacks.History()
    history.history = logs
    history.epoch = list(range(len(next(iter(logs.values())))))
    if groups is not None:
        history.phase_groups = groups
    return history


def found(history=None, model=None, **kwargs):
    model = tiny.mlp() if model is None else model
    return kt.report(model, history, **kwargs).to_dict()["findings"]


def found_in(**logs):
    return found(history_of(**logs))


def fixed_classifier(count):
    """Return a model whose predicted class is its input."""
    model = keras.Sequential(
        [
            keras.Input((), dtype="int32"),
            keras.layers.Embedding(count, count, name="lookup"),
        ]
    )
    model.layers[0].set_weights([np.eye(count) * 9.0])
    model.compile("sgd", SPARSE(from_logits=True), jit_compile=False)
    return model


def found_for(matrix, **kwargs):
    """Return the findings for a confusion matrix."""
    matrix = np.array(matrix)
    true, predicted = np.nonzero(matrix)
    counts = matrix[true, predicted]
    data = (np.repeat(predicted, counts), np.repeat(true, counts))
    return found(None, fixed_classifier(len(matrix)), data=data, **kwargs)


# Nothing notable, and missing data.


def test_without_data_nothing_is_checked():
    (sentence,) = found()
    assert sentence.startswith("Nothing was checked")


def test_nothing_notable_says_what_was_checked():
    (sentence,) = found_in(loss=[3.0, 2.0, 1.0])
    assert sentence.startswith(NOTHING)
    assert "whether the training loss fell" in sentence
    for absent in ("validation", "phase", "class", "moved", "outputs"):
        assert absent not in sentence


def test_all_rules_are_checked_if_there_is_nothing_notable():
    model = fixed_classifier(3)
    kt.analysis.record_start(model)
    x = np.arange(30) % 3
    model.compile("adam", SPARSE(from_logits=True), jit_compile=False)
    model.train_on_batch(x, x)
    history = history_of(
        ((("lookup",)), ("lookup",)),
        loss=[2.0, 1.5, 1.0, 0.9],
        accuracy=[0.5, 0.6, 0.7, 0.7],
        val_accuracy=[0.5, 0.6, 0.6, 0.65],
        val_loss=[2.0, 1.5, 1.4, 1.3],
        phase=[0, 0, 1, 1],
        trainable_parameters=[9, 9, 9, 9],
    )
    # The head improves in the last epoch of its phase, so make this the first rule.
    history.history["val_accuracy"][:2] = [0.6, 0.6]
    (sentence,) = found(history, model, data=(x, x))
    assert sentence.startswith(NOTHING) and sentence.count(";") == 11


def test_values_that_are_not_recorded_give_no_findings():
    (sentence,) = found_in(
        loss=[2.0, None, 1.0],
        val_accuracy=[0.9, None, None],
        accuracy=[0.9, 0.9, 1.0],
        val_loss=[1.0],
    )
    assert sentence.startswith(NOTHING)


def test_a_metric_without_a_known_direction_is_left_out():
    logs = dict(loss=[2.0, 1.0], penalty=[9.0, 0.0], val_penalty=[9.0, 0.0])
    (sentence,) = found_in(**logs)
    assert sentence.startswith(NOTHING)
    assert "last epoch" not in sentence


def test_a_keras_metric_states_its_direction():
    history = history_of(loss=[2.0, 1.0, 0.5], val_r=[0.9, 0.9, 0.1])
    model = tiny.mlp()
    assert found(history, model)[0].startswith(NOTHING)
    metric = keras.metrics.R2Score(name="r")
    model.compile("sgd", "mse", metrics=[metric], jit_compile=False)
    x, y = np.ones((4, 6), "float32"), np.arange(12.0).reshape(4, 3)
    model.evaluate(x, y, verbose=0)
    (sentence,) = found(history, model)
    assert "the validation r is 0.1 (epoch 3) and was 0.9 (epoch 1)" in sentence


def test_at_most_eight_findings_and_the_most_important_one_is_first():
    model = fixed_classifier(12)
    x = np.arange(12).repeat(10)
    names = [f"out_{i}" for i in range(12)]
    logs = {"loss": [1.0, np.nan], "val_loss": [1.0, 2.0], "accuracy": [0.9, 0.99]}
    sentences = found(history_of(**logs), model, data=(x * 0, x), class_names=names)
    assert "NaN or infinite in epoch 2" in sentences[0]
    assert "predicts class 'out_0' for 120 of 120" in sentences[1]
    report = kt.report(model, history_of(**logs)).to_dict()
    report |= {
        "directions": {"loss": False},
        "broken": dict.fromkeys("abcdefghijk", ""),
    }
    assert len(findings(report, {}, report["broken"])) == 8


# The loss.


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite(value):
    (sentence,) = found_in(loss=[3.0, 2.0, value, value])
    assert sentence == "The training loss became NaN or infinite in epoch 3."
    (sentence,) = found_in(loss=[3.0, 2.0, 1.0], val_loss=[1.0, 1.0, value])
    assert sentence == "The validation loss became NaN or infinite in epoch 3."


def test_a_loss_that_does_not_fall():
    (sentence,) = found_in(loss=[2.3, 2.4, 2.299])
    assert sentence == (
        "The training loss did not fall: it was 2.3 (epoch 1), and its lowest value "
        "after that is 2.299 (epoch 3)."
    )
    assert found_in(loss=[2.3, 2.4, 2.2])[0].startswith(NOTHING)
    assert found_in(loss=[-1.0, -1.1])[0].startswith(NOTHING)
    assert "did not fall" in found_in(loss=[-1.0, -0.9])[0]
    assert "training loss fell" not in found_in(loss=[2.3])[0]
    adversarial = dict(loss=[2.0, 2.0], domain_loss=[1.0, 2.0])
    assert "did not fall" not in found_in(**adversarial)[0]


def test_outputs_that_are_not_finite():
    model = fixed_classifier(2)
    model.layers[0].set_weights([np.full((2, 2), np.nan)])
    (sentence,) = found(None, model, data=(np.zeros(4), np.zeros(4)))
    assert "cannot be evaluated, because 4 of 4 outputs are NaN" in sentence


# The start of a phase.

PHASES = (("dense_2",), ("dense_0", "dense_1", "dense_2"))


def fall(values, phase=(0, 0, 1, 1, 1), groups=PHASES, name="val_accuracy", **logs):
    history = history_of(
        groups, **{name: values}, phase=list(phase[: len(values)]), **logs
    )
    return [each for each in found(history) if "began" in each]


def test_a_fall_at_a_phase_names_groups_epochs_and_values():
    (sentence,) = fall([0.44, 0.45, 0.14, 0.3, 0.2])
    assert sentence == (
        "The validation accuracy fell from 0.45 (epoch 2) to 0.14 (epoch 3) when phase "
        "1 began and the groups 'dense_0', 'dense_1' thawed. It did not recover: the "
        "best value after that is 0.3 (epoch 4)."
    )
    (sentence,) = fall([0.44, 0.45, 0.14, 0.3, 0.47])
    assert sentence.endswith("It was back at 0.47 (epoch 5).")
    (sentence,) = fall([0.44, 0.45, 0.14])
    assert sentence.endswith("thawed.")


def test_a_fall_without_known_groups_names_the_parameters():
    counts = [15, 15, 74, 74, 74]
    values = [0.44, 0.45, 0.14, 0.3, 0.2]
    (sentence,) = fall(values, groups=None, trainable_parameters=counts)
    assert "phase 1 began and 74 instead of 15 parameters were trainable." in sentence
    (sentence,) = fall(values, groups=None)
    assert "when phase 1 began. It" in sentence


def test_a_fall_with_many_groups_names_the_first_and_the_last():
    groups = (("head",), (*(f"block_{i}" for i in range(6)), "head"))
    (sentence,) = fall([0.44, 0.45, 0.14], groups=groups)
    assert "and 6 groups thawed, from 'block_0' to 'block_5'." in sentence


def test_small_and_noisy_falls_are_no_findings():
    assert not fall([0.44, 0.45, 0.41, 0.5, 0.5])
    assert not fall([0.6, 0.45, 0.35, 0.5, 0.5])
    assert fall([0.5, 0.45, 0.35, 0.5, 0.5])
    assert not fall([0.44, 0.45, 0.46, 0.14, 0.14])
    assert not fall([0.44, 0.45, 0.14, 0.1, 0.1], phase=(0, 0, 0, 0, 0))
    assert not fall([0.44, 0.45, 0.14, 0.1, 0.1], name="accuracy")


def test_a_rise_of_the_loss_at_a_phase():
    (sentence,) = fall([1.0, 0.9, 1.2, 1.0, 0.8], name="val_loss")
    assert sentence.startswith("The validation loss rose from 0.9 (epoch 2) to 1.2")
    assert sentence.endswith("It was back at 0.8 (epoch 5).")
    assert not fall([1.0, 0.9, 0.95, 0.9, 0.8], name="val_loss")
    assert not fall([9.0, 0.001, 0.1, 0.1, 0.1], name="val_loss")


def test_a_metric_comes_before_the_loss_and_only_one_of_them_is_shown():
    values = dict(val_loss=[1.0, 0.9, 1.9, 1.9, 1.9])
    (sentence,) = fall([0.4, 0.4, 0.1, 0.1, 0.1], **values)
    assert "accuracy" in sentence
    (sentence,) = fall([0.4, 0.4, 0.4, 0.4, 0.4], **values)
    assert "loss" in sentence


def test_the_three_largest_falls_are_shown():
    values = [0.9, 0.8, 0.9, 0.6, 0.9, 0.4, 0.9, 0.2]
    groups = [(str(i),) for i in range(8)]
    sentences = fall(values, phase=range(8), groups=groups)
    assert [each.split("when ")[1][:7] for each in sentences] == [
        "phase 7",
        "phase 5",
        "phase 3",
    ]


def test_the_number_of_examples_gives_the_standard_error():
    def model_and_data(count):
        x = np.arange(count) % 4
        return fixed_classifier(4), (x, np.where(np.arange(count) % 2, x, (x + 2) % 4))

    for count, notable in ((40, False), (4000, True)):
        model, data = model_and_data(count)
        history = history_of(
            PHASES, val_accuracy=[0.53, 0.56, 0.5], phase=[0, 0, 1], loss=[3, 2, 1]
        )
        sentences = found(history, model, data=data)
        assert any("began" in each for each in sentences) == notable
        # The accuracy of other data says nothing about the validation data.
        history.history["val_accuracy"][-1] = 0.501
        sentences = found(history, model, data=data)
        assert any("began" in each for each in sentences)


# The last and the best epoch, and training against validation.


def test_a_last_epoch_that_is_worse_than_the_best():
    (sentence,) = found_in(val_accuracy=[0.7, 0.82, 0.82, 0.7])
    assert sentence == (
        "The last epoch is worse than the best epoch: the validation accuracy is 0.7 "
        "(epoch 4) and was 0.82 (epoch 2). It is 0.12 lower."
    )
    (sentence,) = found_in(val_loss=[2.0, 1.0, 1.5])
    assert "is 1.5 (epoch 3) and was 1 (epoch 2). It is 0.5 higher." in sentence
    assert found_in(val_accuracy=[0.7, 0.82, 0.8])[0].startswith(NOTHING)
    assert found_in(val_loss=[2.0, 1.0, 1.05])[0].startswith(NOTHING)


def test_epochs_follow_the_history():
    history = history_of(val_accuracy=[0.8, 0.7])
    history.epoch = [4, 5]
    assert "is 0.7 (epoch 6) and was 0.8 (epoch 5)" in found(history)[0]


def test_overfitting():
    (sentence,) = found_in(accuracy=[0.6, 0.99], val_accuracy=[0.6, 0.8])
    assert sentence == (
        "In the last epoch (2), the training accuracy of 0.99 is far above the "
        "validation accuracy of 0.8. This is a sign of overfitting."
    )
    assert found_in(accuracy=[0.6, 0.89], val_accuracy=[0.6, 0.8])[0].startswith(
        NOTHING
    )
    (sentence,) = found_in(loss=[2.0, 0.4], val_loss=[2.0, 1.9])
    assert "the training loss of 0.4 is far below the validation loss" in sentence
    assert found_in(loss=[2.0, 1.0], val_loss=[2.0, 1.9])[0].startswith(NOTHING)
    assert found_in(loss=[2.0, 0.001], val_loss=[2.0, 0.01])[0].startswith(NOTHING)


def test_overconfidence():
    (sentence,) = (
        each
        for each in found_in(
            val_accuracy=[0.7, 0.8, 0.82], val_loss=[1.0, 0.5, 0.8], loss=[2, 1, 0.5]
        )
    )
    assert sentence == (
        "The validation loss rose from 0.5 (epoch 2) to 0.8 (epoch 3), but the "
        "validation accuracy did not get clearly worse: 0.8 and 0.82. This is a sign "
        "of overconfident predictions."
    )
    worse = found_in(val_accuracy=[0.7, 0.8, 0.7], val_loss=[1.0, 0.5, 0.8])
    assert not any("overconfident" in each for each in worse)
    assert "last epoch is worse" in worse[0]
    assert found_in(val_accuracy=[0.8, 0.8], val_loss=[0.5, 0.52])[0].startswith(
        NOTHING
    )


# The head.


def head(values, phase=(0, 0, 0, 1), groups=PHASES, name="val_accuracy", **logs):
    history = history_of(groups, **{name: values}, phase=list(phase), **logs)
    return [each for each in found(history) if "improving when" in each]


def test_a_head_that_was_still_improving():
    (sentence,) = head([0.3, 0.5, 0.6, 0.7])
    assert sentence == (
        "The head was still improving when its phase ended: in the last two epochs of "
        "the phase, the validation accuracy went from 0.5 (epoch 2) to 0.6 (epoch 3)."
    )
    assert head([3.0, 2.0, 1.0, 1.0], name="val_loss")
    counts = dict(trainable_parameters=[15, 15, 15, 74])
    assert head([0.3, 0.5, 0.6, 0.7], groups=None, **counts)


def test_a_head_that_did_not_improve_or_was_not_alone():
    assert not head([0.3, 0.6, 0.601, 0.7])
    assert not head([0.7, 0.5, 0.6, 0.7])
    assert not head([3.0, 2.0, 1.95, 1.0], name="val_loss")
    assert not head([0.5, 0.6, 0.7, 0.7], phase=(0, 1, 1, 1))
    assert not head([0.3, 0.5, 0.6, 0.7], phase=(0, 0, 0, 0))
    assert not head([0.3, 0.5, 0.6, 0.7], groups=PHASES[::-1])
    assert not head([0.3, 0.5, 0.6, 0.7], groups=None)
    assert not head([0.3, 0.5, 0.6, 0.7], name="accuracy")


# Classes.


def test_a_class_that_is_never_predicted():
    sentences = found_for([[20, 0, 0], [0, 20, 0], [6, 6, 0]])
    assert sentences[0] == "Class 2 is never predicted, but 12 examples have it."
    names = ["ape", "bee", "cat"]
    sentences = found_for([[20, 0, 0], [0, 20, 0], [6, 6, 0]], class_names=names)
    assert sentences[0] == "Class 'cat' is never predicted, but 12 examples have it."
    few = found_for([[20, 0, 0], [0, 20, 0], [2, 2, 0]])
    assert not any("never" in each for each in few)
    absent = found_for([[20, 0, 0], [0, 20, 0], [0, 0, 0]])
    assert absent[0].startswith(NOTHING)


def test_several_classes_that_are_never_predicted():
    matrix = np.diag([40, 40, *[0] * 8])
    matrix[2:, 0] = 5
    sentence = next(each for each in found_for(matrix) if "never" in each)
    assert sentence == (
        "8 of 10 classes are never predicted: 2, 3, 4, 5, 6 and 3 more. 40 examples "
        "have these classes."
    )


def test_a_label_that_is_never_predicted():
    layer = keras.layers.Dense(3, "sigmoid", kernel_initializer="identity")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "binary_crossentropy", jit_compile=False)
    y = np.arange(30).reshape(10, 3) % 2
    x = np.where(y, 5.0, -5.0)
    assert found(None, model, data=(x, y))[0].startswith(NOTHING)
    x[:, 1] = -5.0
    (sentence,) = found(None, model, data=(x, y))
    assert sentence == "Class 1 is never predicted, but 5 examples have it."


def test_one_class_for_nearly_everything():
    (sentence,) = found_for([[0, 0, 34], [0, 1, 30], [0, 1, 34]])
    assert sentence == (
        "The model predicts class 2 for 98 of 100 examples, but 35 have this class."
    )
    (sentence,) = found_for([[0, 30], [0, 30]])
    assert "predicts class 1 for 60 of 60 examples, but 30" in sentence


def test_an_accuracy_that_is_not_above_the_most_frequent_class():
    (sentence,) = found_for([[80, 10], [5, 5]])
    assert sentence == (
        "The accuracy of 0.85 is not clearly above 0.9, the accuracy of always "
        "predicting class 0 (the standard error is 0.036)."
    )
    assert "not clearly above" in found_for([[55, 10], [25, 10]])[0]
    assert found_for([[40, 10], [10, 40]])[0].startswith(NOTHING)
    assert found_for([[50, 0], [0, 0]])[0].startswith(NOTHING)
    assert found_for([[2, 2], [2, 2]])[0].startswith(NOTHING)


def test_the_most_confused_classes():
    matrix = np.full((5, 5), 1) + np.diag([95] * 5)
    matrix[3, 1] = 16
    matrix[1, 3] = 4
    (sentence,) = found_for(matrix)
    assert sentence == (
        "The most confused classes are 3 and 1: 16 of 115 examples of 3 are predicted "
        "as 1, and 4 of 103 examples of 1 as 3."
    )
    assert found_for(np.full((5, 5), 2) + np.diag([90] * 5))[0].startswith(NOTHING)
    assert found_for([[40, 10], [10, 40]])[0].startswith(NOTHING)


def test_more_than_fifty_classes_have_no_confusion_matrix():
    matrix = np.diag([20] * 60)
    assert found_for(matrix)[0].startswith(NOTHING)
    matrix[7] = np.roll(matrix[7], 1)
    (sentence,) = found_for(matrix)
    assert sentence == "Class 7 is never predicted, but 20 examples have it."


def test_the_output_is_named():
    x = keras.Input((2,))
    a, b = (
        keras.layers.Dense(2, kernel_initializer="identity", name=name)(x)
        for name in "ab"
    )
    model = keras.Model(x, [a, b])
    model.compile(
        "sgd", [SPARSE(from_logits=True), SPARSE(from_logits=True)], jit_compile=False
    )
    y = np.arange(40) % 2
    x = np.eye(2)[y] * 9
    (sentence,) = found(None, model, data=(x, [y, 0 * y + (np.arange(40) < 20)]))
    assert sentence.startswith("Output 'b': The accuracy of 0.5 is not clearly above")


def test_tokens_of_one_example_count_once_for_the_standard_error():
    model = keras.Sequential(
        [keras.Input((50,), dtype="int32"), keras.layers.Embedding(2, 2)]
    )
    model.layers[0].set_weights([np.eye(2) * 9.0])
    model.compile("sgd", SPARSE(from_logits=True), jit_compile=False)
    y = np.arange(200).reshape(4, 50) % 2
    x = np.where(np.arange(200).reshape(4, 50) % 5, y, 1 - y)
    (sentence,) = found(None, model, data=(x, y))
    assert "(the standard error is 0.2)" in sentence


# Groups.


def trained(frozen=(), dead=()):
    """Return a trained model with its start. No gradient reaches groups in `dead`."""
    model = tiny.mlp()
    kt.analysis.record_start(model)
    for name in frozen:
        model.get_layer(name).trainable = False
    model.compile("adam", "mse", jit_compile=False)
    start = {name: model.get_layer(name).get_weights() for name in dead}
    model.fit(np.ones((8, 6)), np.ones((8, 3)), verbose=0)
    for name, weights in start.items():
        model.get_layer(name).set_weights(weights)
    return model


def test_a_group_that_did_not_move():
    (sentence,) = found(None, trained(dead=["dense_0"]))
    assert sentence == (
        "The group 'dense_0' was trainable, but its weights did not move."
    )
    (sentence,) = found(None, trained(dead=["dense_0", "dense_1"]))
    assert sentence == (
        "2 groups were trainable, but their weights did not move: 'dense_0', 'dense_1'."
    )


def test_groups_that_were_not_to_move_are_no_finding():
    for model in (trained(), trained(frozen=["dense_0"])):
        (sentence,) = found(None, model)
        assert sentence == f"{NOTHING}whether each trainable group moved."
    model = trained(frozen=["dense_0"])
    model.get_layer("dense_0").trainable = True  # after training
    assert found(None, model)[0].startswith(NOTHING)


def test_a_start_from_after_training_is_no_finding():
    model = trained()
    kt.analysis.record_start(model, again=True)
    assert found(None, model)[0].startswith("Nothing was checked")


def test_the_phases_say_which_groups_were_trainable():
    model = trained(dead=["dense_0", "dense_1"])
    history = history_of(
        (("dense_2",), ("dense_1", "dense_2")), loss=[2.0, 1.0], phase=[0, 1]
    )
    (sentence,) = found(history, model)
    assert "The group 'dense_1' was trainable" in sentence
    history.history["phase"] = [0, 0]
    assert found(history, model)[0].startswith(NOTHING)


# Real fits, and the formats.


def data(count=240):
    generator = np.random.default_rng(0)
    y = np.arange(count) % 3
    x = generator.normal(size=(count, 6)) + 4 * np.eye(6)[y]
    return x.astype("float32"), y


def unfrozen(head_epochs=4, epochs=6, rate=1.0):
    keras.utils.set_random_seed(0)
    model = tiny.mlp()
    sgd = keras.optimizers.SGD(0.05)
    model.compile(
        sgd, SPARSE(from_logits=True), metrics=["accuracy"], jit_compile=False
    )
    names = kt.layer_groups(model).names
    phases = [(names[-1], head_epochs), (names, None, rate)]
    unfreezing = kt.callbacks.GradualUnfreezing(model, phases)
    x, y = data()
    settings = dict(validation_data=(x, y), callbacks=[unfreezing], verbose=0)
    return model, model.fit(x, y, epochs=epochs, **settings)


@pytest.mark.slow
def test_a_fit_whose_second_phase_destroys_the_model():
    model, history = unfrozen(rate=1500.0)
    assert history.phase_groups == PHASES
    before, after = history.history["val_accuracy"][3:5]
    assert before - after > 0.1
    sentences = found(history, model)
    assert sentences[0].startswith(
        f"The validation accuracy fell from {before:.4g} (epoch 4) to {after:.4g} "
        "(epoch 5) when phase 1 began and the groups 'dense_0', 'dense_1' thawed."
    )
    phases = kt.report(model, history).to_dict()["phases"]
    assert [tuple(each["groups"]) for each in phases] == list(PHASES)


def test_a_fit_whose_head_was_still_improving():
    model, history = unfrozen(head_epochs=2, epochs=4)
    third, fourth = history.history["val_accuracy"][:2]
    (sentence,) = [each for each in found(history, model) if "head" in each]
    assert sentence.endswith(f"from {third:.4g} (epoch 1) to {fourth:.4g} (epoch 2).")


@pytest.mark.slow
def test_a_fit_without_trouble():
    model, history = unfrozen(head_epochs=20, epochs=30)
    (sentence,) = found(history, model, data=data())
    assert sentence.startswith(NOTHING)
    assert "start of each phase" in sentence and "group moved" in sentence
    report = kt.report(model, history.history).to_dict()
    assert "phases.groups" in report["not_recorded"]
    assert report["findings"][0].startswith(NOTHING)


@pytest.mark.slow
def test_the_history_of_fine_tune_names_the_groups(tmp_path):
    for _ in range(2):  # the second call finds the run finished
        keras.utils.set_random_seed(0)
        model = tiny.mlp()
        model.layers[-1].bias.assign([0.1, 0.2, 0.3])  # so the head trains alone first
        model.compile(
            "adam", SPARSE(from_logits=True), metrics=["accuracy"], jit_compile=False
        )
        history = kt.fine_tune(
            model,
            data(),
            validation_data=data(),
            epochs=3,
            strategy="lp-ft",
            directory=tmp_path / "run",
            verbose=0,
        )
        phases = kt.report(model, history).to_dict()["phases"]
        assert [each["groups"] for each in phases] == [list(each) for each in PHASES]


def test_the_findings_come_first_in_each_format():
    report = kt.report(tiny.mlp(), history_of(val_accuracy=[0.8, 0.1, 0.5]))
    (sentence,) = report.to_dict()["findings"]
    assert "(epoch 3) and was 0.8 (epoch 1)" in sentence
    assert next(iter(json.loads(report.to_json()))) == "findings"
    note = "Epochs are numbered from 1, as Keras prints them."
    text = str(report).split("\n\n")
    assert text[1] == f"Findings\n========\n- {sentence}\n{note}"
    markdown = report.to_markdown().split("\n\n")
    assert markdown[1:4] == ["## Findings", f"- {sentence}", note]
    page = report.to_html()
    assert page.index(f"<li>{sentence}</li>") < page.index("<h2>Model</h2>")
    row = next(each for each in str(report).splitlines() if "val_accuracy 0.5" in each)
    assert "  1-3  " in row


def test_harmful_names_are_escaped_in_findings():
    evil = "<b>\x1b|*" + "x" * 60
    names = ["ape", "bee", evil]
    matrix = [[20, 0, 0], [0, 20, 0], [6, 6, 0]]
    true, predicted = np.nonzero(matrix)
    counts = np.array(matrix)[true, predicted]
    given = (np.repeat(predicted, counts), np.repeat(true, counts))
    report = kt.report(fixed_classifier(3), data=given, class_names=names)
    assert "x" * 31 + "...' is never" in str(report)
    for text in (str(report), report.to_markdown(), report.to_html()):
        assert "\x1b" not in text
    assert "<b>" not in report.to_html() + report.to_markdown()


def test_a_report_of_an_earlier_version_has_no_findings():
    content = kt.report(tiny.mlp()).to_dict()
    del content["findings"]
    assert "Findings" not in str(kt.analysis.Report(content))
