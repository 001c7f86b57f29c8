"""The line that an export prints about operations that TensorFlow lacks."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.export import export_serving
from keras_transfer.export import RawText
from keras_transfer.export.foreign_operations import foreign_operations
from tests import tiny
from tests.export import files
from tests.export import test_raw_text
from tests.serving import exported

CLIENT = textwrap.dedent(
    """
    import sys

    import numpy as np
    import tensorflow as tf

    folder = sys.argv[1]
    try:
        tf.saved_model.load(folder)
    except Exception as error:
        assert "Op type not registered" in str(error), error
    else:
        raise AssertionError("tensorflow_text is not needed")
    import tensorflow_text
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    texts = tf.constant(["the quick foxes", ""])
    np.save(folder + ".npy", serve(text=texts)["outputs"].numpy())
    """
)


def word_pieces():
    import keras_hub

    words = ["[PAD]", "[UNK]", "the", "fox"]
    return keras_hub.tokenizers.WordPieceTokenizer(words, sequence_length=6)


TOKENIZERS = {
    word_pieces: ["FastWordpieceTokenizeWithOffsets", "RegexSplitWithOffsets"],
    test_raw_text.byte_pairs: ["RegexSplitWithOffsets"],
    test_raw_text.sentence_pieces: ["SentencepieceTokenizeOp"],
}


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_tokenizer_of_keras_hub_is_announced(tmp_path, capsys, make):
    raw = RawText(make(), names="review")
    export_serving(test_raw_text.classifier(6), tmp_path, preprocessor=raw)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    operations = ", ".join(TOKENIZERS[make])
    assert f"operations of tensorflow_text: {operations}." in printed
    assert "must run `import tensorflow_text` before" in printed
    assert "Send strings as 'review' (signatures 'serving_default')." in printed


@pytest.mark.slow
def test_a_task_names_its_operations_and_the_strings_of_each_signature(
    tmp_path, capsys
):
    export_serving(files.text_task(), tmp_path / "review", features=True)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "TFText>RoundRobinTrim" in printed
    assert "TensorFlow Serving" in printed
    assert "as 'text' (signatures 'features', 'serving_default')." in printed
    assert str(tmp_path / "review" / "1") in printed


@pytest.mark.parametrize("kind", ["tokens", "dense", "image", "words", "text", "lstm"])
def test_core_operations_alone_print_nothing(tmp_path, capfd, kind):
    samples = np.ones((2, 4), "float32")
    preprocessor = False
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
    elif kind == "text":
        model, samples = test_raw_text.classifier(6), ["the fox", ""]
        preprocessor = test_raw_text.vectors()
    else:
        model, samples = tiny.convnet(), np.ones((2, 8, 8, 3), "float32")
    capfd.readouterr()
    export_serving(model, tmp_path, samples=samples, preprocessor=preprocessor)
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""


@pytest.mark.slow
def test_a_new_process_needs_tensorflow_text_to_load_a_text_model(tmp_path):
    task = files.shaken(files.text_task(), 0.1)
    folder = export_serving(task, tmp_path)
    served = subprocess.run(
        [sys.executable, "-c", CLIENT, str(folder)],
        env=exported.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert served.returncode == 0, served.stderr
    right = task.predict(["the quick foxes", ""], verbose=0)
    found = np.load(f"{folder}.npy")
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-6)


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
