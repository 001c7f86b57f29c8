"""A file or a folder is written completely, or the old content does not change."""

import os

import pytest

from keras_transfer._whole_file import is_partial
from keras_transfer._whole_file import new_path
from keras_transfer._whole_file import remove_partials
from keras_transfer._whole_file import replace_file


class Killed(BaseException):
    """An exception that ends a process, like KeyboardInterrupt."""


def killed(*args):
    raise Killed


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [False, True])
def test_a_file_is_made_or_replaced(tmp_path, there):
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"a longer text")
    assert replace_file(str(path), b"new") == 3
    assert path.read_bytes() == b"new"
    assert everything(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("there", [False, True])
def test_a_kill_leaves_the_old_file(tmp_path, monkeypatch, step, there):
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"old")
    monkeypatch.setattr(os, step, killed)
    with pytest.raises(Killed):
        replace_file(path, b"new")
    assert everything(tmp_path) == ["file"] * there
    assert not there or path.read_bytes() == b"old"


def test_the_content_is_on_the_disk_before_the_file_is_renamed(tmp_path, monkeypatch):
    path, steps, replace = tmp_path / "file", [], os.replace

    def flushed(descriptor):
        steps.append("fsync")

    def replaced(source, target):
        assert os.stat(source).st_size == 3 and not path.exists()
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    replace_file(path, b"new")
    assert steps[:2] == ["fsync", "replace"]
    assert steps[2:] == (["fsync"] if os.name == "posix" else [])


def test_a_folder_that_cannot_be_flushed_does_not_raise(tmp_path, monkeypatch):
    folders = []

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            folders.append(descriptor)
            raise OSError("not supported")

    monkeypatch.setattr(os, "fsync", refuse)
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert folders or not os.path.isdir("/proc/self/fd")


def test_a_file_in_a_missing_folder_raises(tmp_path):
    with pytest.raises(ValueError, match="none' does not exist. Make it first"):
        replace_file(tmp_path / "none" / "file", b"new")
    assert everything(tmp_path) == []


def test_a_new_folder_is_renamed_when_it_is_complete(tmp_path):
    target = tmp_path / "models" / "1"
    with new_path(target) as partial:
        assert partial.parent == target.parent and is_partial(partial)
        partial.mkdir()
        (partial / "weights").write_bytes(b"w")
        assert not target.exists()
    assert everything(tmp_path) == ["models", "models/1", "models/1/weights"]


def test_a_new_file_is_renamed_when_it_is_complete(tmp_path):
    target = tmp_path / "model.onnx"
    with new_path(target) as partial:
        partial.write_bytes(b"graph")
        assert not target.exists()
    assert target.read_bytes() == b"graph"
    assert everything(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Killed])
@pytest.mark.parametrize("kind", ["folder", "file", "nothing"])
def test_after_an_error_no_partial_file_is_left(tmp_path, error, kind):
    (tmp_path / "old").mkdir()
    with pytest.raises(error), new_path(tmp_path / "old" / "a" / "b" / "1") as partial:
        if kind == "folder":
            (partial / "assets").mkdir(parents=True)
        elif kind == "file":
            partial.write_bytes(b"half")
        raise error
    assert everything(tmp_path) == ["old"]


def test_a_folder_that_another_process_uses_stays(tmp_path):
    with pytest.raises(Killed), new_path(tmp_path / "models" / "1"):
        (tmp_path / "models" / "2").mkdir()
        raise Killed
    assert everything(tmp_path) == ["models", "models/2"]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_existing_target_does_not_change(tmp_path, kind, when):
    target = tmp_path / "1"

    def make():
        if kind == "file":
            target.write_bytes(b"old")
        elif kind == "folder":
            target.mkdir()
        else:
            target.symlink_to(tmp_path / "nowhere")

    if when == "before":
        make()
    refused = pytest.raises(FileExistsError, match="next version")
    with refused, new_path(target) as partial:
        partial.write_bytes(b"new")
        make()
    assert everything(tmp_path) == ["1"]
    assert kind != "file" or target.read_bytes() == b"old"


def test_partial_files_of_killed_processes_can_be_removed(tmp_path):
    for name in (".index.json.0a.partial", ".hidden", "my.partial", "index.json"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".1.0b.partial" / "assets").mkdir(parents=True)
    remove_partials(tmp_path)
    assert everything(tmp_path) == [".hidden", "index.json", "my.partial"]
