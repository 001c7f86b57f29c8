"""TensorFlow and this package read the same index of a checkpoint."""

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.export.bundle_index import checksum
from keras_transfer.export.bundle_index import HEADER
from keras_transfer.export.bundle_index import in_shard
from keras_transfer.export.bundle_index import num_shards
from keras_transfer.export.bundle_index import number_in
from keras_transfer.export.bundle_index import read_index
from keras_transfer.export.bundle_index import shard_of
from keras_transfer.export.bundle_index import varint
from keras_transfer.export.bundle_index import varint_at
from keras_transfer.export.bundle_index import write_index

COUNT = 4000  # an index of several blocks of 256 kB


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return the path of a checkpoint with many variables, and their names."""
    path = tmp_path_factory.mktemp("checkpoint") / "many"
    letters = np.random.default_rng(0).integers(97, 123, (COUNT, 100)).astype("uint8")
    names = [row.tobytes().decode() for row in letters]
    values = [tf.constant(number) for number in range(COUNT)]
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=names,
        shape_and_slices=[""] * COUNT,
        tensors=values,
    )
    return path, names


def test_several_blocks_are_read(checkpoint):
    path, names = checkpoint
    index = path.with_suffix(".index")
    assert index.stat().st_size > 2**18
    entries = read_index(index)
    assert list(entries) == [HEADER, *sorted(name.encode() for name in names)]
    assert num_shards(entries) == 1
    assert {shard_of(entry) for entry in entries.values()} == {0}


def test_tensorflow_reads_what_is_written(checkpoint, tmp_path):
    path, names = checkpoint
    entries = read_index(path.with_suffix(".index"))
    write_index(tmp_path / "new.index", entries)
    assert read_index(tmp_path / "new.index") == entries
    data = "data-00000-of-00001"
    (tmp_path / f"new.{data}").hardlink_to(path.with_suffix(f".{data}"))
    stored = tf.train.load_checkpoint(str(tmp_path / "new"))
    for number in (0, 7, COUNT - 1):
        assert stored.get_tensor(names[number]) == number


def test_a_hand_made_message():
    message = bytes.fromhex("08071a0161" + "20ac02" + "35aabbccdd")
    assert [number_in(message, field) for field in (1, 3, 4, 6)] == [7, 0, 300, 0]
    assert shard_of(in_shard(in_shard(message, 300), 2)) == 2


def test_numbers_above_127_take_two_bytes():
    for number, content in ((127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")):
        assert varint(number) == content
        assert varint_at(b"\0" + content, 1) == (number, 1 + len(content))


def test_the_checksum_of_the_standard():
    unmasked = 0xE3069283  # of "123456789", from RFC 3720 and later catalogs
    masked = ((unmasked >> 15) | (unmasked << 17)) & 0xFFFFFFFF
    assert checksum(b"123456789") == (masked + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("place", [0, -60, -1])
def test_a_changed_byte_is_found(checkpoint, tmp_path, place):
    content = bytearray(checkpoint[0].with_suffix(".index").read_bytes())
    content[place] ^= 1
    (tmp_path / "bad.index").write_bytes(content)
    with pytest.raises(ValueError, match="bad.index' is not an index of a checkpoint"):
        read_index(tmp_path / "bad.index")
