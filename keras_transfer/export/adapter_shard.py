"""AdapterShard: the data file of a checkpoint that contains the adapters alone."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_transfer.export.bundle_index import HEADER
from keras_transfer.export.bundle_index import in_shard
from keras_transfer.export.bundle_index import num_shards
from keras_transfer.export.bundle_index import read_index
from keras_transfer.export.bundle_index import shard_of
from keras_transfer.export.bundle_index import varint
from keras_transfer.export.bundle_index import write_index
from keras_transfer.export.graph import APART

PREFIX = pathlib.Path("variables", "variables")
INDEX = PREFIX.with_suffix(".index")
FINGERPRINT = "fingerprint.pb"
# Field of a FingerprintDef in tensorflow/core/protobuf/fingerprint.proto.
CHECKPOINT_HASH = 5


class AdapterShard:
    """The adapters in the checkpoint of an exported version, and all other files.

    Args:
        folder: Folder of the version.

    Raises:
        ValueError: If the index of the checkpoint cannot be read, or the adapters are
            not in a data file of their own.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.entries = read_index(folder / INDEX)
        rest = {k: v for k, v in self.entries.items() if k != HEADER}
        self.keys = [key for key in rest if key.startswith(_key(""))]
        ours = {shard_of(rest[key]) for key in self.keys}
        others = {shard_of(v) for k, v in rest.items() if k not in self.keys}
        if len(ours) != 1 or ours & others:
            raise ValueError(
                f"{str(folder / INDEX)!r} has the adapters in the data files "
                f"{sorted(ours)} and other variables in {sorted(others)}. The adapters "
                "must be in one file of their own. Export the model again."
            )
        (self.number,) = ours
        count = num_shards(self.entries)
        self.data = PREFIX.with_name(
            f"{PREFIX.name}.data-{self.number:05d}-of-{count:05d}"
        )

    def values(self) -> dict[str, np.ndarray]:
        """Return the values of the adapters' variables by name."""
        stored = tf.train.load_checkpoint(str(self.folder / PREFIX))
        keys = [key.decode() for key in self.keys]
        return {key.split("/")[1]: stored.get_tensor(key) for key in keys}

    def link_others(self, folder: pathlib.Path) -> bool:
        """Make `folder` with links to all files that do not depend on the adapters.

        Returns:
            Whether some files had to be copied.
        """
        copied = False
        left_out = (INDEX, self.data, pathlib.Path(FINGERPRINT))
        folder.mkdir()
        for path in sorted(self.folder.rglob("*")):
            place = path.relative_to(self.folder)
            if path.is_dir():
                (folder / place).mkdir()
            elif place not in left_out:
                try:
                    os.link(path, folder / place)
                except OSError:  # another file system, or one without hard links
                    shutil.copy2(path, folder / place)
                    copied = True
        return copied

    def write(self, folder: pathlib.Path, values: Mapping[str, np.ndarray]) -> int:
        """Write new values into a folder of `link_others`, and read them again.

        Returns:
            The number of bytes.

        Raises:
            OSError: If a value cannot be written.
        """
        names = {_key(name).decode(): value for name, value in values.items()}
        alone = folder / PREFIX.with_name(APART)
        tf.raw_ops.SaveV2(
            prefix=str(alone),
            tensor_names=list(names),
            shape_and_slices=[""] * len(names),
            tensors=[tf.constant(value) for value in names.values()],
        )
        index = alone.with_suffix(".index")
        new = read_index(index)
        kept = {k: v for k, v in self.entries.items() if k not in self.keys}
        moved = {k: in_shard(v, self.number) for k, v in new.items() if k != HEADER}
        write_index(folder / INDEX, kept | moved)
        index.unlink()
        alone.with_name(f"{alone.name}.data-00000-of-00001").rename(folder / self.data)
        self._write_fingerprint(folder)
        stored = tf.train.load_checkpoint(str(folder / PREFIX))
        for key, value in names.items():
            if not np.array_equal(stored.get_tensor(key), value):
                raise OSError(f"{key!r} of {str(folder)!r} was not written correctly.")
        files = [folder / name for name in (INDEX, self.data, FINGERPRINT)]
        return sum(path.stat().st_size for path in files if path.is_file())

    def _write_fingerprint(self, folder: pathlib.Path) -> None:
        """Write the fingerprint of the SavedModel with the digest of the new index."""
        path = self.folder / FINGERPRINT
        if path.is_file():
            digest = tf.fingerprint(tf.constant([(folder / INDEX).read_bytes()]))
            value = int.from_bytes(digest.numpy().tobytes(), "little")
            # A repeated field replaces the field before it.
            added = varint(CHECKPOINT_HASH << 3) + varint(value)
            (folder / FINGERPRINT).write_bytes(path.read_bytes() + added)


def _key(name: str) -> bytes:
    """Return the name of a variable in the checkpoint, or how all names begin."""
    ending = "/.ATTRIBUTES/VARIABLE_VALUE" if name else ""
    return f"{APART}/{name}{ending}".encode()
