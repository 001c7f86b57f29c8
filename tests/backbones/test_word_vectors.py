"""word_vectors: the formats, broken files, lookups, coverage, and models on texts."""

import gzip
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.backbones import word_vectors
from tests.contracts.compute import exports
from tests.contracts.compute import tensorflow_only

WORDS = ["the", "joy", "n't", ".", "über"]
VECTORS = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
LINES = [
    " ".join([word, *map(str, row)]) for word, row in zip(WORDS, VECTORS, strict=True)
]
TEXTS = ["The joy.", "Don't!", "", "JOY joy unheard of"]


def binary(end=b""):
    """Return word2vec's binary format, where the C program ends each row with \\n."""
    rows = [
        word.encode() + b" " + struct.pack("<3f", *row) + end
        for word, row in zip(WORDS, VECTORS, strict=True)
    ]
    return b"5 3\n" + b"".join(rows)


FORMATS = {
    "glove.txt": "\n".join(LINES).encode(),
    "word2vec.txt": "\n".join(["5 3", *LINES, ""]).encode(),
    "fasttext.vec": " \n".join(["5 3", *LINES, ""]).encode(),
    "windows.txt": b"\xef\xbb\xbf" + "\r\n".join([*LINES, "", ""]).encode(),
    "tabs.txt": "\n".join(LINES).replace(" ", "\t").encode(),
    "gensim.bin": binary(),
    "word2vec.bin": binary(b"\n"),
    "fasttext.vec.gz": gzip.compress("\n".join(["5 3", *LINES]).encode()),
    "word2vec.bin.gz": gzip.compress(binary(b"\n")),
}


def vectors(**settings):
    return word_vectors((WORDS, VECTORS), **settings)


def write(tmp_path, content, name="vectors.txt"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, name):
    found = word_vectors(write(tmp_path, FORMATS[name], name))
    assert found.words == tuple(WORDS)
    np.testing.assert_allclose(found.vectors, VECTORS, rtol=1e-6)
    two = word_vectors(str(tmp_path / name), max_words=2)
    assert two.words == ("the", "joy") and two.vectors.shape == (2, 3)


def test_arrays_and_dicts():
    rows = dict(zip(WORDS, VECTORS.tolist(), strict=True))
    for found in (vectors(), word_vectors([np.array(WORDS), VECTORS.tolist()])):
        np.testing.assert_array_equal(found.vectors, word_vectors(rows).vectors)
    assert len(word_vectors(rows, max_words=3)) == 3


def test_words_with_spaces_and_other_white_space(tmp_path):
    content = "a 1 2\n. . . 3 4\nx\u00a0y 5 6\n\u2028 7 8\n"
    found = word_vectors(write(tmp_path, content))
    assert found.words == ("a", ". . .", "x\u00a0y", "\u2028")
    assert found.vocabulary_layer().get_vocabulary()[2:] == list(found.words)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        ("5 3\n", "says 5 words, but the file has 0"),
        ("0 3\n", "has no vectors"),
        ("a 1 2\nb 3\nc 4 5\n", "line 2 has 1 numbers .* line 1 has 2"),
        ("a 1 2\nb 3 4 5\n", "line 2 has 3 numbers .* line 1 has 2"),
        ("2 3\na 1 2\nb 3 4\n", "line 2 has 2 numbers .* the header has 3"),
        ("a 1 2\nb 3 x4\n", "line 2 has 'x4' as number 2"),
        ("a\nb\n", "line 1 has no numbers"),
        ("just a text\nof lines\n", "line 1 has 'a' as number 1"),
        ("a 1 2\n\nb 3 4\n", "line 2 is empty"),
        ("a 1 2\n 3 4\n", "line 2 has 1 numbers|line 2 has an empty word"),
        ("a 1 2\nb nan 4\n", "line 2 has numbers that are not finite in .*'b'"),
        ("a 1 2\nb 1e99 4\n", "line 2 has numbers that are not finite"),
        ("3 2\na 1 2\nb 3 4\n", "says 3 words, but the file has 2.*max_words=2"),
        ("1 2\na 1 2\nb 3 4\n", "says 1 words, but the file has 2"),
        ("a 1\nür 2\n".encode("latin1"), "line 2 has the word .*not UTF-8"),
        (binary()[:-1], "ends or is damaged in word 5"),
        (binary() + b"more", "goes on after the 5 words"),
        (b"9" + binary()[1:], "ends or is damaged in word 6"),
        (binary().replace("ü".encode(), b"\xff\xff"), "word 5 has .* not UTF-8"),
        (struct.pack("<ii", 793712314, 12), "is a model of fastText"),
        (b"PK\x03\x04rest", "is a zip file"),
        (b"\x93NUMPY\x01\x00", "a file of NumPy"),
        (b"\x80\x04\x95\x00rest\n", "neither a text file nor"),
        (
            gzip.compress(b"a 1\nb 2\n" * 99, mtime=0)[:-12],
            "cannot be decompressed after ",
        ),
        (b"\x1f\x8b no gzip", "cannot be decompressed after its start"),
    ],
)
def test_broken_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        word_vectors(write(tmp_path, content))


