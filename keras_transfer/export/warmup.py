"""The warm-up requests, which TensorFlow Serving runs when it loads a model."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_transfer.export.bundle_index import varint

FILE = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


def write_warmup(
    folder: pathlib.Path, model_name: str, requests: Mapping[str, Mapping]
) -> None:
    """Write one request per signature as a TFRecord of PredictionLog messages.

    Without these requests the first request to a new version waits until TensorFlow
    has initialized the graph. The messages are four nested messages of
    tensorflow-serving-api. They are encoded here, because tensorflow-serving-api
    requires one exact version of TensorFlow.

    Args:
        folder: Folder of the SavedModel.
        model_name: Name under which the model is served.
        requests: For each signature, the arrays by input name.
    """
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, tensors in requests.items():
            writer.write(prediction_log(model_name, signature, tensors))


def prediction_log(
    model_name: str, signature: str, tensors: Mapping[str, np.ndarray]
) -> bytes:
    """Return a `tensorflow.serving.PredictionLog` with one Predict request."""
    # ModelSpec: name = 1, signature_name = 3
    spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    # PredictRequest: model_spec = 1, map<string, TensorProto> inputs = 2
    request = _field(1, spec)
    for name, array in sorted(tensors.items()):
        tensor = tf.make_tensor_proto(array).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    # PredictionLog: predict_log = 6; PredictLog: request = 1
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """Return a protocol buffer field of bytes, a string or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content
