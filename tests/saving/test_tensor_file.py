"""Safetensors files: valid files are read, others are refused; one-step writing."""

import errno
import json
import os

import numpy as np
import pytest

from keras_transfer.saving.tensor_file import LONGEST_HEADER
from keras_transfer.saving.tensor_file import Spec
from keras_transfer.saving.tensor_file import TensorFile
from keras_transfer.saving.tensor_file import write_tensors
from tests.saving.files import join
from tests.saving.files import split

TENSORS = {
    "a/lora_a": np.arange(6, dtype="float32").reshape(2, 3),
    "a/lora_b": np.array([1, 2], "float16"),
    "b/count": np.array([7], "int32"),
}
HEADER = {
    "a/x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "a/y": {"dtype": "F16", "shape": [2, 1], "data_offsets": [8, 12]},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def entry(name="a/y", **changed):
    return HEADER | {name: HEADER["a/y"] | changed}


def test_round_trip(path):
    size = write_tensors(path, TENSORS, {"key": "text"})
    file = TensorFile(path)
    assert size == path.stat().st_size
    assert file.metadata == {"key": "text"}
    assert file.specs["a/lora_a"] == Spec("F32", (2, 3))
    for name, value in file.read(TENSORS).items():
        assert value.dtype == TENSORS[name].dtype
        assert np.array_equal(value, TENSORS[name])


def test_values_that_are_not_contiguous(path):
    value = np.arange(6, dtype="float32").reshape(2, 3).T
    write_tensors(path, {"x": value, "y": np.float32(3)})
    read = TensorFile(path).read(["x", "y"])
    assert np.array_equal(read["x"], value) and read["y"] == 3


def test_the_same_tensors_give_the_same_bytes(path, tmp_path):
    other = tmp_path / "other.safetensors"
    write_tensors(path, TENSORS, {"key": "text"})
    write_tensors(other, dict(reversed(TENSORS.items())), {"key": "text"})
    assert path.read_bytes() == other.read_bytes()


def test_spaces_after_the_header_are_allowed(path):
    join(path, json.dumps(HEADER).encode() + b"    ", bytes(12))
    assert set(TensorFile(path).specs) == {"a/x", "a/y"}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "header would end"),
        (b"\0" * 7, "header would end"),
        ((2**63).to_bytes(8, "little") + b"{}", "header would end"),
        ((3).to_bytes(8, "little") + b"{}", "header would end"),
        ((2).to_bytes(8, "little") + b"[]", "begin with"),
        ((0).to_bytes(8, "little"), "begin with"),
        (b"\x80\x04\x95" + b"\0" * 40, "header would end"),  # a pickle
    ],
    ids=["empty", "seven", "huge", "cut", "list", "none", "pickle"],
)
def test_a_bad_beginning_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        TensorFile(path)


def test_a_header_that_is_too_long_is_refused_before_it_is_read(path):
    with path.open("wb") as stream:  # a file with a hole takes no space
        stream.write((LONGEST_HEADER + 1).to_bytes(8, "little") + b"{")
        stream.truncate(LONGEST_HEADER + 100)
    with pytest.raises(ValueError, match="longer than"):
        TensorFile(path)


