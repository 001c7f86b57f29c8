"""from_conll reads words and tags, and says where a file is wrong."""

import pytest

import keras_transfer as kt


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "words.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_sentences_tags_and_names(write):
    path = write("Ada\tB-PER\nsings\tO\n\n\nParis\tB-LOC\n'\tI-LOC\n")
    sentences, tags, names = kt.data.from_conll(path)
    assert sentences == [["Ada", "sings"], ["Paris", "'"]]
    assert tags == [["B-PER", "O"], ["B-LOC", "I-LOC"]]
    assert names == ("O", "B-LOC", "B-PER", "I-LOC")


def test_columns_of_conll_2003_and_windows_line_ends(write):
    path = write("-DOCSTART- -X- O O\r\n\r\nAda NNP I-NP B-PER\r\n. . O O\r\n\r\n")
    found = kt.data.from_conll(path, separator=None)
    assert found.sentences == [["Ada", "."]] and found.tags == [["B-PER", "O"]]


def test_names_of_the_training_file_keep_their_order(write):
    path = write("Ada\tPER\n")
    assert kt.data.from_conll(path, names=["O", "LOC", "PER"]).names == (
        "O",
        "LOC",
        "PER",
    )


@pytest.mark.parametrize(
    "content, message",
    [
        ("Ada\tPER\nsings\n", "line 2 has one column, 'sings'"),
        ("Ada\tPER\n\tO\n", "line 2: the word is empty"),
        ("Ada\t \n", "line 1: the tag is empty"),
        ("\n\n", "has no sentence"),
        (b"Ada\tPER\n\xe9\tO\n", "line 2: byte 1 of the line, 0xe9, is not UTF-8"),
    ],
)
def test_errors_have_the_line(write, content, message):
    with pytest.raises(ValueError, match=message):
        kt.data.from_conll(write(content))


def test_an_unknown_tag_and_a_missing_file(write, tmp_path):
    with pytest.raises(ValueError, match="line 1: the tag 'ORG' is not in `names`"):
        kt.data.from_conll(write("Ada\tORG\n"), names=["O", "PER"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        kt.data.from_conll(tmp_path / "other.tsv")


def test_the_real_file(data_folder):
    train = kt.data.from_conll(data_folder / "bc5cdr_train.tsv")
    assert len(train.sentences) == 4560 and sum(map(len, train.sentences)) == 118170
    assert train.names[0] == "O" and len(train.names) == 5
