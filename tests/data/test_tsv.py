"""from_tsv reads texts and labels, and its errors name the line."""

import csv

import keras
import numpy as np
import pytest

import keras_transfer as kt


@pytest.fixture
def write(tmp_path):
    """Return a function that writes text or bytes to a file and returns the path."""

    def function(content, name="texts.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return function


def test_texts_labels_and_classes(write):
    path = write("pos\tA joy .\nneg\tToo long\npos\tEnfin, c'était drôle 🎬\n")
    texts, labels, classes = kt.data.from_tsv(path)
    assert texts.tolist() == ["A joy .", "Too long", "Enfin, c'était drôle 🎬"]
    assert labels.tolist() == [1, 0, 1]
    assert labels.dtype == np.int64
    assert classes == ("neg", "pos")
    named = kt.data.from_tsv(str(path))
    assert named.texts.shape == named.labels.shape == (3,)


@pytest.mark.parametrize(
    "content",
    [
        "1\tb\n0\ta",  # no line end at the end of the file
        "1\tb\r\n0\ta\r\n",
        b"\xef\xbb\xbf1\tb\n0\ta\n",  # the byte order mark is not part of the label
        " 1 \tb\n0\ta\n",
    ],
)
def test_line_ends_and_byte_order_marks_are_removed(write, content):
    texts, labels, classes = kt.data.from_tsv(write(content))
    assert texts.tolist() == ["b", "a"]
    assert labels.tolist() == [1, 0]
    assert classes == ("0", "1")


def test_quotation_marks_and_odd_separators_are_plain_characters(write):
    lines = ['"open', 'a "b" c', "''", '"', "a\u2028b\x0bc\x85d", " spaces ", ""]
    path = write("".join(f"{i}\t{text}\n" for i, text in enumerate(lines)))
    assert kt.data.from_tsv(path).texts.tolist() == lines


def test_numbers_are_sorted_as_numbers(write):
    path = write("10\ta\n9\tb\n-1\tc\n2.5\td\n")
    _, labels, classes = kt.data.from_tsv(path)
    assert classes == ("-1", "2.5", "9", "10")
    assert labels.tolist() == [3, 2, 0, 1]
    mixed = kt.data.from_tsv(write("10\ta\n9\tb\nnone\tc\n"))
    assert mixed.classes == ("10", "9", "none")


def test_one_number_written_in_two_ways_raises(write):
    path = write("1\ta\n0\tb\n1.0\tc\n")
    message = r"texts.tsv, line 3: the label '1.0' is the same .* as '1' in line 1"
    with pytest.raises(ValueError, match=message):
        kt.data.from_tsv(path)


def test_two_texts_become_a_pair(write):
    path = write("Q one\tA one\tyes\nQ two\tA two\tno\n")
    columns = ("question", "answer", "label")
    texts, labels, _ = kt.data.from_tsv(path, columns=columns)
    assert isinstance(texts, tuple)
    assert [each.tolist() for each in texts] == [
        ["Q one", "Q two"],
        ["A one", "A two"],
    ]
    assert labels.tolist() == [1, 0]


def test_a_header_is_skipped(write):
    path = write("label\ttext\n1\ta\n0\tb\n")
    assert kt.data.from_tsv(path, header=True).texts.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="line 1 contains .*Pass header=True"):
        kt.data.from_tsv(path)
    path = write("gold\tsentence\n1\ta\nx\t\tb\n")
    with pytest.raises(ValueError, match="line 3 has 3 column"):
        kt.data.from_tsv(path, header=True)


def test_a_test_file_gets_the_numbers_of_the_training_file(write):
    classes = kt.data.from_tsv(write("b\t1\na\t2\nc\t3\n")).classes
    test = kt.data.from_tsv(write("c\t1\nb\t2\n"), classes=classes)
    assert test.labels.tolist() == [2, 1]
    assert test.classes == classes
    given = kt.data.from_tsv(write("c\t1\nb\t2\n"), classes=["c", "b"])
    assert given.labels.tolist() == [0, 1]


