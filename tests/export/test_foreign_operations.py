"""What an export says of operations that TensorFlow alone lacks; else it is silent."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.export import export_serving
from keras_transfer.export.foreign_operations import foreign_operations
from tests import tiny
from tests.export import files


@pytest.mark.slow
def test_a_text_model_says_what_loads_it_and_where_strings_go(tmp_path, capsys):
    export_serving(files.text_task(), tmp_path / "review", features=True)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "imports tensorflow_text before it loads" in said
    assert "TensorFlow Serving" in said
    assert "go in as 'text' of 'features', 'text' of 'serving_default'." in said
    assert str(tmp_path / "review" / "1") in said


@pytest.mark.parametrize("kind", ["tokens", "dense", "image", "words", "lstm"])
def test_nothing_is_said_of_what_tensorflow_has(tmp_path, capfd, kind):
    samples = np.ones((2, 4), "float32")
    if kind == "tokens":
        model, samples = files.text_task(), None
    elif kind == "dense":
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    elif kind == "lstm":
        inputs = keras.Input((4, 1))
        model = keras.Model(inputs, keras.layers.LSTM(2)(inputs))
        samples = samples[..., None]
    elif kind == "words":
        words = keras.layers.TextVectorization(vocabulary=["a"], output_mode="count")
        inputs = keras.Input((1,), dtype="string")
        model = keras.Model(inputs, keras.layers.Dense(2)(words(inputs)))
        samples = ["a", "b"]
    else:
        model, samples = tiny.convnet(), np.ones((2, 8, 8, 3), "float32")
    capfd.readouterr()
    export_serving(model, tmp_path, samples=samples, preprocessor=False)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


def test_operations_at_any_depth_are_found():
    import tensorflow_text

    @tf.function
    def inner(texts):
        return tensorflow_text.WhitespaceTokenizer().tokenize(texts).to_tensor()

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def outer(texts):
        return tf.map_fn(lambda text: inner(text[None]), texts)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def plain(numbers):
        return tf.map_fn(tf.sqrt, numbers)

    (name,) = foreign_operations(outer.get_concrete_function())
    assert name.startswith("TFText>Whitespace")
    assert foreign_operations(plain.get_concrete_function()) == set()
