"""Messages of tensorflow-serving-api, encoded by protobuf itself.

The field numbers are those of prediction_log.proto, predict.proto and model.proto of
TensorFlow Serving.
"""

import functools

import tensorflow as tf
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

PACKAGE = "kt_test_serving"
MESSAGES = {
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
    },
    # On the wire, a map is a repeated message of a key and a value.
    "Named": {"key": (1, "string"), "value": (2, "bytes")},
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "*Named"),
        "output_filter": (3, "*string"),
    },
    "PredictResponse": {"outputs": (1, "*Named"), "model_spec": (2, "ModelSpec")},
    "PredictLog": {
        "request": (1, "PredictRequest"),
        "response": (2, "PredictResponse"),
    },
    "LogMetadata": {"model_spec": (1, "ModelSpec")},
    "ClassifyLog": {"request": (1, "bytes")},
    "PredictionLog": {
        "log_metadata": (1, "LogMetadata"),
        "classify_log": (2, "ClassifyLog"),
        "predict_log": (6, "PredictLog"),
    },
}


@functools.cache
def kinds():
    """Return the classes of the messages by name."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE)
    types = {"int64": 3, "string": 9, "bytes": 12}
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            made = message.field.add(name=field, number=number, label=1)
            if kind.startswith("*"):
                made.label, kind = 3, kind[1:]
            made.type = types.get(kind, 11)
            if made.type == 11:
                made.type_name = f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
        )
        for name in MESSAGES
    }


def record(inputs=None, outputs=None, *, version=1, signature="monitoring"):
    """Return the record of a Predict call with its request and its response."""
    made = kinds()
    log = made["PredictionLog"]()
    log.log_metadata.model_spec.name = "animals"
    request, response = log.predict_log.request, log.predict_log.response
    request.model_spec.name = "animals"
    request.model_spec.signature_name = signature
    request.output_filter.append("outputs")
    for name, array in (inputs or {}).items():
        tensor = tf.make_tensor_proto(array).SerializeToString()
        request.inputs.add(key=name, value=tensor)
    for name, array in (outputs or {}).items():
        tensor = tf.make_tensor_proto(array).SerializeToString()
        response.outputs.add(key=name, value=tensor)
    if outputs and version is not None:
        response.model_spec.version.value = version
    return log.SerializeToString()


def classify_record():
    log = kinds()["PredictionLog"]()
    log.classify_log.request = b"?"
    return log.SerializeToString()


def write(path, records):
    """Write records to a TFRecord, and return its path."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in records:
            writer.write(each)
    return path
