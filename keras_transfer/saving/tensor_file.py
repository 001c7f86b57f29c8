"""Read and write safetensors files; the whole header is checked before any value.

See https://github.com/huggingface/safetensors#format. A file has eight bytes with the
length of the header, the header in JSON, and the values. It cannot contain code.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np

from keras_transfer._whole_file import replace_file
from keras_transfer.saving.strict_json import parse_json
from keras_transfer.saving.strict_json import short

# Bytes of one value, by the name of the dtype in the format.
SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
FLOATS = ("F64", "F32", "F16", "BF16")
# The dtypes in a file that fit a variable, by its dtype, if it is not a float.
KINDS = {
    "int8": ("I8",),
    "int16": ("I16",),
    "int32": ("I32",),
    "int64": ("I64",),
    "uint8": ("U8",),
    "uint16": ("U16",),
    "uint32": ("U32",),
    "uint64": ("U64",),
    "bool": ("BOOL",),
}
# Enough for a hundred thousand tensors. The limit of safetensors itself is 100 MB.
LONGEST_HEADER = 16 * 2**20
LONGEST_NAME = 1024
MOST_AXES = 16


@dataclasses.dataclass(frozen=True)
class Spec:
    """The dtype of one tensor, by its name in the format, and its shape."""

    dtype: str
    shape: tuple[int, ...]


class TensorFile:
    """A safetensors file with a checked header, whose values are read by name.

    Args:
        path: Path of the file.

    Attributes:
        metadata: Dict of strings to strings, the metadata of the file.
        specs: Dict of a tensor's name to its `Spec`.

    Raises:
        ValueError: If the file does not exist, is too short or too long, or has an
            invalid header.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            what = "is not a file" if self.path.exists() else "does not exist"
            raise ValueError(f"{str(path)!r} {what}. Pass a safetensors file.")
        with self.path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            try:
                header, num_bytes = _header(stream, size)
                self.metadata = _metadata(header.pop("__metadata__", {}))
                self.specs = _specs(header, num_bytes)
            except ValueError as problem:
                raise ValueError(
                    f"{str(path)!r} is not a valid safetensors file: {problem} Nothing "
                    "was loaded from it."
                ) from problem

    def expect(self, name: str, shape: Iterable[int], dtype: str) -> None:
        """Check that the file has a tensor that fits a Keras variable.

        Args:
            name: Name of the tensor.
            shape: Shape of the variable.
            dtype: Dtype of the variable. All float dtypes fit each other.

        Raises:
            ValueError: If the tensor is missing, or its shape or dtype does not fit.
        """
        spec = self.specs.get(name)
        if spec is None:
            raise ValueError(
                f"{str(self.path)!r} lacks the tensor {name!r}, which the model needs."
            )
        if spec.shape != tuple(shape):
            raise ValueError(
                f"The tensor {name!r} of {str(self.path)!r} has the shape "
                f"{spec.shape}, but the model's weight has the shape {tuple(shape)}."
            )
        if spec.dtype not in (FLOATS if "float" in dtype else KINDS.get(dtype, ())):
            raise ValueError(
                f"The tensor {name!r} of {str(self.path)!r} has the dtype "
                f"{spec.dtype}, but the model's weight has the dtype {dtype}."
            )

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return tensors by name, in the dtype of the file.

        Raises:
            ValueError: If a value is NaN or infinite, or the file has changed since
                its header was read.
        """
        from safetensors import safe_open

        values = {}
        with safe_open(self.path, framework="numpy") as stream:
            for name in names:
                value = stream.get_tensor(name)
                if value.shape != self.specs[name].shape:
                    raise ValueError(f"{str(self.path)!r} changed while it was read.")
                check_finite(name, value)
                values[name] = value
        return values


def write_tensors(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write a safetensors file in one step, and return its size in bytes.

    If the process is killed or the disk is full, the old file stays complete.

    Raises:
        ValueError: If a name is not valid, or a value is NaN or infinite.
        OSError: If the file cannot be written.
    """
    from safetensors.numpy import save

    for name, value in tensors.items():
        check_name(name)
        check_finite(name, value)
    # The library writes the memory without regard to strides.
    dense = {name: np.array(value, order="C") for name, value in tensors.items()}
    return replace_file(path, save(dense, metadata=dict(metadata or {})))


def check_name(name: str) -> None:
    """Check that the name of a tensor is a relative path: names separated by "/".

    Raises:
        ValueError: If the name is not such a path.
    """
    parts = name.split("/")
    if (
        not all(parts)
        or any(part in (".", "..") for part in parts)
        or "\\" in name
        or len(name) > LONGEST_NAME
        or not name.isprintable()
        or (len(parts[0]) == 2 and parts[0][1] == ":")
    ):
        raise ValueError(
            f"the name {short(name)} of a tensor is not a path of layers, such as "
            "'block_1/query/lora_a'."
        )


def check_finite(name: str, value: np.ndarray) -> None:
    """Check that a tensor contains no NaN and no infinite value.

    Raises:
        ValueError: If the tensor contains such a value.
    """
    if value.dtype.kind not in "iub" and not np.isfinite(value).all():
        raise ValueError(
            f"The tensor {short(name)} has values that are NaN or infinite."
        )


def _header(stream: object, size: int) -> tuple[dict, int]:
    """Return the header of an open file of `size` bytes, and the bytes that follow."""
    start = stream.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or 8 + length > size:
        raise ValueError(
            f"it has {size} bytes, but its header would end at {8 + length}."
        )
    if length > LONGEST_HEADER:
        raise ValueError(
            f"its header of {length} bytes is longer than {LONGEST_HEADER}."
        )
    text = stream.read(length)
    if len(text) != length or text[:1] != b"{":
        raise ValueError("its header does not begin with '{'.")
    return parse_json(text), size - 8 - length


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(each, str) for each in value.values()
    ):
        raise ValueError("its metadata is not a dict of strings.")
    return value


def _specs(header: dict, num_bytes: int) -> dict[str, Spec]:
    """Return the specs by name, and check that the tensors fill `num_bytes`."""
    specs, ranges = {}, []
    for name, entry in header.items():
        check_name(name)
        if not isinstance(entry, dict) or set(entry) != {
            "dtype",
            "shape",
            "data_offsets",
        }:
            raise ValueError(f"{short(name)} has the invalid entry {short(entry)}.")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in SIZES:
            raise ValueError(f"{short(name)} has the unknown dtype {short(dtype)}.")
        if not _whole(shape) or len(shape) > MOST_AXES:
            raise ValueError(f"{short(name)} has the invalid shape {short(shape)}.")
        if not _whole(offsets) or len(offsets) != 2:
            raise ValueError(f"{short(name)} has the invalid offsets {short(offsets)}.")
        begin, end = offsets
        if end - begin != SIZES[dtype] * math.prod(shape):
            raise ValueError(
                f"{short(name)} has the offsets {short(offsets)}, which do not have "
                f"the length of {dtype} {short(shape)}."
            )
        specs[name] = Spec(dtype, tuple(shape))
        ranges.append((begin, end, name))
    filled = 0
    for begin, end, name in sorted(ranges):
        if begin != filled:
            raise ValueError(
                f"{short(name)} begins at {begin}, but the tensor before it ends at "
                f"{filled}."
            )
        filled = end
    if filled != num_bytes:
        raise ValueError(
            f"its tensors take {filled} bytes, but {num_bytes} follow the header."
        )
    return specs


def _whole(values: object) -> bool:
    return isinstance(values, list) and all(
        type(each) is int and each >= 0 for each in values
    )
