"""The evaluation in a report: metrics, worst examples, kinds of data, and errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score
from sklearn.metrics import confusion_matrix
from sklearn.metrics import mean_absolute_error
from sklearn.metrics import recall_score

import keras_transfer as kt
from tests import tiny


def identity(size, activation=None, loss=None):
    """Return a model that outputs its inputs, after an optional activation."""
    layer = keras.layers.Dense(
        size, activation, kernel_initializer="identity", name="out"
    )
    model = keras.Sequential([keras.Input((size,)), layer])
    if loss:
        model.compile("sgd", loss, jit_compile=False)
    return model


def evaluation(model, x, y):
    return kt.report(model, data=(x, y)).to_dict()["evaluation"]


LOGITS = np.array(
    [[2.0, 0, 0], [0, 1.0, 0], [3.0, 0, 0], [0, 0, 1.0], [0, 0, 4.0]], "float32"
)
TRUE = np.array([0, 1, 1, 2, 0])
SPARSE = keras.losses.SparseCategoricalCrossentropy


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


# Classes.


def test_classes_by_hand():
    found = evaluation(identity(3), LOGITS, TRUE)
    assert found["kind"] == "classes" and found["examples"] == 5
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["confusion_matrix"] == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert [each["recall"] for each in found["classes"]] == [0.5, 0.5, 1.0]
    assert [each["examples"] for each in found["classes"]] == [2, 2, 1]
    assert [each["predicted"] for each in found["classes"]] == [2, 1, 2]
    first, second = found["worst"]
    assert (first["index"], first["true"], first["predicted"]) == (4, "0", "2")
    assert first["loss"] == pytest.approx(4 + np.log(1 + 2 * np.exp(-4)))
    expected = 1 / (1 + 2 * np.exp(-4))
    assert first["probability"] == pytest.approx(expected, rel=1e-6)
    assert (second["index"], second["loss"] < first["loss"]) == (2, True)
    assert first["example"] == "0, 0, 4"
    assert len(found["most_confused"]) == 2


def test_metrics_match_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(333, 7)).astype("float32")
    labels = generator.integers(0, 6, 333)  # no label is of the last class
    found = evaluation(identity(7), logits, labels)
    predicted = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    matrix = confusion_matrix(labels, predicted, labels=range(7))
    assert found["confusion_matrix"] == matrix.tolist()
    recalls = recall_score(labels, predicted, labels=range(6), average=None)
    np.testing.assert_allclose(
        [each["recall"] for each in found["classes"][:6]], recalls
    )
    assert found["classes"][6]["recall"] is None
    losses = -np.log(softmax(logits)[np.arange(333), labels])
    losses[predicted == labels] = 0
    worst = [each["index"] for each in found["worst"]]
    assert worst == np.argsort(-losses)[:10].tolist()


@pytest.mark.parametrize(
    "activation, loss, read_as",
    [
        (None, None, "logits"),
        ("softmax", None, "probabilities"),
        (None, SPARSE(from_logits=True), "logits"),
        ("softmax", SPARSE(), "probabilities"),
        ("softmax", "sparse_categorical_crossentropy", "probabilities"),
        # The loss has priority, although the outputs look like probabilities.
        ("softmax", SPARSE(from_logits=True), "logits"),
    ],
)
def test_logits_and_probabilities_of_classes(activation, loss, read_as):
    found = evaluation(identity(3, activation, loss), LOGITS, TRUE)
    assert found["outputs"] == read_as
    assert found["accuracy"] == pytest.approx(3 / 5)
    if activation is None or read_as == "probabilities":
        assert found["worst"][0]["probability"] == pytest.approx(0.9647, abs=1e-4)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
@pytest.mark.parametrize("labels", [TRUE, TRUE[:, None], np.eye(3)[TRUE]])
def test_kinds_of_labels(dtype, labels):
    found = evaluation(identity(3), LOGITS, labels.astype(dtype))
    assert found["kind"] == "classes"
    assert found["confusion_matrix"] == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]


BINARY = keras.losses.BinaryCrossentropy


@pytest.mark.parametrize(
    "activation, loss, read_as",
    [
        (None, None, "logits"),
        ("sigmoid", None, "probabilities"),
        ("sigmoid", BINARY(), "probabilities"),
        ("sigmoid", "binary_crossentropy", "probabilities"),
        (None, BINARY(from_logits=True), "logits"),
        (None, "binary_crossentropy", "logits"),  # they are outside [0, 1]
    ],
)
def test_one_binary_output(activation, loss, read_as):
    x = np.array([[2.0], [-1.0], [3.0], [-0.5]], "float32")
    for labels in (np.array([1, 0, 0, 1]), np.array([[1], [0], [0], [1]])):
        found = evaluation(identity(1, activation, loss), x, labels)
        assert (found["kind"], found["outputs"]) == ("classes", read_as)
        assert found["confusion_matrix"] == [[1, 1], [1, 1]]
        worst = found["worst"][0]
        assert worst["index"] == 2 and worst["predicted"] == "1"
        assert worst["loss"] == pytest.approx(np.log1p(np.exp(3)), rel=1e-5)


def test_a_linear_last_layer_outputs_logits():
    x = np.array([[0.2], [0.4]], "float32")  # read as logits, both are of class 1
    labels = np.array([1, 1])
    found = evaluation(identity(1), x, labels)
    assert found["outputs"] == "logits" and found["accuracy"] == 1.0


@pytest.mark.parametrize("loss", ["binary_crossentropy", BINARY(), {"out": BINARY()}])
def test_linear_outputs_are_probabilities_if_the_loss_expects_them(loss):
    x = np.array([[0.2], [0.4]], "float32")
    found = evaluation(identity(1, None, loss), x, np.array([1, 0]))
    assert found["outputs"] == "probabilities"


@pytest.mark.parametrize("form", [lambda x: x, lambda x: [x], lambda x: {"out": x}])
def test_rows_that_add_up_to_1_are_logits_if_the_loss_expects_them(form):
    x = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], "float32")
    model = identity(3, None, form(SPARSE(from_logits=True)))
    assert evaluation(model, x, np.array([0, 1]))["outputs"] == "logits"


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_labels_decide_the_kind_for_hinge_losses(loss):
    x = np.array([[2.0], [-1.0]], "float32")
    for labels, kind in (([1, 0], "classes"), ([1, -1], "numbers")):
        found = evaluation(identity(1, None, loss), x, np.array(labels))
        assert found["kind"] == kind


def test_several_labels_at_once_by_hand():
    model = identity(3, None, BINARY(from_logits=True))
    x = np.array([[1.0, -1, 1], [-1, 2, -1], [-1, -1, -1]], "float32")
    y = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0]], "float32")
    report = kt.report(model, data=(x, y))
    found = report.to_dict()["evaluation"]
    assert found["kind"] == "labels"
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["label_accuracy"] == pytest.approx(7 / 9)
    assert [each["recall"] for each in found["classes"]] == [0.5, None, 1.0]
    (worst,) = found["worst"]
    assert (worst["index"], worst["true"], worst["predicted"]) == (1, "0", "1")
    expected = np.log1p(np.exp([1.0, 2.0, -1.0])).mean()
    assert worst["loss"] == pytest.approx(expected, rel=1e-5)
    assert "All labels correct: 0.6667" in str(report)


def test_names_of_classes_come_from_the_dataset():
    dataset = tf.data.Dataset.from_tensor_slices((LOGITS, TRUE)).batch(2)
    dataset.class_names = ["ape", "bee", "cat"]
    found = kt.report(identity(3), data=dataset).to_dict()["evaluation"]
    assert [each["name"] for each in found["classes"]] == ["ape", "bee", "cat"]
    assert found["worst"][0]["predicted"] == "cat"
    assert found["most_confused"][0] == {"true": "ape", "predicted": "cat"} | {
        "examples": 1
    }


def test_a_perfect_model_has_no_worst_examples():
    report = kt.report(identity(3), data=(LOGITS, LOGITS.argmax(1)))
    assert report.to_dict()["evaluation"]["worst"] == []
    assert "All predictions are correct." in str(report)


def test_a_thousand_classes_show_the_most_confused():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(400, 1000)).astype("float32")
    labels = np.minimum(np.arange(400), 390)
    logits[np.arange(400), labels] += 20
    logits[391:, 7] += 50
    report = kt.report(identity(1000), data=(logits, labels))
    found = report.to_dict()["evaluation"]
    assert found["confusion_matrix"] is None
    assert found["most_confused"] == [{"true": "390", "predicted": "7", "examples": 9}]
    assert "Most confused" in str(report)
    assert "The 30 classes with the lowest recall" in str(report)
    assert len(str(report).splitlines()) < 100
    report.to_html()


def test_outputs_that_are_not_finite_are_reported():
    x = LOGITS.copy()
    x[3] = np.nan
    report = kt.report(identity(3), data=(x, TRUE))
    assert report.to_dict()["evaluation"] is None
    reason = report.to_dict()["not_recorded"]["evaluation"]
    assert reason == "1 of 5 outputs are NaN or infinite"
    assert "Data: not recorded." in str(report)


def test_without_data_the_evaluation_is_not_recorded():
    report = kt.report(identity(3))
    assert report.to_dict()["evaluation"] is None
    assert "no data" in report.to_dict()["not_recorded"]["evaluation"]


# Numbers.


@pytest.mark.parametrize("loss", ["mse", "mae", keras.losses.Huber(), None])
def test_numbers_by_hand(loss):
    model = identity(1, None, loss)
    x, y = np.array([[1.0], [2.0], [4.0]]), np.array([1.5, 2.0, 1.0])
    report = kt.report(model, data=(x, y))
    found = report.to_dict()["evaluation"]
    assert (found["kind"], found["examples"]) == ("numbers", 3)
    expected = mean_absolute_error(y, x[:, 0])
    assert found["mean_absolute_error"] == pytest.approx(expected)
    rmse = np.sqrt(np.mean((y - x[:, 0]) ** 2))
    assert found["root_mean_squared_error"] == pytest.approx(rmse)
    assert [each["index"] for each in found["worst"]] == [2, 0]
    assert found["worst"][0]["loss"] == pytest.approx(3.0)
    assert "Mean absolute error 1.167" in str(report)


def test_the_loss_decides_if_integer_labels_are_numbers():
    x, y = np.array([[0.5], [1.0]]), np.array([0, 1])
    assert evaluation(identity(1, None, "mse"), x, y)["kind"] == "numbers"
    assert evaluation(identity(1), x, y)["kind"] == "classes"
    assert evaluation(identity(1), x, y + 5)["kind"] == "numbers"


def test_image_outputs_are_numbers():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.ReLU()])
    model = keras.Sequential([*model.layers, keras.layers.Conv2D(1, 1)])
    model.build((None, 4, 4, 1))
    model.compile("sgd", "mse", jit_compile=False)
    x = np.ones((3, 4, 4, 1), "float32")
    found = evaluation(model, x, x)
    kernel = model.layers[-1].kernel.numpy().item()
    assert found["mean_absolute_error"] == pytest.approx(abs(kernel - 1), rel=1e-5)
    assert "(16)" in found["worst"][0]["predicted"]


# Kinds of data.


class Batches(keras.utils.PyDataset):
    """PyDataset with batches of two."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(2 * index, 2 * index + 2)
        return LOGITS[part], TRUE[part]


