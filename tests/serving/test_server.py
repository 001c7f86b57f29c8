"""Exported models behind TensorFlow Serving's protocol, with gRPC and the C API."""

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.export.serving import export_serving
from tests import public
from tests import tiny
from tests.serving import exported

pytestmark = pytest.mark.serving
REASON = "needs the extra: pip install keras_transfer[serving]"


@contextlib.contextmanager
def started(folder):
    """Start the server on a free port of the loopback, and yield its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.server", str(folder)],
        cwd=public.ROOT,
        env=exported.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        words = process.stdout.readline().split()
        assert words[:1] == ["port"], words
        yield words
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class Client:
    """A client of TensorFlow Serving."""

    def __init__(self, port, model):
        self.grpc = pytest.importorskip("grpc", reason=REASON)
        apis = "tensorflow_serving.apis"
        pytest.importorskip(apis, reason=REASON)
        from tensorflow_serving.apis import get_model_metadata_pb2
        from tensorflow_serving.apis import predict_pb2
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self.metadata_messages = get_model_metadata_pb2
        self.predict_messages = predict_pb2
        self.channel = self.grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model

    def request(self, tensors, signature=""):
        request = self.predict_messages.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        for name, values in tensors.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        return request

    def send(self, request):
        response = self.stub.Predict(request, timeout=60)
        return {name: tf.make_ndarray(each) for name, each in response.outputs.items()}

    def predict(self, tensors, signature=""):
        return self.send(self.request(tensors, signature))

    def refused(self, request):
        """Return the code and text of the error for a request."""
        with pytest.raises(self.grpc.RpcError) as info:
            self.send(request)
        return info.value.code().name, info.value.details()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Yield a text model with LoRA, a client of its server, and the server's line."""
    pytest.importorskip("grpc", reason=REASON)
    pytest.importorskip("tensorflow_serving", reason=REASON)
    folder = tmp_path_factory.mktemp("models") / "reviews"
    model = exported.with_lora(exported.text_model(), rank=2)
    labels, texts = ["bad", "good", "fine"], exported.TEXTS
    export_serving(tiny.mlp(), folder, 2)
    export_serving(model, folder, 10, samples=texts, labels=labels, features=True)
    with started(folder) as words:
        client = Client(words[1], "reviews")
        yield model, client, words
        client.channel.close()


def test_predict_returns_the_outputs_of_keras(reviews):
    model, client, _ = reviews
    found = client.predict({"text": exported.TEXTS})
    wanted = model.predict(exported.TEXTS, verbose=0)
    np.testing.assert_allclose(found["outputs"], wanted, rtol=0, atol=1e-6)
    assert set(found) == {"outputs", "label", "label_id"}
    assert list(found["label_id"]) == list(wanted.argmax(-1))
    assert set(found["label"]) <= {b"bad", b"good", b"fine"}


def test_the_server_imports_neither_keras_nor_tensorflows_python(reviews):
    _, _, words = reviews
    assert words[4:] == []


def test_the_server_reads_the_warm_up_requests(reviews):
    # There is one request for each signature.
    _, _, words = reviews
    assert words[2:4] == ["warmed", "3"]


def test_metadata_lists_the_signatures(reviews):
    _, client, _ = reviews
    request = client.metadata_messages.GetModelMetadataRequest()
    request.model_spec.name = "reviews"
    request.metadata_field.append("signature_def")
    response = client.stub.GetModelMetadata(request, timeout=60)
    assert response.model_spec.version.value == 10  # the largest number
    found = client.metadata_messages.SignatureDefMap()
    response.metadata["signature_def"].Unpack(found)
    signatures = found.signature_def
    assert set(signatures) == {"serving_default", "preprocessed", "features"}
    text = signatures["serving_default"].inputs["text"]
    assert text.dtype == tf.string.as_datatype_enum
    assert [each.size for each in text.tensor_shape.dim] == [-1]
    logits = signatures["serving_default"].outputs["outputs"]
    assert [each.size for each in logits.tensor_shape.dim] == [-1, 3]
    assert signatures["features"].method_name == "tensorflow/serving/predict"


