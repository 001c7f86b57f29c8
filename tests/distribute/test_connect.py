"""connect uses the available devices, prints the choice, and raises clear errors."""

import json

import keras
import pytest
import tensorflow as tf

from keras_transfer.distribute import connect as function
from keras_transfer.distribute.connect import connect
from keras_transfer.distribute.connect import describe
from keras_transfer.distribute.connect import find_tpu
from tests import tiny
from tests.contracts.compare import fit
from tests.test_keras_facts import data

GPUS = tf.config.list_logical_devices("GPU")
VARIABLES = ("COLAB_TPU_ADDR", "TPU_NAME", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Remove the variables that a cloud machine may have set."""
    for name in ("TF_CONFIG", *VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(bool(GPUS), reason="this machine has a GPU")
def test_a_cpu_gets_the_default_strategy(capsys):
    strategy = connect()
    assert strategy is tf.distribute.get_strategy()
    line = "one replica on CPU:0, TensorFlow's default strategy"
    assert capsys.readouterr().out == f"keras_transfer: {line}\n"
    with strategy.scope():
        model = tiny.mlp()
        model.compile("sgd", "mse")
    assert fit(model, *data()).history["loss"]


@pytest.mark.skipif(bool(GPUS), reason="this machine has a GPU")
def test_a_missing_gpu_raises():
    with pytest.raises(ValueError, match="finds no GPU"):
        connect("gpu")
    with pytest.raises(ValueError, match=r"'GPU:3'.*of this machine are .*'CPU:0'"):
        connect(["CPU:0", "GPU:3"])


def test_one_device_by_name(capsys):
    for devices in ("cpu", ["CPU:0"]):
        strategy = connect(devices)
        assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
        out = capsys.readouterr().out
        assert out == "keras_transfer: one replica, OneDeviceStrategy with CPU:0\n"
        with strategy.scope():
            model = tiny.mlp()
            model.compile("sgd", "mse")
        fit(model, *data())


def test_several_devices_by_name(strategy, monkeypatch):
    line = "keras_transfer: 2 replicas, MirroredStrategy with CPU:0, CPU:1"
    assert describe(strategy) == line
    # A process can have only one MirroredStrategy.
    asked = []
    monkeypatch.setattr(
        tf.distribute, "MirroredStrategy", lambda names: asked.append(names) or strategy
    )
    assert connect(["CPU:1", "CPU:0"]) is strategy
    assert asked == [["CPU:1", "CPU:0"]]


@pytest.mark.parametrize("devices", [[], ["CPU:0", "CPU:0"], ["cpu"]], ids=str)
def test_devices_must_be_different_and_available(devices):
    with pytest.raises(ValueError, match="must be different devices"):
        connect(devices)


def test_bad_arguments_raise():
    with pytest.raises(ValueError, match="'npu' is unknown"):
        connect("npu")
    with pytest.raises(ValueError, match="no effect with devices='cpu'"):
        connect("cpu", tpu="local")


def test_a_tpu_is_found_in_the_environment(monkeypatch):
    assert find_tpu() is None
    with pytest.raises(ValueError, match="no TPU was found"):
        connect("tpu")
    for name in reversed(VARIABLES):
        monkeypatch.setenv(name, f"at {name}")
        expected = f"at {name}" if name != VARIABLES[0] else f"grpc://at {name}"
        assert find_tpu() == expected


def test_a_tpu_without_a_connection_raises():
    with pytest.raises(RuntimeError, match="(?s)TPU at 'local'.*tensorflow-tpu"):
        connect(tpu="local")


def test_several_workers_are_read_from_the_environment(monkeypatch):
    workers = {"worker": ["127.0.0.1:1"], "ps": ["127.0.0.1:2"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": workers, "task": task}))
    assert connect("cpu")  # as requested
    workers["worker"].append("127.0.0.1:3")
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": workers, "task": task}))
    with pytest.raises(ValueError, match="no parameter servers"):
        connect()


def test_the_package_exports_the_function():
    assert function is connect
    assert keras.backend.backend() == "tensorflow"
