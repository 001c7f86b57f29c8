import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.export import export_serving
from keras_transfer.export import RawText
from tests.adapters import models as am
from tests.export import files
from tests.export import plain_tensorflow

TEXTS = files.TEXTS


def strings(texts):
    return np.array([text.encode() for text in texts], dtype=object)


def classifier(length, words=30, dtype="int32"):
    inputs = keras.Input((length,), dtype=dtype)
    x = keras.layers.Embedding(words, 4)(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return files.shaken(keras.Model(inputs, keras.layers.Dense(3)(x)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a Task that takes strings, and the folder of its export."""
    keras.utils.set_random_seed(0)
    task = files.shaken(files.text_task(), 0.1)
    more = dict(features=True, labels=["a", "b", "c"])
    folder = tmp_path_factory.mktemp("task")
    return task, export_serving(task, folder, samples=TEXTS, **more)


def test_a_task_takes_strings_in_plain_tensorflow(exported):
    task, folder = exported
    more = [*TEXTS, "日本 FOX", "the " * 50]
    requests = [
        ("serving_default", {"text": strings(more)}),
        ("serving_default", {"text": strings([])}),
        ("features", {"text": strings(more)}),
    ]
    answers = plain_tensorflow.serve(folder, requests, text=True)
    right = task.predict(more, verbose=0)
    np.testing.assert_allclose(answers[0]["outputs"], right, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(answers[0]["label_id"], right.argmax(-1))
    assert answers[1]["outputs"].shape == (0, 3)
    assert answers[2]["features"].shape == (5, 16)
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {"serving_default", "preprocessed", "features"}


def test_a_text_task_also_takes_token_ids(exported):
    task, folder = exported
    ids = {k: v.numpy() for k, v in task.preprocessor(TEXTS).items()}
    signature = tf.saved_model.load(str(folder)).signatures["preprocessed"]
    ids = {
        k: tf.cast(v, signature.structured_input_signature[1][k].dtype).numpy()
        for k, v in ids.items()
    }
    (answer,) = plain_tensorflow.serve(folder, [("preprocessed", ids)], text=True)
    right = task.predict(TEXTS, verbose=0)
    np.testing.assert_allclose(answer["outputs"], right, rtol=0, atol=1e-6)


def test_a_task_without_its_preprocessor_needs_no_tensorflow_text(tmp_path):
    task = files.text_task()
    folder = export_serving(
        task, tmp_path, samples=am.tokens(words=11), preprocessor=False
    )
    (answer,) = plain_tensorflow.serve(
        folder, [("serving_default", am.tokens(words=11))]
    )
    right = task(am.tokens(words=11), training=False)
    np.testing.assert_allclose(answer["outputs"], right, rtol=0, atol=1e-6)


def test_pairs_of_texts_have_two_names(tmp_path):
    task = files.shaken(files.text_task(), 0.1)
    raw = RawText(task.preprocessor, ("premise", "hypothesis"))
    pair = (TEXTS, ["a fox", "the", ""])
    folder = export_serving(task, tmp_path, samples=pair, preprocessor=raw)
    request = {"premise": strings(pair[0]), "hypothesis": strings(pair[1])}
    (answer,) = plain_tensorflow.serve(
        folder, [("serving_default", request)], text=True
    )
    tensors = tuple(tf.constant(each) for each in pair)
    tokens = task.preprocessor(tensors, y=None)
    assert tf.reduce_max(tokens["segment_ids"]) == 1
    right = task(tokens, training=False)
    np.testing.assert_allclose(answer["outputs"], right, rtol=0, atol=1e-6)


def byte_pairs():
    import keras_hub

    tokens = ["<pad>", *"abcdefghijklmnopqrstuvwxyz", "ab", "Ġ", "Ġab"]
    words = {token: number for number, token in enumerate(tokens)}
    return keras_hub.tokenizers.BytePairTokenizer(
        vocabulary=words,
        merges=["a b", "Ġ ab"],
        unsplittable_tokens=["<pad>"],
        sequence_length=6,
    )


def sentence_pieces():
    import io

    import keras_hub
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox", "a b c the fox"] * 20),
        model_writer=model,
        vocab_size=22,
        minloglevel=2,
    )
    return keras_hub.tokenizers.SentencePieceTokenizer(
        proto=model.getvalue(), sequence_length=6
    )


def vectors():
    return keras.layers.TextVectorization(
        vocabulary=["the", "fox"], output_sequence_length=6
    )


@pytest.mark.parametrize("make", [byte_pairs, sentence_pieces, vectors])
def test_other_tokenizers(tmp_path, make):
    tokenizer, model = make(), classifier(6)
    texts = ["ab ab", "a the fox", ""]
    folder = export_serving(model, tmp_path, samples=texts, preprocessor=tokenizer)
    (answer,) = plain_tensorflow.serve(
        folder, [("serving_default", {"text": strings(texts)})], text=True
    )
    right = model(tokenizer(tf.constant(texts)), training=False)
    np.testing.assert_allclose(answer["outputs"], right, rtol=0, atol=1e-6)


def test_a_function_of_string_operations(tmp_path):
    def lengths(text):
        return tf.strings.length(text)[:, None]

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    folder = export_serving(model, tmp_path, samples=TEXTS, preprocessor=lengths)
    (answer,) = plain_tensorflow.serve(
        folder, [("serving_default", {"text": strings(["abc"])})]
    )
    np.testing.assert_allclose(answer["outputs"], model(np.array([[3.0]])), atol=1e-6)


def test_a_table_inside_a_function_is_refused(tmp_path):
    layer = vectors()
    with pytest.raises(ValueError, match="layer that owns the table"):
        export_serving(
            classifier(6), tmp_path / "x", preprocessor=lambda text: layer(text)
        )
    assert files.everything(tmp_path) == []


def test_a_preprocessor_of_python_code_is_refused(tmp_path):
    def python(text):
        return [[len(each.numpy())] for each in text]

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="cannot be traced"):
        export_serving(model, tmp_path / "x", preprocessor=python)
    assert files.everything(tmp_path) == []


def test_a_preprocessor_of_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs"):
        export_serving(
            files.text_task(), tmp_path, preprocessor=lambda text: {"token_ids": text}
        )


@pytest.mark.parametrize("samples", ["the fox", [["the"], ["fox"]], [1, 2]])
def test_samples_that_are_not_a_list_of_strings_are_refused(tmp_path, samples):
    with pytest.raises(ValueError, match="strings"):
        export_serving(files.text_task(), tmp_path / "x", samples=samples)


def test_raw_text_refuses_invalid_arguments():
    with pytest.raises(TypeError, match="function from strings"):
        RawText("bert")
    for names in ((), ("a", "a"), ("a b",)):
        with pytest.raises(ValueError, match="names is"):
            RawText(len, names)
    assert RawText(len, "review").names == ("review",)