def test_wrong_requests_are_refused_and_the_server_continues(reviews):
    _, client, _ = reviews
    good = {"text": exported.TEXTS}
    request = client.request(good)
    request.model_spec.name = "other"
    assert client.refused(request)[0] == "NOT_FOUND"
    request = client.request(good)
    request.model_spec.version.value = 2
    assert client.refused(request)[0] == "NOT_FOUND"
    for tensors, signature, word in [
        (good, "no_such", "no_such"),
        ({"words": ["good"]}, "", "words"),
        ({"text": [1.0]}, "", "dtype"),
        ({"text": ["good"], "more": ["good"]}, "", "more"),
    ]:
        code, text = client.refused(client.request(tensors, signature))
        assert code == "INVALID_ARGUMENT" and word in text
    assert len(client.predict(good)["outputs"]) == 3


def test_the_output_filter_selects_outputs(reviews):
    _, client, _ = reviews
    request = client.request({"text": ["good"]})
    request.output_filter.append("label")
    assert set(client.send(request)) == {"label"}
    request.output_filter.append("no_such")
    assert client.refused(request)[0] == "INVALID_ARGUMENT"


def test_tensors_with_repeated_last_values(reviews):
    # Clients can omit the last values of a tensor if they equal the last given value.
    model, client, _ = reviews
    tokens = np.full((2, 8), 5, "int32")
    arrays = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens)}
    mask = {"padding_mask": np.ones_like(tokens)}
    request = client.request(arrays | mask, "preprocessed")
    for name, value in (("token_ids", 5), ("segment_ids", 0)):
        request.inputs[name].tensor_content = b""
        request.inputs[name].int_val.append(value)
    wanted = client.predict(arrays | mask, "preprocessed")["outputs"]
    np.testing.assert_array_equal(client.send(request)["outputs"], wanted)


def test_concurrent_requests_get_their_own_answers(reviews):
    model, client, _ = reviews
    texts = [f"the film is {word}" for word in exported.WORDS]
    wanted = model.predict(texts, verbose=0)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: client.predict({"text": [text]}), texts * 3))
    rows = np.concatenate([each["outputs"] for each in found])
    np.testing.assert_allclose(rows, np.tile(wanted, (3, 1)), rtol=0, atol=1e-6)


def test_one_batch_mixes_adapters(tmp_path):
    pytest.importorskip("grpc", reason=REASON)
    pytest.importorskip("tensorflow_serving", reason=REASON)
    model, names = tiny.mlp(), ["cat", "dog"]
    for name in names:
        kt.adapters.LoRA(rank=2, targets="dense_[01]").attach(model, name)
    exported.disturb(model)
    x = np.random.default_rng(1).normal(size=(3, 6)).astype("float32")
    export_serving(model, tmp_path / "pets", samples=x, adapters=names)
    wanted = []
    for name in names:
        kt.adapters.use(model, name)
        wanted.append(model.predict(x, verbose=0))
    with kt.adapters.disabled(model):
        wanted.append(model.predict(x, verbose=0))
    with started(tmp_path / "pets") as words:
        client = Client(words[1], "pets")
        found = client.predict({"inputs": x, "adapter": ["dog", "", "cat"]})
        bad = client.request({"inputs": x, "adapter": ["dog", "cow", "cat"]})
        code, text = client.refused(bad)
        again = client.predict({"inputs": x[:1], "adapter": ["cat"]})
        client.channel.close()
    rows = [wanted[1][0], wanted[2][1], wanted[0][2]]
    np.testing.assert_allclose(found["outputs"], rows, rtol=0, atol=1e-5)
    assert code == "INVALID_ARGUMENT"
    assert "cat" in text and "dog" in text and "cow" in text.split("Unknown:")[1]
    np.testing.assert_allclose(again["outputs"], wanted[0][:1], rtol=0, atol=1e-5)