def test_a_broken_end_is_not_read_with_max_words(tmp_path):
    path = write(tmp_path, "9 2\na 1 2\nb 3 4\nbroken\n")
    assert len(word_vectors(path, max_words=2)) == 2


def test_words_that_are_there_twice_are_told(tmp_path):
    path = write(tmp_path, "a 1\nb 2\na 3\nb 4\n")
    with pytest.warns(UserWarning, match="2 words twice.*'a' in line 3, first in line"):
        found = word_vectors(path)
    assert found.words == ("a", "b") and found.vectors.ravel().tolist() == [1, 2]


@pytest.mark.parametrize(
    "source, error, message",
    [
        (5, TypeError, "source is a int"),
        ((["a"], np.ones((2, 3))), ValueError, "1 words and 2 vectors"),
        ({"a": [1.0], "b": [1.0, 2.0]}, ValueError, "same width"),
        ({"a": 1.0}, ValueError, r"shape \(\)"),
        ({"a": []}, ValueError, r"shape \(0,\)"),
        (([b"a"], [[1.0]]), TypeError, "decode bytes"),
        ({"a": [np.inf]}, ValueError, "word 0 has numbers that are not finite"),
        ({}, ValueError, "no words"),
        ({"": [1.0]}, ValueError, "empty word"),
        ("missing.txt", FileNotFoundError, "missing.txt"),
    ],
)
def test_wrong_sources(source, error, message):
    with pytest.raises(error, match=message):
        word_vectors(source)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="max_words"):
        vectors(max_words=0)
    with pytest.raises(ValueError, match="unknown='none' is neither"):
        vectors(unknown="none")
    with pytest.raises(TypeError, match="Pass a list or an array of str"):
        vectors().ids([b"joy"])
    with pytest.raises(TypeError, match="Pass a list or an array of str"):
        vectors().coverage([1])
    with pytest.raises(KeyError, match="no vector of 'woe'"):
        vectors()["woe"]


def test_lookups():
    found = vectors()
    assert "joy" in found and "woe" not in found and len(found) == 5
    np.testing.assert_array_equal(found["joy"], VECTORS[1])
    np.testing.assert_array_equal(found.lookup(["über", "woe"])[0], VECTORS[4])
    assert found.lookup([]).shape == (0, 3)
    assert repr(found) == "WordVectors(5 words, width 3)"


