"""Rows of arrays on disk: complete shards and an index of the shards."""

import json
import os
import pathlib

import keras
import numpy as np

from keras_transfer._whole_file import is_partial
from keras_transfer._whole_file import remove_partials
from keras_transfer._whole_file import replace_file

FORMAT = "keras_transfer feature cache"
VERSION = 1
INDEX = "index.json"


class Shards:
    """A folder of safetensors files with rows of one structure of arrays.

    `index.json` lists the files with the number of rows, the size in bytes and a
    fingerprint of the input data of each file. Every file is written to a partial path
    and then renamed, so all shards are complete even if the process is killed. Only one
    process may write at a time.

    Args:
        folder: String or path, the folder. It is made with the first shard.
        backbone: String, the fingerprint of the backbone.

    Raises:
        ValueError: If the folder is not a feature cache, is damaged or was made with
            another backbone. In these cases nothing is written.
    """

    def __init__(self, folder: str | os.PathLike, backbone: str):
        self.folder = pathlib.Path(folder)
        self.backbone = backbone
        self.entries: list[dict] = []
        self.template: object = None
        self.complete = False
        if self.folder.exists():
            self._open()

    @property
    def rows(self) -> int:
        """The number of rows in all shards."""
        return sum(entry["rows"] for entry in self.entries)

    def add(self, structure: object, data: str) -> None:
        """Write a structure of arrays `(rows, ...)` as the next shard.

        Args:
            structure: The arrays, in the same structure for every shard.
            data: Fingerprint of the data that the arrays were made from.
        """
        from safetensors.numpy import save

        arrays = keras.tree.flatten(structure)
        if self.template is None:
            self.template = template_of(structure)
            self.folder.mkdir(parents=True, exist_ok=True)
            # First, because otherwise a killed process leaves a folder without an
            # index.
            self._write_index()
        remove_partials(self.folder)
        plain = {str(i): _storable(array) for i, array in enumerate(arrays)}
        content = save(plain)
        name = f"shard-{len(self.entries):05}.safetensors"
        replace_file(self.folder / name, content)
        rows = len(arrays[0])
        entry = dict(file=name, rows=rows, bytes=len(content), data=data)
        self.entries.append(entry)
        self._write_index()

    def finish(self) -> None:
        """Mark the cache as complete."""
        self.complete = True
        self._write_index()

    def read(self, number: int) -> object:
        """Return the structure of arrays in one shard."""
        from safetensors.numpy import load_file

        arrays = load_file(self.folder / self.entries[number]["file"])
        leaves = keras.tree.flatten(self.template)
        flat = [_restored(arrays[str(i)], leaf) for i, leaf in enumerate(leaves)]
        return keras.tree.pack_sequence_as(self.template, flat)

    def _open(self) -> None:
        if not self.folder.is_dir():
            raise ValueError(
                f"path={str(self.folder)!r} is a file, but features are cached in a "
                "folder of shards. Pass a new folder."
            )
        # If the process is killed before the first index, only partial files exist.
        files = {path.name for path in self.folder.iterdir() if not is_partial(path)}
        if not files:
            return
        index = self._read_index() if INDEX in files else None
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise ValueError(
                f"The folder {str(self.folder)!r} is not a feature cache: it contains "
                f"{sorted(files)[:3]} and no index of a feature cache. Nothing was "
                "changed. Pass a new or an empty folder."
            )
        if index["version"] != VERSION:
            raise ValueError(
                f"The feature cache {str(self.folder)!r} has format "
                f"{index['version']}, but this version of keras_transfer reads format "
                f"{VERSION}. Pass a new folder."
            )
        if index["backbone"] != self.backbone:
            raise ValueError(
                f"The feature cache {str(self.folder)!r} is stale: it was made with "
                "another backbone or with other weights. Delete the folder to make the "
                "cache again, or pass another folder."
            )
        for entry in index["shards"]:
            file = self.folder / entry["file"]
            size = file.stat().st_size if file.is_file() else None
            if size != entry["bytes"]:
                raise ValueError(
                    f"The feature cache {str(self.folder)!r} is damaged: "
                    f"{entry['file']} has {size} bytes, but it should have "
                    f"{entry['bytes']}. Delete the folder to make the cache again."
                )
        self.entries = index["shards"]
        self.template = keras.tree.lists_to_tuples(index["template"])
        self.complete = index["complete"]

    def _read_index(self) -> object:
        try:
            return json.loads((self.folder / INDEX).read_text("utf-8"))
        except ValueError:  # not text, or not JSON
            return None

    def _write_index(self) -> None:
        index = dict(
            format=FORMAT,
            version=VERSION,
            backbone=self.backbone,
            template=self.template,
            complete=self.complete,
            shards=self.entries,
        )
        replace_file(self.folder / INDEX, json.dumps(index, indent=1).encode())


def template_of(structure: object) -> object:
    """Return the structure with each array replaced by "dtype:shape" of a row."""
    return keras.tree.lists_to_tuples(keras.tree.map_structure(_leaf, structure))


def row_of(leaf: str) -> tuple[str, tuple[int, ...]]:
    """Return the dtype and the shape of a row from "dtype:shape"."""
    dtype, _, shape = leaf.partition(":")
    return dtype, tuple(int(size) for size in shape.split(",") if size)


def _leaf(array: np.ndarray) -> str:
    dtype = keras.backend.standardize_dtype(array.dtype)
    return f"{dtype}:{','.join(map(str, array.shape[1:]))}"


def _storable(array: np.ndarray) -> np.ndarray:
    # NumPy itself has no bfloat16, so its bits are stored as integers.
    bits = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
    return np.ascontiguousarray(bits)


def _restored(array: np.ndarray, leaf: str) -> np.ndarray:
    dtype, _ = row_of(leaf)
    return array.view(dtype) if dtype == "bfloat16" else array
