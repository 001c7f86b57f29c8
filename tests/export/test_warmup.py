import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.export import export_serving
from keras_transfer.export import ImageBytes
from keras_transfer.export import warmup
from tests import tiny
from tests.export import files

# The bytes that tensorflow-serving-api 2.21 writes for this request.
X = np.array([[1, 2, 3]], "float32")
GOLDEN = (
    b"2>\n<\n\x14\n\x01m\x1a\x0fserving_default\x12$\n\x06inputs\x12\x1a"
    b"\x08\x01\x12\x08\x12\x02\x08\x01\x12\x02\x08\x03"
    b'"\x0c\x00\x00\x80?\x00\x00\x00@\x00\x00@@'
)


def records(folder):
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    return [each.numpy() for each in tf.data.TFRecordDataset(str(path))]


def test_the_bytes_equal_those_of_tensorflow_serving_api():
    assert warmup.prediction_log("m", "serving_default", {"inputs": X}) == GOLDEN


def test_there_is_one_request_per_signature(tmp_path):
    pictures = files.encoded(files.pictures(2))
    folder = export_serving(
        tiny.convnet(),
        tmp_path / "shop",
        samples=pictures,
        preprocessor=ImageBytes(1 / 255),
    )
    assert len(records(folder)) == 2


def test_tensorflow_serving_api_reads_the_requests(tmp_path):
    logs = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2",
        reason="needs tensorflow-serving-api (the extra 'serving')",
        exc_type=ImportError,
    )
    task = files.shaken(files.text_task(), 0.1)
    folder = export_serving(task, tmp_path / "news", samples=files.TEXTS, features=True)
    loaded = tf.saved_model.load(str(folder))
    seen = {}
    for record in records(folder):
        log = logs.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "news"
        signature = request.model_spec.signature_name
        tensors = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        seen[signature] = loaded.signatures[signature](
            **{k: tf.constant(v) for k, v in tensors.items()}
        )
        # The package itself encodes the same request to the same bytes.
        again = logs.PredictionLog()
        again.predict_log.request.model_spec.name = "news"
        again.predict_log.request.model_spec.signature_name = signature
        for key, array in tensors.items():
            again.predict_log.request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
        assert again == log
        assert again.SerializeToString(deterministic=True) == record
    assert set(seen) == {"serving_default", "preprocessed", "features"}
    right = task.predict(files.TEXTS, verbose=0)
    np.testing.assert_allclose(seen["serving_default"]["outputs"], right, atol=1e-6)