@pytest.mark.parametrize(
    "header, message",
    [
        (b'{"a/x": }', "not valid JSON"),
        (b'{"a/x": "\xff"}', "UTF-8"),
        (b'{"a/x": NaN}', "the number 'NaN'"),
        (b'{"a/x": 1e999}', "the number '1e999'"),
        (b'{"a/x": 1, "a/x": 2}', "'a/x' twice"),
        (b'{"a/x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
        ({"a/x": [1]}, "'a/x' has the invalid entry"),
        ({"a/x": HEADER["a/x"] | {"more": 1}}, "'a/x' has the invalid entry"),
        ({"__metadata__": {"a": 1}}, "dict of strings"),
        ({"__metadata__": []}, "dict of strings"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_header_is_refused(path, header, message):
    join(path, header, bytes(12))
    with pytest.raises(ValueError, match=message):
        TensorFile(path)


@pytest.mark.parametrize(
    "header, message",
    [
        (entry(dtype="F8"), "unknown dtype"),
        (entry(dtype=None), "unknown dtype"),
        (entry(shape=[2, -1]), "the invalid shape"),
        (entry(shape=[True, 2]), "the invalid shape"),
        (entry(shape=[2.0, 1]), "the invalid shape"),
        (entry(shape="21"), "the invalid shape"),
        (entry(shape=[1] * 17), "the invalid shape"),
        (entry(shape=[2**62, 2**62]), "do not have the length"),
        (entry(shape=[3, 1]), "do not have the length"),
        (entry(data_offsets=[8, 12, 12]), "the invalid offsets"),
        (entry(data_offsets=[-4, 0]), "the invalid offsets"),
        (entry(data_offsets=[12, 8]), "do not have the length"),
        (entry(data_offsets=[4, 8]), "the tensor before it ends at 8"),  # overlap
        (entry(data_offsets=[10, 14]), "the tensor before it ends at 8"),  # gap
        (entry(data_offsets=[2**40, 2**40 + 4]), "the tensor before it"),
        ({"a/x": HEADER["a/x"]}, "take 8 bytes, but 12 follow"),  # bytes too many
        (entry("a/z", data_offsets=[12, 16]), "take 16 bytes, but 12 follow"),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_a_tensor_with_invalid_offsets_is_refused(path, header, message):
    join(path, header, bytes(12))
    with pytest.raises(ValueError, match=message):
        TensorFile(path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "",
        "a\\b",
        "C:/a",
        "a\0b",
        "a\nb",
        "a" * 2000,
    ],
)
def test_a_name_that_is_not_a_relative_path_is_refused(path, name):
    header = {"a/x": HEADER["a/x"], name: HEADER["a/y"]}
    join(path, header, bytes(12))
    with pytest.raises(ValueError, match="not a path of layers"):
        TensorFile(path)
    with pytest.raises(ValueError, match="not a path of layers"):
        write_tensors(path.with_name("new"), {name: np.zeros(1)})
    assert not path.with_name("new").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_that_are_not_finite_are_refused(path, bad, dtype):
    write_tensors(path, {"x": np.zeros(3, dtype)})
    header, data = split(path)
    join(path, header, np.array([0, bad, 0], dtype).tobytes())
    with pytest.raises(ValueError, match="NaN or infinite"):
        TensorFile(path).read(["x"])
    with pytest.raises(ValueError, match="NaN or infinite"):
        write_tensors(path, {"x": np.array([bad], dtype)})


def test_a_path_that_is_not_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        TensorFile(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is not a file"):
        TensorFile(tmp_path)
    with pytest.raises(ValueError, match="Make it first"):
        write_tensors(tmp_path / "none" / "x.safetensors", TENSORS)


def test_tensors_that_do_not_fit_a_variable_are_refused(path):
    write_tensors(path, TENSORS)
    file = TensorFile(path)
    file.expect("a/lora_b", (2,), "float32")
    file.expect("b/count", (1,), "int32")
    with pytest.raises(ValueError, match="lacks the tensor"):
        file.expect("a/lora_c", (2,), "float32")
    with pytest.raises(ValueError, match="has the shape"):
        file.expect("a/lora_b", (2, 1), "float32")
    with pytest.raises(ValueError, match="has the dtype I32"):
        file.expect("b/count", (1,), "float32")
    with pytest.raises(ValueError, match="has the dtype F32"):
        file.expect("a/lora_a", (2, 3), "int32")


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_kill_or_a_full_disk_leaves_the_old_file(path, monkeypatch, where):
    write_tensors(path, TENSORS)
    before = path.read_bytes()

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, where, fail)
    with pytest.raises(OSError, match="No space"):
        write_tensors(path, {"x": np.ones(3)})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_complete_file_exists_at_every_moment(path, monkeypatch):
    write_tensors(path, TENSORS)
    replace, seen = os.replace, []

    def look(source, target):
        seen.append(set(TensorFile(source).specs))  # complete before it is renamed
        seen.append(set(TensorFile(target).specs))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_tensors(path, {"x": np.ones(3)})
    assert seen == [{"x"}, set(TENSORS)]
    assert set(TensorFile(path).specs) == {"x"}
