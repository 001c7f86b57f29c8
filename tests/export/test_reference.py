import io
import json
import pickle
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.export import shift_reference
from keras_transfer.export.reference_data import kind_of_outputs
from keras_transfer.export.reference_data import monitored_features
from keras_transfer.export.shift_reference import read_reference
from tests import tiny
from tests.export import plain_tensorflow


def rows(count=120, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 6)).astype("float32")


def classes(count=120):
    return np.arange(count) % 3


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported classifier, its folder and its held-out examples."""
    folder = tmp_path_factory.mktemp("models") / "animals"
    model = tiny.mlp()
    labels = ["cat", "dog", "owl"]
    kt.export_serving(
        model, folder, samples=rows(2), labels=labels, reference=(rows(), classes())
    )
    return model, folder


def test_the_reference_has_scores_and_features_but_no_inputs(exported):
    model, folder = exported
    found = read_reference(folder / "1")
    assert found.scores.shape == (120, 3)
    np.testing.assert_allclose(found.scores.sum(1), 1, atol=1e-6)
    assert found.features.shape == (80, 4)  # 40 examples fit the components
    assert found.joint.sum() == 120
    np.testing.assert_allclose(found.shares, 1 / 3)
    assert found.class_names == ("cat", "dog", "owl")
    assert found.facts["seed"] == 0
    assert {"keras_transfer", "keras", "tensorflow", "numpy"} <= set(found.facts)
    scores = np.sort(keras.ops.softmax(model(rows())), axis=0)
    np.testing.assert_allclose(np.sort(found.scores, axis=0), scores, atol=1e-5)


def test_the_signature_returns_outputs_and_features(exported):
    model, folder = exported
    request = {"inputs": rows(5, seed=1)}
    (answer,) = plain_tensorflow.serve(folder / "1", [("monitoring", request)])
    assert set(answer) == {"outputs", "label", "label_id", "features"}
    x = request["inputs"]
    np.testing.assert_allclose(answer["outputs"], model(x), atol=1e-5)
    before = keras.Model(model.input, model.layers[-1].input)
    np.testing.assert_allclose(answer["features"], before(x), atol=1e-5)


def test_inputs_and_outputs_of_the_model_give_the_same_report(exported):
    _, folder = exported
    x = rows(300, seed=1) + 1
    watch = kt.ShiftMonitor.load(folder)
    watch.update(x)
    first = watch.report()
    assert first.shifted
    serve = tf.saved_model.load(str(folder / "1")).signatures["monitoring"]
    answer = serve(inputs=tf.constant(x))
    watch = kt.ShiftMonitor.load(folder / "1", outputs_only=True)
    watch.update(outputs=answer["outputs"].numpy(), features=answer["features"].numpy())
    second = watch.report()
    for one, other in zip(first.table, second.table, strict=True):
        assert one["shifted"] == other["shifted"]
        np.testing.assert_allclose(one["statistic"], other["statistic"], atol=0.02)


def test_the_size_is_bounded_and_the_choice_is_repeatable(tmp_path):
    model, found = tiny.mlp(), []
    for name in ("a", "b"):
        kt.export_serving(model, tmp_path / name, reference=rows(7000))
        file = tmp_path / name / "1" / shift_reference.ARRAYS
        found.append(np.load(file))
        assert file.stat().st_size < 100_000
    assert found[0]["scores"].shape == (1000, 3)
    assert found[0]["features"].shape == (1000, 4)
    assert read_reference(tmp_path / "b" / "1").facts["examples"] == 5000
    for name in found[0].files:
        np.testing.assert_array_equal(found[0][name], found[1][name])
    assert "joint" not in found[0].files


def test_a_dataset_is_read_in_batches(tmp_path, exported):
    model, folder = exported
    data = tf.data.Dataset.from_tensor_slices((rows(), classes())).batch(50)
    kt.export_serving(model, tmp_path / "x", reference=data)
    first, second = (read_reference(each / "1") for each in (folder, tmp_path / "x"))
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-6)
    np.testing.assert_array_equal(first.joint, second.joint)


def test_a_model_that_takes_text(tmp_path):
    keras.utils.set_random_seed(0)
    words = keras.layers.TextVectorization(output_sequence_length=4)
    words.adapt(["good bad fine poor"])
    text = keras.Input((), dtype="string")
    x = keras.layers.Embedding(8, 5)(words(text))
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(text, keras.layers.Dense(1, activation="sigmoid")(x))
    rng = np.random.default_rng(0)

    def drawn(count, vocabulary):
        return [" ".join(rng.choice(vocabulary, 3)) for _ in range(count)]

    known = ["good", "bad", "fine", "poor"]
    texts, y = drawn(200, known), rng.integers(0, 2, 200)
    kt.export_serving(model, tmp_path / "x", reference=(texts, y))
    watch = kt.ShiftMonitor.load(tmp_path / "x")
    assert watch.reference.kind.kind == "binary"
    assert watch.reference.class_names == ("0", "1")
    watch.update(drawn(200, known))
    assert not watch.report().shifted
    watch.update(drawn(200, known[:2]))
    assert watch.report().shifted
    with pytest.raises(ValueError, match="one string"):
        watch.update("good")


def test_names_of_classes_can_be_labels(tmp_path):
    names = np.array(["cat", "dog", "owl"])
    model = tiny.mlp()
    y = names[classes()]
    folder = kt.export_serving(
        model, tmp_path / "x", reference=(rows(), y), labels=list(names)
    )
    np.testing.assert_allclose(read_reference(folder).shares, 1 / 3)
    y[3] = "cow"
    with pytest.raises(ValueError, match=r"the labels \['cow'\]"):
        kt.export_serving(
            model, tmp_path / "y", reference=(rows(), y), labels=list(names)
        )


def regression():
    model = tiny.mlp()
    model.compile("sgd", "mse")
    return model


def tagger():
    return keras.Sequential([keras.Input((4, 6)), keras.layers.Dense(3)])


def two_heads():
    x = keras.Input((6,))
    return keras.Model(x, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)])


def one_class():
    layer = keras.layers.Dense(1, activation="softmax")
    return keras.Sequential([keras.Input((6,)), layer])


@pytest.mark.parametrize(
    "model, reference, words",
    [
        (tiny.mlp, (rows(40), classes(40)), "reference has 40 examples"),
        (tiny.mlp, (rows(), np.zeros(120, int)), "at most one class"),
        (tiny.mlp, (rows(), classes() + 1), "outside 0 to 2"),
        (tiny.mlp, (rows(), classes()[:9]), "examples"),
        (tiny.mlp, (rows(), classes(), classes()), "tuple of 3"),
        (tiny.mlp, rows()[:, :2], "have the shape"),
        (tiny.mlp, rows() * np.nan, "NaN"),
        (regression, rows(), "numbers and not classes"),
        (tagger, np.ones((60, 4, 6)), "a row of scores for each"),
        (two_heads, rows(), "one output"),
        (one_class, rows(), "one class with a softmax"),
    ],
)
@pytest.mark.filterwarnings("ignore:[^!]*softmax over axis:UserWarning")
def test_a_bad_reference_exports_nothing(tmp_path, model, reference, words):
    with pytest.raises(ValueError, match=words):
        kt.export_serving(model(), tmp_path / "x", reference=reference)
    assert list(tmp_path.iterdir()) == []


def test_an_iterator_and_adapters_are_refused(tmp_path):
    with pytest.raises(TypeError, match="one pass"):
        kt.export_serving(tiny.mlp(), tmp_path / "x", reference=iter([rows()]))
    model = tiny.mlp()
    kt.adapters.LoRA(rank=1, targets=["dense"]).attach(model)
    with pytest.raises(ValueError, match="each adapter has its own scores"):
        kt.export_serving(model, tmp_path / "x", reference=rows(), adapters=["default"])


def test_what_outputs_mean():
    outputs = np.random.default_rng(0).normal(size=(9, 3)) * 3
    shares = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    model = tiny.mlp()
    assert kind_of_outputs(model, outputs).logits
    assert not kind_of_outputs(model, shares).logits
    assert kind_of_outputs(model, shares[:, :1]).kind == "binary"
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    assert kind_of_outputs(model, outputs).kind == "labels"
    assert kind_of_outputs(model, outputs).logits
    model.compile("sgd", "binary_crossentropy")
    assert kind_of_outputs(model, shares) == kind_of_outputs(model, 1 - shares)


def test_features_are_those_of_the_backbone_or_before_the_last_dense_layer():
    found = monitored_features(tiny.bert_classifier(), False)
    assert found.output_shape[-1] == 16
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    outer = keras.Sequential([keras.Input((6,)), inner, keras.layers.Dense(2)])
    assert monitored_features(outer, False).output_shape == (None, 5)
    assert monitored_features(tiny.mlp(), False).output_shape == (None, 4)
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Softmax()])
    assert monitored_features(plain, False) is None


def test_without_features_only_scores_are_tested(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Softmax()])
    kt.export_serving(model, tmp_path / "x", reference=rows())
    watch = kt.ShiftMonitor.load(tmp_path / "x")
    watch.update(rows(100, seed=1) * 3)
    assert len(watch.report().table) == 1


@pytest.mark.parametrize(
    "x, words",
    [
        (rows()[:, :5], "have the shape"),
        (rows().astype("complex64"), "dtype complex64"),
        (rows() * np.inf, "NaN or infinite"),
        ([["a"] * 6], "not an array of float32"),
        ({"other": rows()}, "have the names"),
        (rows()[:0], "at least one"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_inputs_that_do_not_fit(exported, x, words):
    watch = kt.ShiftMonitor.load(exported[1])
    with pytest.raises(ValueError, match=words):
        watch.update(x)
    assert watch.rows == 0


def test_floats_are_no_tokens(tmp_path):
    tokens = np.random.default_rng(0).integers(0, 9, (60, 4))
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(9, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    kt.export_serving(model, tmp_path / "x", reference=tokens)
    watch = kt.ShiftMonitor.load(tmp_path / "x")
    watch.update(tokens)
    with pytest.raises(ValueError, match="takes int32"):
        watch.update(tokens + 0.5)


def test_a_reference_of_another_model_is_refused(exported, tmp_path):
    _, folder = exported
    kt.export_serving(tiny.mlp(seed=1), tmp_path / "x")
    other = tmp_path / "x" / "1"
    with pytest.raises(ValueError, match="no keras_transfer_reference.json"):
        kt.ShiftMonitor.load(other)
    shutil.copytree(folder / "1" / "assets.extra", other / "assets.extra")
    with pytest.raises(ValueError, match="fingerprint differs"):
        kt.ShiftMonitor.load(other)
    with pytest.raises(ValueError, match="not an exported model"):
        kt.ShiftMonitor.load(tmp_path / "missing")


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("A pickle was loaded.",)


def _npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda facts, arrays: (facts | {"format": 9}, arrays), "another version"),
        (lambda facts, arrays: (facts, _npz(scores=[1])), "written with it"),
        (lambda facts, arrays: (facts, b"no zip"), "not a zip"),
        (lambda facts, arrays: (facts, pickle.dumps(Harmful())), "not a zip"),
        (
            lambda facts, arrays: (
                facts,
                _npz(scores=np.array([Harmful()], dtype=object)),
            ),
            "allow_pickle",
        ),
        (lambda facts, arrays: (facts | {"class_names": ["a"]}, arrays), "1 class nam"),
        (lambda facts, arrays: (facts | {"kind": {}}, arrays), "cannot be used"),
        (lambda facts, arrays: (facts | {"facts": 3}, arrays), "not a JSON object"),
        (lambda facts, arrays: (facts, _npz(shares=np.ones(3))), "its arrays are"),
    ],
)
def test_a_damaged_reference_is_refused(exported, tmp_path, change, words):
    folder = tmp_path / "1"
    shutil.copytree(exported[1] / "1", folder)
    file = folder / shift_reference.FACTS
    before = folder / shift_reference.ARRAYS
    facts, arrays = change(json.loads(file.read_text()), before.read_bytes())
    if "written" not in words:
        facts["arrays"] = shift_reference._digest(arrays)
    before.write_bytes(arrays)
    file.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=words):
        read_reference(folder)


@pytest.mark.parametrize("text", ["{", '{"format": NaN}', "[1]", '{"format": 1}'])
def test_broken_json_is_refused(exported, tmp_path, text):
    folder = tmp_path / "1"
    shutil.copytree(exported[1] / "1", folder)
    (folder / shift_reference.FACTS).write_text(text)
    with pytest.raises(ValueError, match="cannot be used"):
        read_reference(folder)


def test_values_that_are_not_finite_are_refused(exported, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(exported[1] / "1", folder)
    arrays = dict(np.load(folder / shift_reference.ARRAYS))
    arrays["scores"][0, 0] = np.nan
    (folder / shift_reference.ARRAYS).write_bytes(_npz(**arrays))
    file = folder / shift_reference.FACTS
    digest = shift_reference._digest((folder / shift_reference.ARRAYS).read_bytes())
    file.write_text(json.dumps(json.loads(file.read_text()) | {"arrays": digest}))
    with pytest.raises(ValueError, match="'scores' has another shape or is not fini"):
        read_reference(folder)


def test_the_largest_version_is_loaded(exported, tmp_path):
    model, folder = exported
    shutil.copytree(folder, tmp_path / "x")
    kt.export_serving(model, tmp_path / "x", 10, reference=rows(60))
    watch = kt.ShiftMonitor.load(tmp_path / "x", outputs_only=True)
    assert watch.reference.facts["examples"] == 60
    with pytest.raises(ValueError, match="has no model"):
        watch.update(rows())
