"""A small replacement for TensorFlow Serving: PredictionService with the C API.

It loads the largest version of a model with `TF_LoadSessionFromSavedModel`, runs the
warm-up requests, and serves Predict and GetModelMetadata. The process does not import
TensorFlow's Python code, Keras or keras_transfer. The server is for tests: it serves
one version of one model, without batching.

    python -m tests.serving.server FOLDER_OF_MODEL [PORT]

The server listens on the loopback and prints its port, by default a free port.
"""

import pathlib
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from tests.serving import c_api

c_api.only_messages()

from tensorflow.core.framework import tensor_pb2  # noqa: E402
from tensorflow_serving.apis import get_model_metadata_pb2  # noqa: E402
from tensorflow_serving.apis import predict_pb2  # noqa: E402
from tensorflow_serving.apis import prediction_log_pb2  # noqa: E402
from tensorflow_serving.apis import prediction_service_pb2_grpc  # noqa: E402

WARMUP = pathlib.Path("assets.extra", "tf_serving_warmup_requests")
CODES = {code.value[0]: code for code in grpc.StatusCode}
# The field of a TensorProto with a list of numbers, by dtype.
FIELDS = {
    1: "float_val",
    2: "double_val",
    3: "int_val",
    4: "int_val",
    5: "int_val",
    6: "int_val",
    9: "int64_val",
    10: "bool_val",
    17: "int_val",
    22: "uint32_val",
    23: "uint64_val",
}


def array_of(message):
    """Return the content of a TensorProto."""
    shape = [each.size for each in message.tensor_shape.dim]
    if message.dtype == c_api.STRING:
        values = np.empty(len(message.string_val), object)
        values[:] = list(message.string_val)
    elif message.dtype not in c_api.DTYPES:
        raise c_api.Failure(3, f"this server has no tensors of dtype {message.dtype}")
    elif message.tensor_content:
        values = np.frombuffer(message.tensor_content, c_api.DTYPES[message.dtype])
    elif message.dtype in FIELDS:
        content = getattr(message, FIELDS[message.dtype])
        values = np.array(content, c_api.DTYPES[message.dtype])
    else:
        raise c_api.Failure(3, f"give tensor_content for dtype {message.dtype}")
    size = int(np.prod(shape))
    if len(values) < size and len(values):  # the last value fills the rest
        values = np.concatenate([values, np.repeat(values[-1:], size - len(values))])
    if len(values) != size:
        raise c_api.Failure(3, f"{len(values)} values for a tensor of shape {shape}")
    return values.reshape(shape)


def message_of(array, dtype):
    """Return an array as a TensorProto."""
    message = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        message.tensor_shape.dim.add().size = size
    if dtype == c_api.STRING:
        message.string_val.extend(array.ravel())
    else:
        message.tensor_content = array.tobytes()
    return message


def records(path):
    """Yield the records of a TFRecord file, without checking the checksums."""
    content = path.read_bytes()
    start = 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield content[start + 12 : start + 12 + length]
        start += length + 16


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The service for the largest version of one model."""

    def __init__(self, folder):
        folder = pathlib.Path(folder).resolve()
        numbers = [int(each.name) for each in folder.iterdir() if each.name.isdigit()]
        self.name, self.version = folder.name, max(numbers)
        path = folder / str(self.version)
        tensorflow = c_api.TensorFlow()
        for library in c_api.text_operations():  # TensorFlow Serving also has them
            tensorflow.load_operations(library)
        self.model = c_api.SavedModel(tensorflow, path)
        self.warmed = 0
        for record in records(path / WARMUP) if (path / WARMUP).exists() else ():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            self.answer(log.predict_log.request)
            self.warmed += 1

    def check(self, spec):
        """Refuse a request for another model or version."""
        if spec.name != self.name or (
            spec.HasField("version") and spec.version.value != self.version
        ):
            text = f"Servable not found for request: {spec.name}/{spec.version.value}"
            raise c_api.Failure(5, text)

    def describe(self, spec, signature=""):
        """Write the name and version of the model into a response."""
        spec.name, spec.signature_name = self.name, signature
        spec.version.value = self.version

    def answer(self, request):
        """Return the PredictResponse of a PredictRequest."""
        self.check(request.model_spec)
        signature = request.model_spec.signature_name or "serving_default"
        if signature not in self.model.signatures:
            text = f'Serving signature key "{signature}" not found.'
            raise c_api.Failure(3, text)
        given = {name: array_of(each) for name, each in request.inputs.items()}
        wanted = self.model.signatures[signature].inputs
        for name, each in request.inputs.items():
            if name in wanted and each.dtype != wanted[name].dtype:
                text = f"{name}: dtype {each.dtype}, but {wanted[name].dtype} expected"
                raise c_api.Failure(3, text)
        found = self.model.run(signature, given)
        response = predict_pb2.PredictResponse()
        self.describe(response.model_spec, signature)
        infos = self.model.signatures[signature].outputs
        for name in request.output_filter or found:
            if name not in found:
                raise c_api.Failure(3, f"no output {name!r}; there are {sorted(found)}")
            message = message_of(found[name], infos[name].dtype)
            response.outputs[name].CopyFrom(message)
        return response

    def metadata(self, request):
        """Return the signatures."""
        self.check(request.model_spec)
        if list(request.metadata_field) != ["signature_def"]:
            raise c_api.Failure(3, "metadata_field must be 'signature_def'")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, each in self.model.signatures.items():
            signatures.signature_def[name].CopyFrom(each)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self.describe(response.model_spec)
        response.metadata["signature_def"].Pack(signatures)
        return response

    # The protocol requires these names.
    def Predict(self, request, context):
        return self.reply(self.answer, request, context)

    def GetModelMetadata(self, request, context):
        return self.reply(self.metadata, request, context)

    def reply(self, function, request, context):
        """Return the result, or abort the call with the code and text of an error."""
        try:
            return function(request)
        except c_api.Failure as failure:
            context.abort(CODES[failure.code], str(failure))


def main(folder, port="0"):
    server = grpc.server(ThreadPoolExecutor(2))
    servicer = Servicer(folder)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    heavy = {"tensorflow.python", "keras", "keras_transfer"} & set(sys.modules)
    print("port", port, "warmed", servicer.warmed, *heavy, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
