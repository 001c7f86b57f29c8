"""retune: exported if it is not worse, refused with a table and nothing changed."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.data import is_held_out
from keras_transfer.retuning.paired_test import probability_of_worse

OLD, NEW = [1, -1, 0, 0], [0, 0, 1, -1]  # what separates the classes


def examples(direction, count=200, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4)).astype("float32")
    return x, (x @ np.array(direction, "float32") > 0).astype("int64")


def network(rate=0.02, weights=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    if weights is not None:
        model.set_weights(weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    return model


@pytest.fixture(scope="module")
def learned():
    """The weights of a model that knows the old data."""
    model = network(0.05)
    model.fit(*examples(OLD), epochs=20, verbose=0)
    return model.get_weights()


@pytest.fixture
def served(learned, tmp_path):
    """A function that returns a model and the folder that has it as version 3."""

    def make(rate=0.02):
        model = network(rate, learned)
        kt.export_serving(model, tmp_path / "signs", 3)
        return model, tmp_path / "signs"

    return make


def retune(model, folder, new, old, **settings):
    settings = {"epochs": 2, "verbose": 0} | settings
    return kt.retune(model, new, old, folder, **settings)


def test_data_of_the_same_kind_are_exported_as_the_next_version(served, tmp_path):
    model, folder = served()
    before = model.get_weights()
    new = examples(OLD, seed=1)
    labels = {"labels": ["minus", "plus"]}
    result = retune(model, folder, new, examples(OLD), export=labels)
    assert result.exported and result.version == 4 and result.worse == ()
    assert result.path == folder / "4"
    assert any((a != b).any() for a, b in zip(before, model.get_weights()))
    serve = tf.saved_model.load(str(result.path)).signatures["serving_default"]
    found = serve(tf.constant(new[0][:5]))
    assert set(found) == {"outputs", "label", "label_id"}
    np.testing.assert_allclose(found["outputs"], model.predict(new[0][:5]), rtol=1e-5)
    rows = result.to_dict()["rows"]
    assert [row["data"] for row in rows] == ["new", "old"]
    for row, data in zip(rows, (new, examples(OLD))):
        assert row["examples"] == is_held_out(data[0], 0.25).sum()
    result.save(tmp_path / "retuning.json")
    again = kt.Retuning(json.loads((tmp_path / "retuning.json").read_text()))
    assert str(again) == str(result) and "version 3" in str(result)
    assert "<table>" in result.to_html() and "version 4" in repr(result)


def test_a_model_that_forgets_is_refused_and_unchanged(served):
    model, folder = served(rate=3.0)
    before, optimizer = model.get_weights(), model.optimizer
    model.fit(*examples(OLD), verbose=0)
    model.set_weights(before)
    slots = [np.array(keras.ops.convert_to_numpy(x)) for x in optimizer.variables]
    new = examples(np.negative(OLD), seed=1)  # the opposite of the old data
    result = retune(model, folder, new, examples(OLD), replay_share=1 / 32, epochs=20)
    assert not result.exported and result.path is None and result.worse == ("old",)
    assert [each.name for each in folder.iterdir()] == ["3"]
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer is optimizer
    for a, b in zip(slots, optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, keras.ops.convert_to_numpy(b))
    row = result.to_dict()["rows"][1]
    assert row["worse"] > row["better"] and row["after"] > row["before"] + 0.1
    assert "refused, worse on the old data" in str(result)


def test_the_first_version_is_compared_with_the_model_itself(learned, tmp_path):
    model = network(weights=learned)
    result = retune(model, tmp_path / "new", examples(OLD, seed=1), examples(OLD))
    assert result.version == 1 and result.to_dict()["before"] == "before"


def test_a_failed_export_changes_nothing(served, learned):
    model, folder = served()
    export = {"labels": ["only", "three", "names"]}
    long = dict(export=export, epochs=1_000_000)  # it fails before the training
    with pytest.raises(ValueError, match="labels"):
        retune(model, folder, examples(OLD, seed=1), examples(OLD), **long)
    np.testing.assert_array_equal(model.get_weights()[0], learned[0])
    assert [each.name for each in folder.iterdir()] == ["3"]


def test_numbers_are_compared_by_their_absolute_errors(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype("float32")
    y = x @ np.array([[1.0], [2.0], [0.0], [0.0]], "float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")])
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    old, new = (x[:150], y[:150]), (x[150:], y[150:])
    result = retune(model, tmp_path / "numbers", new, old, epochs=4)
    content = result.to_dict()
    assert content["measure"] == "mean absolute error" and result.exported
    assert all(row["after"] < row["before"] for row in content["rows"])


def test_own_test_data_replace_the_held_out_part(served):
    model, folder = served()
    new, test = examples(OLD, seed=1), examples(OLD, 70, seed=2)
    result = retune(model, folder, new, examples(OLD), held_out={"old": test})
    counts = {row["data"]: row["examples"] for row in result.to_dict()["rows"]}
    assert counts == {"new": is_held_out(new[0]).sum(), "old": 70}
    with pytest.raises(ValueError, match="has the keys \\['test'\\]"):
        retune(model, folder, new, examples(OLD), held_out={"test": test})


def test_an_example_stays_in_its_part():
    x, _ = examples(OLD, 500)
    first = is_held_out(x, 0.25)
    assert 0.15 < first.mean() < 0.35
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(is_held_out(x[order], 0.25), first[order])
    np.testing.assert_array_equal(is_held_out(np.r_[x, x[:9]], 0.25)[500:], first[:9])
    # A larger share holds out the same examples and more.
    assert is_held_out(x, 0.5)[first].all()
    texts = [f"text {i}" for i in range(500)]
    named = is_held_out({"a": texts, "b": x}, 0.25)
    assert (named != first).any() and 0.15 < is_held_out(texts, 0.25).mean() < 0.35


def test_lists_and_arrays_are_held_out_equally_and_mix(served):
    x, y = examples(OLD, seed=1)
    lists = x.tolist(), y.tolist()
    np.testing.assert_array_equal(is_held_out(lists[0], 0.25), is_held_out(x, 0.25))
    numbers = np.arange(-9, 200)[:, None] * np.arange(3)
    narrow = is_held_out(numbers.astype("int32"), 0.25)
    np.testing.assert_array_equal(is_held_out(numbers, 0.25), narrow)
    signed = is_held_out(-np.zeros((1, 2)), 0.5)
    np.testing.assert_array_equal(signed, is_held_out(np.zeros((1, 2)), 0.5))
    model, folder = served()
    assert retune(model, folder, lists, examples(OLD), epochs=1).version == 4


def test_names_become_rows_for_a_loss_that_needs_them(tmp_path):
    x, y = examples(OLD)
    names = np.where(y, "plus", "minus")
    model = network()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    kt.fine_tune(model, (x, names), epochs=1, strategy="full", verbose=0)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    result = retune(model, tmp_path / "signs", (x, names), (x, names), epochs=1)
    serve = tf.saved_model.load(str(result.path)).signatures["serving_default"]
    assert "label" in serve.structured_outputs


class Signs(keras.layers.Layer):
    """A preprocessor from the strings "+" and "-" to numbers."""

    def call(self, texts):
        return tf.cast(tf.strings.unicode_decode(texts, "UTF-8").to_tensor(), "float32")


def test_a_version_with_a_preprocessor_is_compared_on_prepared_inputs(tmp_path):
    model = network()
    export = {"preprocessor": kt.export.RawText(Signs()), "samples": ["abcd", "efgh"]}
    kt.export_serving(model, tmp_path / "signs", **export)
    old = examples(OLD)
    result = retune(
        model, tmp_path / "signs", examples(OLD, seed=1), old, export=export
    )
    assert result.version == 2 and "version 1" in str(result)


def test_an_interrupted_model_is_the_one_that_is_served(served, learned, monkeypatch):
    model, folder = served()

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    module = sys.modules["keras_transfer.retuning.retune"]
    monkeypatch.setattr(module, "export_serving", interrupt)
    new, old = examples(OLD, seed=1), examples(OLD)
    with pytest.raises(KeyboardInterrupt):
        retune(model, folder, new, old, epochs=1)
    np.testing.assert_array_equal(model.get_weights()[0], learned[0])
    monkeypatch.undo()
    assert retune(model, folder, new, old, epochs=1).version == 4


def test_the_folder_is_checked_before_the_training(served, tmp_path):
    model, folder = served()
    new, old = examples(OLD, seed=1), examples(OLD)
    (folder / "5").mkdir()
    with pytest.raises(ValueError, match="has no saved_model.pb"):
        retune(model, folder, new, old)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        retune(model, tmp_path / "file", new, old)
    (folder / "5").rmdir()
    (folder / "3").rename(folder / "007")  # version 7 of a server
    (folder / "\u0669").mkdir()  # a nine that no server reads
    (folder / "notes").mkdir()
    assert retune(model, folder, new, old, epochs=1).version == 8


def test_p_values_of_cases_solved_by_hand():
    before = np.array([0.0] * 5 + [1.0] * 3)
    assert probability_of_worse(before, before) == 1.0
    after = before.copy()
    after[:5] = 1.0  # five worse, none better: 1 / 2**5
    assert probability_of_worse(before, after) == pytest.approx(1 / 32)
    after[5] = 0.0  # and one better: 7 / 2**6
    assert probability_of_worse(before, after) == pytest.approx(7 / 64)
    # Signed ranks: all four larger, 1 / 2**4.
    numbers = np.array([0.1, 0.2, 0.3, 0.4])
    assert probability_of_worse(numbers, 2 * numbers) == pytest.approx(1 / 16)


def test_the_share_of_wrong_alarms_is_kept():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(1000):
        before, after = (rng.random((2, 100)) < 0.2).astype("float64")
        alarms += probability_of_worse(before, after) < 0.05
    assert alarms <= 65  # 50 expected at most, and two standard errors


def test_bad_input_is_refused_before_the_training(served, tmp_path):
    model, folder = served()
    old = examples(OLD)
    with pytest.raises(TypeError, match="not a Keras model"):
        retune("model", folder, old, old)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="is not compiled"):
        retune(plain, folder, old, old)
    with pytest.raises(TypeError, match="`new_data` is not a pair of arrays"):
        retune(model, folder, (*old, np.ones(200)), old)
    with pytest.raises(ValueError, match="have \\[199, 200\\] examples"):
        retune(model, folder, (old[0], old[1][1:]), old)
    with pytest.raises(ValueError, match="leaves 0 to test on and 1 to train"):
        retune(model, folder, (old[0][:1], old[1][:1]), old, held_out=1e-6)
    with pytest.raises(ValueError, match="held_out"):
        retune(model, folder, old, old, held_out=1.0)
    with pytest.raises(ValueError, match="A name in export"):
        retune(model, folder, old, old, export={"version": 7})
    with pytest.raises(TypeError, match="not a dict"):
        retune(model, folder, old, old, export="labels")
    with pytest.raises(ValueError, match="are names"):
        retune(model, folder, (old[0], np.where(old[1], "a", "b")), old)
    with pytest.raises(ValueError, match="not a class of the model|labels"):
        retune(model, folder, (old[0], old[1] + 5), old)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    kt.export_serving(other, tmp_path / "other")
    with pytest.raises(ValueError, match="is of another model"):
        retune(model, tmp_path / "other", old, old)
    wide = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    kt.export_serving(wide, tmp_path / "wide")
    with pytest.raises(ValueError, match="does not take the inputs"):
        retune(model, tmp_path / "wide", old, old)
    assert [each.name for each in folder.iterdir()] == ["3"]