class Endless(Batches):
    """PyDataset without an end."""

    @property
    def num_batches(self):
        return None


def dataset():
    return tf.data.Dataset.from_tensor_slices((LOGITS, TRUE)).batch(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (LOGITS, TRUE),
        lambda: (LOGITS.tolist(), TRUE.tolist()),
        lambda: (LOGITS, TRUE, np.ones(5)),
        dataset,
        lambda: dataset().map(lambda x, y: (x, y, 1.0)),
        lambda: dataset().filter(lambda x, y: True),
        Batches,
    ],
)
def test_all_kinds_of_data(make):
    found = kt.report(identity(3), data=make()).to_dict()["evaluation"]
    assert found["confusion_matrix"] == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert [each["index"] for each in found["worst"]] == [4, 2]
    assert found["worst"][0]["example"] == "0, 0, 4"


def test_worst_examples_of_shuffled_data_match_their_labels():
    x = np.eye(64, dtype="float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(64) % 63))
    data = data.shuffle(64, reshuffle_each_iteration=True).batch(8)
    report = kt.report(identity(64), data=data)
    (worst,) = report.to_dict()["evaluation"]["worst"]
    assert (worst["true"], worst["predicted"]) == ("0", "63")


def test_inputs_in_a_dict():
    inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs["a"] + inputs["b"]))
    x = {"a": np.ones((4, 2)), "b": np.zeros((4, 2))}
    wrong = 1 - (model.predict(x, verbose=0).argmax(1) > 0)
    for data in (
        (x, wrong),
        tf.data.Dataset.from_tensor_slices((x, wrong)).batch(3),
    ):
        found = kt.report(model, data=data).to_dict()["evaluation"]
        assert found["worst"][0]["example"] == "a: 1, 1; b: 0, 0"