def test_unknown_words():
    def row(**settings):
        return vectors(**settings).lookup(["woe"])[0]

    assert row().tolist() == [0, 0, 0]
    np.testing.assert_allclose(row(unknown="mean"), VECTORS.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(row(unknown="joy"), VECTORS[1])
    drawn = row(unknown="random", seed=1)
    np.testing.assert_array_equal(drawn, row(unknown="random", seed=1))
    assert (drawn != row(unknown="random", seed=2)).all()
    strict = vectors(unknown="error")
    assert strict.ids(["the joy"]).tolist() == [[2, 3]]
    for ask in (strict.ids, strict.lookup):
        with pytest.raises(ValueError, match="'woe', 'other'.* no vector"):
            ask(["woe", "other"])
    with pytest.raises(ValueError, match="cannot be a layer"):
        strict.vocabulary_layer()


def test_the_name_of_keras_for_unknown_words_is_not_a_word():
    found = word_vectors({"[UNK]": [5.0], "a": [1.0]}, unknown="[UNK]")
    assert found.words == ("a",)
    assert found.lookup(["[UNK]", "b", "a"]).ravel().tolist() == [5, 5, 1]
    assert found.vocabulary_layer().get_vocabulary() == ["", "[UNK]", "a"]


def test_a_coverage_by_hand():
    found = vectors().coverage(["The joy of joy.", "Don't woe, woe"], most=2)
    # Known: the joy joy . n't; unknown: of do woe , woe
    assert found.tokens == 5 / 10 and found.types == 4 / 8
    assert (found.num_tokens, found.num_types) == (10, 8)
    assert list(found.unknown.items()) == [("woe", 2), ("of", 1)]
    assert "50.0%" in str(found) and "woe (2), of (1)" in str(found)
    assert vectors().coverage([]).tokens == 0.0


def test_splitting():
    split = vectors()._split
    text = "It's 3.14, \u201cfine\u201d (u.s.a.)\u2026 I can't say 'hello' to x-rays..."
    assert split.words([text])[0] == [
        *("it", "'s", "3.14", ",", '"', "fine", '"', "(", "u.s.a", "."),
        *(")", "…", "i"),
        *("ca", "n't", "say", "'", "hello", "'", "to", "x-rays", "..."),
    ]
    # Text that is split already, as in SST-2, stays as it is.
    done = "it 's n't `` quoted '' , they 'll go"
    assert (
        split.words([done])[0]
        == done.replace("``", '" "'[:1]).replace("''", '"').split()
    )
    assert split.words(["a\u00a0b\u2003c\td\ne"])[0] == list("abcde")
    assert vectors(lowercase=False)._split.words(["The"])[0] == ["The"]
    cased = word_vectors({"The": [1.0], "joy": [2.0]})
    assert cased._split.words(["The don't"])[0] == ["The", "don't"]


def test_layers_give_the_rows_of_ids():
    found = vectors()
    ids = found.ids(TEXTS)
    assert ids.tolist() == [
        [2, 3, 5, 0],
        [1, 4, 1, 0],
        [0, 0, 0, 0],
        [3, 3, 1, 1],
    ]
    texts = keras.ops.convert_to_numpy(found.vocabulary_layer()(np.array(TEXTS)))
    np.testing.assert_array_equal(texts, ids)
    cut = keras.ops.convert_to_numpy(found.vocabulary_layer(2)(np.array(TEXTS)))
    np.testing.assert_array_equal(cut, ids[:, :2])
    np.testing.assert_array_equal(found.ids(TEXTS, 2), ids[:, :2])
    assert found.ids(TEXTS, 6).shape == (4, 6)
    assert found.ids([]).shape == (0, 1)
    words = np.array([["joy", "woe", ""]])
    looked_up = found.vocabulary_layer(split=False)(words)
    assert keras.ops.convert_to_numpy(looked_up).tolist() == [[3, 1, 0]]


def test_the_embedding_masks_padding_and_has_the_vectors():
    found = vectors(unknown="mean")
    embedding = found.embedding(name="words")
    out = embedding(found.ids(["joy woe", "the"]))
    np.testing.assert_array_equal(out[0, 0], VECTORS[1])
    np.testing.assert_allclose(out[0, 1], VECTORS.mean(0), rtol=1e-6)
    assert keras.ops.convert_to_numpy(out._keras_mask).tolist() == [
        [True, True],
        [True, False],
    ]
    assert embedding.name == "words" and not embedding.trainable
    assert len(found.embedding(trainable=True).trainable_variables) == 1


def classifier(found, trainable=False):
    """Return a classifier of the mean of the vectors of a text."""
    text = keras.Input((1,), dtype="string")
    rows = found.vocabulary_layer()(text)
    backbone = keras.Model(text, found.embedding(trainable)(rows), name="words")
    return kt.models.TransferClassifier(backbone, 2)


@tensorflow_only("strings in a model need TensorFlow")
def test_a_model_on_texts_is_the_mean_without_padding(tmp_path):
    found = vectors(unknown="mean")
    model = classifier(found, trainable=True)
    x = tf.constant(TEXTS * 4)[:, None]  # Keras refuses arrays of strings
    features = kt.backbones.features(model.backbone).predict(x[:4], verbose=0)
    for text, row in zip(TEXTS, features, strict=True):
        words = found._split.words([text])[0]
        mean = found.lookup(words).mean(0) if words else np.zeros(3)
        np.testing.assert_allclose(row, mean, rtol=1e-5, atol=1e-6)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), loss)
    y = np.arange(16) % 2
    kt.fine_tune(model, (x, y), strategy="full", epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6
    )
    moved = model.backbone.layers[-1].get_weights()[0]
    assert np.abs(moved[3] - VECTORS[1]).max() > 1e-3  # "joy"
    np.testing.assert_array_equal(moved[6], VECTORS[4])  # not in the texts


@exports
def test_exports_with_strings(tmp_path):
    model = classifier(vectors())
    path = kt.export_serving(model, tmp_path, samples=TEXTS, labels=["bad", "good"])
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer = serve(inputs=tf.constant(TEXTS)[:, None])
    expected = model.predict(tf.constant(TEXTS)[:, None], verbose=0)
    np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-5, atol=1e-6)


@exports
def test_a_model_on_ids_is_exported_with_its_vocabulary(tmp_path):
    found = vectors()
    ids = keras.Input((None,), dtype="int32")
    backbone = keras.Model(ids, found.embedding()(ids), name="words")
    model = kt.models.TransferClassifier(backbone, 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(found.ids(TEXTS), np.array([0, 1, 0, 1]), verbose=0)
    path = kt.export_serving(
        model, tmp_path, samples=TEXTS, preprocessor=found.vocabulary_layer()
    )
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer = serve(text=tf.constant(TEXTS))
    np.testing.assert_allclose(
        answer["outputs"], model(found.ids(TEXTS)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_glove_on_sst2(data_folder):
    """The data's notes say 71.0 % on the development set, with all labels."""
    from sklearn.linear_model import LogisticRegression

    words = (data_folder / "glove_6b_50d_20k_words.txt").read_text().split()
    with np.load(data_folder / "glove_6b_50d_20k.npz") as arrays:
        found = word_vectors((words, arrays["vectors"]))
    train = kt.data.from_tsv(data_folder / "sst2_train.tsv")
    test = kt.data.from_tsv(data_folder / "sst2_dev.tsv", classes=train.classes)
    assert found.coverage(test.texts).tokens > 0.85
    ids = keras.Input((None,), dtype="int32")
    features = kt.backbones.features(keras.Model(ids, found.embedding()(ids)))
    x, x_test = (
        features.predict(found.ids(part.texts), verbose=0) for part in (train, test)
    )
    probe = LogisticRegression(max_iter=1000).fit(x, train.labels)
    assert 0.68 < probe.score(x_test, test.labels) < 0.74
