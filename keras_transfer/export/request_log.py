"""Read the request log of TensorFlow Serving: a TFRecord of PredictionLog messages."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2

from keras_transfer.export.bundle_index import varint_at

LARGEST = 1 << 28  # most numbers in one tensor
# The other kinds of a PredictionLog.
OTHERS = {2: "Classify", 3: "Regress", 4: "SessionRun", 5: "MultiInference"}
PREDICT = 6
OTHERS |= {7: "streamed Predict"}


class LoggedCall(NamedTuple):
    """One Predict call in a log.

    Args:
        number: Number of the record, from 1.
        signature: Name of the signature, or "".
        version: Version of the model that answered, or None.
        inputs: Arrays of the request by name.
        outputs: Arrays of the response by name. Empty for a log of requests.
    """

    number: int
    signature: str
    version: int | None
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def read_request_log(path: str | os.PathLike) -> Iterator[LoggedCall]:
    """Yield the Predict calls of a log of TensorFlow Serving.

    The messages are four nested messages of tensorflow-serving-api, which is not
    needed: they are decoded here. Nothing in the file is executed.

    Args:
        path: The file that a LogCollector has written, such as that of
            `tensorflow_model_server` with a `logging_config`.

    Raises:
        ValueError: If a record is damaged, or is not a Predict call. The error has the
            number of the record.
    """
    number = 0
    records = iter(tf.data.TFRecordDataset(os.fspath(pathlib.Path(path))))
    while True:
        number += 1
        try:
            record = next(records).numpy()
        except StopIteration:
            return
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as problem:
            raise ValueError(
                f"Record {number} of {str(path)!r} is damaged or cut off: "
                f"{problem.message} The file must be an uncompressed TFRecord."
            ) from problem
        try:
            yield _call(number, record)
        except (
            ValueError,
            IndexError,
            TypeError,
            UnicodeDecodeError,
            DecodeError,
        ) as problem:
            raise ValueError(
                f"Record {number} of {str(path)!r} is not a Predict call: {problem}"
            ) from problem


def _call(number: int, record: bytes) -> LoggedCall:
    log = _fields(record)
    if PREDICT not in log:
        found = [name for key, name in OTHERS.items() if key in log]
        raise ValueError(
            f"it is a {found[0]} call."
            if found
            else "it has no call. Is it a PredictionLog of TensorFlow Serving?"
        )
    # PredictLog: request = 1, response = 2
    call = _fields(log[PREDICT][-1])
    request = _fields(call.get(1, [b""])[-1])
    response = _fields(call.get(2, [b""])[-1])
    # PredictRequest: model_spec = 1, inputs = 2
    asked = _fields(request.get(1, [b""])[-1])
    # PredictResponse: outputs = 1, model_spec = 2
    answered = _fields(response.get(2, [b""])[-1])
    # ModelSpec: version = 2, an Int64Value with value = 1, and signature_name = 3
    version = None
    for spec in (asked, answered):
        if 2 in spec:
            version = _fields(spec[2][-1]).get(1, [0])[-1]
    signature = answered.get(3, asked.get(3, [b""]))[-1]
    return LoggedCall(
        number,
        _message(signature).decode(),
        version,
        _tensors(request.get(2, [])),
        _tensors(response.get(1, [])),
    )


def _tensors(entries: list) -> dict[str, np.ndarray]:
    """Return the arrays of a map from names to TensorProtos."""
    found = {}
    for entry in entries:
        pair = _fields(_message(entry))
        name = _message(pair.get(1, [b""])[-1]).decode()
        proto = tensor_pb2.TensorProto()
        proto.ParseFromString(_message(pair.get(2, [b""])[-1]))
        sizes = [each.size for each in proto.tensor_shape.dim]
        # A tensor of one repeated value takes no space in the file.
        if min(sizes, default=0) < 0 or math.prod(sizes) > LARGEST:
            raise ValueError(f"the tensor {name!r} has the shape {sizes}.")
        found[name] = tf.make_ndarray(proto)
    return found


def _fields(message: object) -> dict[int, list]:
    """Return the values of the fields of a message by number.

    A value is bytes, or a whole number for a varint. Numbers of fixed size are skipped.
    """
    message, found, at = _message(message), {}, 0
    while at < len(message):
        key, at = varint_at(message, at)
        kind = key & 7
        if kind == 0:
            value, at = varint_at(message, at)
        elif kind == 2:
            size, at = varint_at(message, at)
            value, at = message[at : at + size], at + size
        elif kind in (1, 5):
            value, at = None, at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"a field has the unknown type {kind}.")
        if at > len(message):
            raise ValueError("a field is cut off.")
        found.setdefault(key >> 3, []).append(value)
    return found


def _message(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number is where a message should be.")
    return value
