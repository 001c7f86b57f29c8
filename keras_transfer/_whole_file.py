"""Write a file or folder completely or not at all: to a partial path, then rename."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

ENDING = ".partial"
# Partial files of version 0.1.0: the state of a run and the index of a cache.
OLD_NAMES = ("fine_tune.json.new", "index.json.tmp")


def replace_file(path: str | os.PathLike, content: bytes) -> int:
    """Replace the file with `content` in one step, and return the number of bytes.

    Raises:
        ValueError: If the folder does not exist.
        OSError: If the file cannot be written. An existing file stays unchanged.
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
    """Yield a path for a new file or folder, and rename it to `target` at the end.

    TensorFlow Serving ignores the path, because its name is not a number. If an error
    ends the block, the path and all folders that were made for it are removed.

    Raises:
        FileExistsError: If `target` exists at the beginning or at the end.
    """
    _check_free(target)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _partial(target) as partial:
            yield partial
            _check_free(target)
            os.rename(partial, target)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # another process uses the folder now
                folder.rmdir()
        raise


def is_partial(path: pathlib.Path) -> bool:
    """Return whether `path` is a partial file or folder of a killed process."""
    hidden = path.name.startswith(".") and path.name.endswith(ENDING)
    return hidden or path.name in OLD_NAMES


def remove_partials(folder: pathlib.Path) -> None:
    """Remove all partial files of `folder`. No other process may write there."""
    for path in folder.iterdir():
        if is_partial(path):
            _remove(path)


@contextlib.contextmanager
def _partial(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield an unused path next to `target`, and remove leftovers there at the end."""
    # In the same folder, because a rename is one step only in one file system.
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
            f"{target} exists already, and a server may be using it. Export to another "
            "name or to the next version, or remove it first."
        )


def _flush_folder(folder: pathlib.Path) -> None:
    """Write the new name of a file to the disk too, if the system supports this."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network drives raise an error; the file itself is written anyway.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
