"""Read and write the index of a TensorFlow checkpoint, which says where tensors are.

The index is a sorted table of LevelDB without compression: blocks of entries, an index
of the blocks, and a footer. The entry `b""` is a BundleHeaderProto. The other entries
are BundleEntryProtos by tensor name, with the number of the data file, the offset, the
size and the checksum of each tensor. See tensorflow/core/util/tensor_bundle and
tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterable
from collections.abc import Mapping

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
RESTART = 16  # entries between two offsets that a reader can jump to
TRAILER = 5  # the type of a block, 0 without compression, and its checksum
HEADER = b""  # name of the entry about the whole checkpoint
NUM_SHARDS, SHARD = 1, 3  # fields of a BundleHeaderProto and of a BundleEntryProto


def read_index(path: pathlib.Path) -> dict[bytes, bytes]:
    """Return the entries of an index by name, in the order of the names.

    Raises:
        ValueError: If the file is not such an index, or is damaged.
    """
    data = path.read_bytes()
    try:
        if data[-len(MAGIC) :] != MAGIC:
            raise ValueError("its last bytes are not those of an index")
        at, handles = 0, []
        for _ in range(4):  # offset and size of the metadata, then of the block index
            value, at = varint_at(data[-FOOTER:], at)
            handles.append(value)
        found: dict[bytes, bytes] = {}
        for handle in _block(data, *handles[2:]).values():
            offset, at = varint_at(handle, 0)
            found |= _block(data, offset, varint_at(handle, at)[0])
        return found
    except (ValueError, IndexError, struct.error) as problem:
        raise ValueError(
            f"{str(path)!r} is not an index of a checkpoint that can be read: "
            f"{problem}. Export the model again."
        ) from problem


def write_index(path: pathlib.Path, entries: Mapping[bytes, bytes]) -> None:
    """Write an index of entries by name."""
    items = sorted(entries.items())
    content = bytearray()
    only = _put(content, _packed(items))
    metadata = _put(content, _packed([]))
    last = items[-1][0] + b"\xff"  # a name that is not before any name of the block
    blocks = _put(content, _packed([(last, only)]))
    footer = (metadata + blocks).ljust(FOOTER - len(MAGIC), b"\0") + MAGIC
    path.write_bytes(bytes(content) + footer)


def in_shard(entry: bytes, number: int) -> bytes:
    """Return the entry of a tensor with the number of another data file."""
    # If a field occurs twice, each reader of protocol buffers takes the last value.
    return entry + varint(SHARD << 3) + varint(number)


def shard_of(entry: bytes) -> int:
    """Return the number of the data file of a tensor."""
    return number_in(entry, SHARD)


def num_shards(entries: Mapping[bytes, bytes]) -> int:
    """Return the number of data files of a checkpoint."""
    return number_in(entries[HEADER], NUM_SHARDS)


def number_in(message: bytes, wanted: int) -> int:
    """Return the last value of a field of whole numbers in a message, or 0."""
    at = found = 0
    while at < len(message):
        key, at = varint_at(message, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint_at(message, at)
            found = value if field == wanted else found
        elif kind == 2:
            size, at = varint_at(message, at)
            at += size
        else:  # fixed64 has type 1, and fixed32 type 5
            at += 8 if kind == 1 else 4
    return found


def varint(value: int) -> bytes:
    """Return a whole number as a varint of protocol buffers."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at a place in `data`, and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at


def checksum(data: bytes) -> int:
    """Return the CRC-32C of `data`, masked as in the files of TensorFlow."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    """Return the remainder of each byte for the polynomial of CRC-32C."""
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        rows.append(value)
    return rows


TABLE = _table()


def _block(data: bytes, offset: int, size: int) -> dict[bytes, bytes]:
    """Return the entries of the block at a place in a file."""
    end = offset + size
    kind, wanted = struct.unpack("<BI", data[end : end + TRAILER])
    if kind or checksum(data[offset : end + 1]) != wanted:
        raise ValueError("a block is compressed or damaged")
    body = data[offset:end]
    (restarts,) = struct.unpack("<I", body[-4:])
    stop = len(body) - 4 - 4 * restarts
    at, key, found = 0, b"", {}
    while at < stop:
        shared, at = varint_at(body, at)
        rest, at = varint_at(body, at)
        length, at = varint_at(body, at)
        key = key[:shared] + body[at : at + rest]
        at += rest
        found[key] = body[at : at + length]
        at += length
    return found


def _packed(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the content of a block, with each name in full."""
    body, restarts = bytearray(), []
    for number, (key, value) in enumerate(items):
        if number % RESTART == 0:
            restarts.append(len(body))
        body += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    restarts = restarts or [0]
    body += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    return bytes(body)


def _put(content: bytearray, block: bytes) -> bytes:
    """Append a block to a file, and return its offset and size as varints."""
    offset = len(content)
    content += block + struct.pack("<BI", 0, checksum(block + b"\0"))
    return varint(offset) + varint(len(block))
