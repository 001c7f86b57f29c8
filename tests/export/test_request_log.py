import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.export import warmup
from keras_transfer.export.request_log import read_request_log
from tests.export import prediction_logs

X = np.arange(6, dtype="float32").reshape(2, 3)


def calls(tmp_path, *records):
    return list(read_request_log(prediction_logs.write(tmp_path / "log", records)))


def test_requests_and_responses_as_protobuf_encodes_them(tmp_path):
    text = np.array([b"a", b"\xff"], dtype=object)
    first = prediction_logs.record({"inputs": X, "text": text}, {"outputs": X * 2})
    second = prediction_logs.record({"inputs": X[:1]}, signature="other")
    found = calls(tmp_path, first, second)
    assert [call.number for call in found] == [1, 2]
    assert [call.signature for call in found] == ["monitoring", "other"]
    assert [call.version for call in found] == [1, None]
    np.testing.assert_array_equal(found[0].inputs["inputs"], X)
    assert found[0].inputs["text"].tolist() == [b"a", b"\xff"]
    np.testing.assert_array_equal(found[0].outputs["outputs"], X * 2)
    assert found[1].outputs == {}


def test_the_warm_up_requests_are_read(tmp_path):
    (found,) = calls(tmp_path, warmup.prediction_log("m", "other", {"inputs": X}))
    assert found.signature == "other"
    np.testing.assert_array_equal(found.inputs["inputs"], X)


def large():
    proto = tf.make_tensor_proto(np.float32(1))
    for _ in range(4):
        proto.tensor_shape.dim.add(size=1 << 30)
    record = prediction_logs.kinds()["PredictionLog"]()
    entry = record.predict_log.request.inputs.add(key="inputs")
    entry.value = proto.SerializeToString()
    return record.SerializeToString()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (b"", "it has no call"),
        (b"hello", "field|call"),
        (b"\x32\x7f\x01", "cut off"),
        (b"\x30\x01", "a number is where a message should be"),
        (prediction_logs.classify_record(), "it is a Classify call"),
        (large(), "has the shape"),
    ],
)
def test_a_broken_record_is_named_by_its_number(tmp_path, wrong, words):
    good = prediction_logs.record({"inputs": X})
    with pytest.raises(ValueError, match=f"Record 2 of .*({words})"):
        calls(tmp_path, good, wrong)


def test_a_file_that_is_cut_off(tmp_path):
    path = prediction_logs.write(
        tmp_path / "log", [prediction_logs.record({"inputs": X})] * 2
    )
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="Record 2 of .* damaged or cut off"):
        list(read_request_log(path))
    path.write_text("no record at all, but long enough for a header")
    with pytest.raises(ValueError, match="Record 1 of .* damaged"):
        list(read_request_log(path))


def test_every_cut_and_changed_byte_gives_an_error_or_arrays(tmp_path):
    whole = prediction_logs.record({"inputs": X}, {"outputs": X})
    rng = np.random.default_rng(0)
    records = [whole[:place] for place in range(0, len(whole), 25)]
    for _ in range(30):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        records.append(bytes(changed))
    refused = 0
    for number, each in enumerate(records):
        path = prediction_logs.write(tmp_path / f"log{number}", [each])
        try:
            list(read_request_log(path))
        except ValueError as problem:
            assert "Record 1" in str(problem)
            refused += 1
    assert refused > 10
