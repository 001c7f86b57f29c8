"""Put a finished folder or file in place whole, or leave nothing."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def published(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a path to write to, and rename it to `target` when the block ends.

    It lies beside `target`, on the same disk, under a name that TensorFlow Serving
    passes over, which looks for numbers. If an error ends the block, it is removed,
    and so are the folders that were made for it.

    Raises:
        FileExistsError: If there is something at `target`, now or at the end.
    """
    _check_free(target)
    made = [each for each in target.parents if not each.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"
    try:
        yield partial
        _check_free(target)
        os.rename(partial, target)
    except BaseException:
        _remove(partial)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else uses it now
                folder.rmdir()
        raise


def _check_free(target: pathlib.Path) -> None:
    if target.exists() or target.is_symlink():
        raise FileExistsError(
            f"{target} exists already, and may be served at this moment. Export under "
            "another name or the next version, or remove it first."
        )


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
