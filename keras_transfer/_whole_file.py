"""Write a file or a folder whole or not at all: under another name, then renamed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

ENDING = ".partial"
# What version 0.1.0 wrote to next to the state of a run and the index of a cache.
OLD_NAMES = ("fine_tune.json.new", "index.json.tmp")


def replace_file(path: str | os.PathLike, content: bytes) -> int:
    """Put `content` in the place of the file in one step, and return its length.

    Raises:
        ValueError: If the folder does not exist.
        OSError: If the file cannot be written. A file that is there stays as it is.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise ValueError(
            f"The folder {str(path.parent)!r} does not exist. Make it first."
        )
    with _partial(path) as partial:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    _flush_folder(path.parent)
    return len(content)


@contextlib.contextmanager
def new_path(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a path to write a file or folder to, renamed to `target` at the end.

    TensorFlow Serving passes over its name, since it looks for numbers. If an error
    ends the block, it is removed, and so are the folders that were made for it.

    Raises:
        FileExistsError: If there is something at `target`, now or at the end.
    """
    _check_free(target)
    made = [each for each in target.parents if not each.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _partial(target) as partial:
            yield partial
            _check_free(target)
            os.rename(partial, target)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else uses it now
                folder.rmdir()
        raise


def is_partial(path: pathlib.Path) -> bool:
    """Return whether `path` is what a killed process left of a file or folder."""
    hidden = path.name.startswith(".") and path.name.endswith(ENDING)
    return hidden or path.name in OLD_NAMES


def remove_partials(folder: pathlib.Path) -> None:
    """Remove what killed processes left in `folder`. Nobody else may write there."""
    for path in folder.iterdir():
        if is_partial(path):
            _remove(path)


@contextlib.contextmanager
def _partial(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a free path next to `target`, and remove what is left there at the end."""
    # In the same folder, since only within one file system is a rename one step.
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}{ENDING}")
    try:
        yield partial
    finally:
        _remove(partial)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _check_free(target: pathlib.Path) -> None:
    if target.exists() or target.is_symlink():
        raise FileExistsError(
            f"{target} exists already, and may be served at this moment. Export under "
            "another name or the next version, or remove it first."
        )


def _flush_folder(folder: pathlib.Path) -> None:
    """Have the new name of a file on the disk too, where the system knows how."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network drives refuse; the file itself is written all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