def test_layers_changed_after_tracing_are_used():
    model = tiny.mlp()
    x = np.random.default_rng(0).normal(size=(30, 6)).astype("float32")
    model.predict(x, verbose=0)  # traced without LoRA
    layer = model.layers[-1]
    layer.enable_lora(1)
    layer.lora_kernel_b.assign([[50.0, 0.0, -50.0]])
    layer.lora_kernel_a.assign([[1.0]] * 4)
    expected = np.asarray(model(x)).argmax(1)
    assert evaluation(model, x, expected)["accuracy"] == 1.0


# Errors.


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: iter(dataset()), TypeError, "only one pass"),
        (lambda: LOGITS, TypeError, "is a ndarray"),
        (lambda: (LOGITS, TRUE[:3]), ValueError, r"\[3, 5\] examples"),
        (lambda: (LOGITS[:0], TRUE[:0]), ValueError, "empty"),
        (lambda: dataset().take(0), ValueError, "empty"),
        (lambda: dataset().filter(lambda x, y: False), ValueError, "empty"),
        (lambda: dataset().repeat(), ValueError, "has no end"),
        (lambda: Endless(), ValueError, "has no end"),
        (lambda: dataset().unbatch(), ValueError, "not batched"),
        (lambda: dataset().map(lambda x, y: x), ValueError, "no labels"),
        (lambda: (LOGITS,), ValueError, "no labels"),
        (lambda: (LOGITS, None), ValueError, "no labels"),
        (lambda: (LOGITS, TRUE + 1), ValueError, "such as 3. Number the 3 classes"),
        (lambda: (LOGITS, TRUE - 1), ValueError, "such as -1. Number the 3 classes"),
        (lambda: (LOGITS, TRUE / 2), ValueError, "such as 0.5. Number the 3 classes"),
        (lambda: (LOGITS, np.eye(4)[TRUE]), ValueError, r"\(5, 4\).*\(5, 3\)"),
        (lambda: (LOGITS, list("abcde")), ValueError, "Number the classes"),
        (lambda: (LOGITS, {"a": TRUE}), ValueError, "labels of `data` are a dict"),
        (lambda: (LOGITS, [TRUE, TRUE]), ValueError, "labels of `data` are a list"),
    ],
)
def test_bad_data_raises(make, error, message):
    model = identity(3, None, SPARSE(from_logits=True))
    before = model.get_weights()
    with pytest.raises(error, match=message):
        kt.report(model, data=make())
    assert model.predict_function is None
    for a, b in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_outputs_outside_probabilities_raise():
    x = np.full((40, 1), 0.5, "float32")
    x[-1] = 7
    model = identity(1, "relu")
    with pytest.raises(ValueError, match="0.5 to 7, which are not probabilities"):
        evaluation(model, x, np.ones(40, int))


def test_labels_other_than_0_and_1_raise():
    model = identity(3, None, BINARY(from_logits=True))
    with pytest.raises(ValueError, match="must be 0 or 1"):
        evaluation(model, LOGITS, LOGITS)


def test_models_without_a_readable_output_raise():
    inputs = keras.Input((3,))
    two = keras.Model(inputs, [keras.layers.Dense(3)(inputs) for _ in range(2)])
    with pytest.raises(ValueError, match="several outputs"):
        evaluation(two, LOGITS, TRUE)
    rows = keras.Sequential([keras.Input((2, 3)), keras.layers.Dense(3)])
    x = np.zeros((4, 2, 3))
    with pytest.raises(ValueError, match=r"outputs of shape \(4, 2, 3\)"):
        evaluation(rows, x, np.zeros(4, int))
    layer = keras.layers.Dense(3)
    layer.build((None, 3))
    with pytest.raises(TypeError, match="not a keras.Model"):
        evaluation(layer, LOGITS, TRUE)