@pytest.mark.parametrize("header", [False, True])
def test_an_unknown_label_raises_with_its_line(write, header):
    names = "label\ttext\n" if header else ""
    path = write(names + "a\t1\nb\t2\nd\t3\nd\t4\n")
    message = rf"texts.tsv, line {3 + header}: the label 'd' is not in .* 2 .*'a', 'b'"
    with pytest.raises(ValueError, match=message):
        kt.data.from_tsv(path, classes=("a", "b"), header=header)


@pytest.mark.parametrize(
    "content, message",
    [
        ("1\ta\n0 no tab\n", r"line 2 has 1 column\(s\), but must have 2"),
        ("1\ta\n0\tb\tc\n", r"line 2 has 3 column\(s\)"),
        ("1\ta\n\n0\tb\n", "line 2 is blank"),
        ("1\ta\n\tb\n", "line 2: the label is empty"),
        ("1\ta\n  \tb\n", "line 2: the label is empty"),
        ("1\ta\n0\tb\0\n", "line 2 has a NUL character"),
        ("1\ta\n0\tone\rtwo\n", "line 2: .*line break"),
        (b"1\ta\n0\tb\n1\tcaf\xe9\n", "line 3: byte 6 of the line, 0xe9, is not UTF-8"),
        (b"1\ta\n\xed\xa0\x80\tb\n", "line 2: byte 1 of the line"),
        ("1\ta\n0\tb\n".encode("utf-16"), "line 1: byte 1 of the line, 0xff"),
        ("1\ta\n0\tb\n".encode("utf-16-le"), "line 1 has a NUL character"),
        ("", "texts.tsv is empty"),
        (b"\xef\xbb\xbf", "line 1 is blank"),
    ],
)
def test_a_bad_line_raises_with_its_number(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=message) as error:
        kt.data.from_tsv(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == (
        content if isinstance(content, bytes) else content.encode()
    )


def test_a_file_with_only_a_header_raises(write):
    with pytest.raises(ValueError, match="is empty"):
        kt.data.from_tsv(write("label\ttext\n"), header=True)


def test_a_text_beyond_the_limit_of_csv_raises(write):
    path = write("1\ta\n0\t" + "b" * (csv.field_size_limit() + 1))
    with pytest.raises(
        ValueError, match=r"line 2: field larger.*csv\.field_size_limit"
    ):
        kt.data.from_tsv(path)


def test_a_missing_file_raises(tmp_path):
    for path in (tmp_path / "absent.tsv", tmp_path):
        with pytest.raises(FileNotFoundError, match="The file .* does not exist"):
            kt.data.from_tsv(path)


@pytest.mark.parametrize(
    "columns",
    ["label", ("label",), ("text", "pair"), ("label", "label"), ("label", "a", "a")],
)
def test_bad_columns_raise(write, columns):
    with pytest.raises(ValueError, match="columns=.* from left to right"):
        kt.data.from_tsv(write("1\ta\n"), columns=columns)


@pytest.mark.parametrize("classes", ["01", (), ("0", "0"), (0, 1)])
def test_bad_classes_raise(write, classes):
    with pytest.raises(ValueError, match="classes=.* each a str"):
        kt.data.from_tsv(write("1\ta\n"), classes=classes)


def test_texts_work_in_few_labels_and_fit(write):
    path = write("".join(f"{i % 2}\tword{i % 2} other\n" for i in range(20)))
    texts, labels, _ = kt.data.from_tsv(path)
    labeled, rest = kt.data.few_labels((texts, labels), 4)
    words = keras.layers.TextVectorization(
        vocabulary=["word0", "word1"], output_mode="multi_hot"
    )
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, keras.layers.Dense(2)(words(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    model.fit(*labeled, verbose=0)
    assert model.predict(rest, verbose=0).shape == (12, 2)


def test_the_real_texts_are_read(data_folder):
    texts, labels, classes = kt.data.from_tsv(data_folder / "sst2_dev.tsv")
    assert classes == ("0", "1")
    assert np.bincount(labels).tolist() == [428, 444]
    assert texts[0] == "one long string of cliches"
    reviews = kt.data.from_tsv(data_folder / "amazon_books_train.tsv")
    lines = (data_folder / "amazon_books_train.tsv").read_bytes().count(b"\n")
    assert len(reviews.texts) == len(reviews.labels) == lines
