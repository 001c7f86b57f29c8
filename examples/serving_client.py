"""A client for TensorFlow Serving: send sentences by gRPC, and get their labels.

Learned: the parts of a request (model, signature, inputs); how to get the signatures of
a server; what an error looks like. Data: sentences that you pass. Time: under 1 minute.
Expect one row with 1 label for each sentence. `--smoke` first exports a tiny untrained
model, and starts the test server of this package in another process. The client sends
the same requests to a real server. Needs `pip install "keras_transfer[serving]"`.

    docker run -p 8500:8500 -v $PWD/reviews:/models/reviews -e MODEL_NAME=reviews \
        tensorflow/serving
    python examples/serving_client.py --address localhost:8500 --model reviews "so good"
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

import grpc
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

parser = argparse.ArgumentParser()
parser.add_argument("texts", nargs="*", help="sentences to label")
parser.add_argument("--address", help="host:port of the server")
parser.add_argument("--model", default="reviews", help="name of the served model")
parser.add_argument("--signature", default="serving_default")
parser.add_argument("--input", default="text", help="name of the signature's input")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
if not options.smoke and not (options.address and options.texts):
    parser.error("pass --address and some sentences, or --smoke")

SECONDS = 30  # timeout of a request


def signatures(stub):
    """Return the signatures of the model with their inputs and outputs."""
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = options.model
    request.metadata_field.append("signature_def")
    response = stub.GetModelMetadata(request, timeout=SECONDS)
    found = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(found)
    return found.signature_def


def predict(stub, tensors):
    """Return the outputs as arrays, for input tensors by name."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = options.model
    request.model_spec.signature_name = options.signature
    for name, values in tensors.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    response = stub.Predict(request, timeout=SECONDS)
    return {name: tf.make_ndarray(each) for name, each in response.outputs.items()}


def export(folder):
    """Export a tiny text classifier. A real model is exported in the same way."""
    import keras
    import keras_hub

    import keras_transfer as kt
    from keras_transfer.export import export_serving

    keras.utils.set_random_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is"]
    words += ["good", "fine", "bad", "dull"]
    tokenizer = keras_hub.models.BertTokenizer(words)
    packer = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, 8)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(words),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=8,
    )
    model = keras_hub.models.BertTextClassifier(backbone, 2, preprocessor=packer)
    kt.adapters.LoRA(rank=2).attach(model)
    texts = ["the film is good", "the film is dull"]
    export_serving(
        model, folder / options.model, samples=texts, labels=["negative", "positive"]
    )
    return texts


@contextlib.contextmanager
def server(folder):
    """Run the test server, and yield its address."""
    root = pathlib.Path(__file__).resolve().parents[1]
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.server", str(folder / options.model)],
        cwd=root,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        words = started.stdout.readline().split()
        if words[:1] != ["port"]:
            raise RuntimeError(f"The server did not start. It printed {words}.")
        yield f"127.0.0.1:{words[1]}"
    finally:
        started.terminate()
        started.wait()


with contextlib.ExitStack() as stack:
    texts, address = options.texts, options.address
    if options.smoke:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        texts = export(folder) + texts
        address = stack.enter_context(server(folder))
    channel = stack.enter_context(grpc.insecure_channel(address))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    for name, each in signatures(stub).items():
        print(f"{name}: {sorted(each.inputs)} -> {sorted(each.outputs)}")
    try:
        predict(stub, {options.input: texts, "no such input": [1.0]})
    except grpc.RpcError as error:
        print(f"error of a wrong request: {error.code().name}, {error.details()}")
    outputs = predict(stub, {options.input: texts})

names = sorted(outputs)
table = Table("text", *names)
for text, *values in zip(texts, *(outputs[name] for name in names)):
    cells = [v.decode() if isinstance(v, bytes) else f"{v}" for v in values]
    table.add_row(text, *cells)
Console(width=100).print(table)
