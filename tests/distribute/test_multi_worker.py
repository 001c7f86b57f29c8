"""Two real processes on one machine train like one process, and resume after a kill."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.distribute.multi_worker import multi_worker
from keras_transfer.distribute.multi_worker import worker_path
from tests.distribute import worker
from tests.public import ROOT

SECONDS = 400  # limit for two processes; on two free cores they take about 30


def cluster():
    """Return the addresses of two workers, with ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def config(addresses, index):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def run_pair(task, folder):
    """Run worker.py in two processes; return their exit codes and output."""
    addresses = cluster()
    processes = []
    for index in range(2):
        environment = os.environ | {
            "TF_CONFIG": config(addresses, index),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        command = [sys.executable, "-m", "tests.distribute.worker", task, str(folder)]
        processes.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        words = [each.communicate(timeout=SECONDS)[0] for each in processes]
    finally:
        for each in processes:
            each.kill()
            each.wait()
    return [each.returncode for each in processes], words


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Run the first pair: all trainings, then a run in which worker 2 is killed."""
    folder = tmp_path_factory.mktemp("workers")
    codes, words = run_pair("train", folder)
    assert codes == [0, -signal.SIGKILL], words
    return folder, json.loads((folder / "train_0.json").read_text())


@pytest.fixture(scope="module")
def alone():
    """Run the same trainings in this process."""
    return worker.trainings(tf.distribute.get_strategy())[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "gradual"])
def test_two_workers_equal_one_process(first, alone, name):
    _, found = first
    assert found["replicas"] == 2
    ours, expected = found["trainings"][name], alone[name]
    assert ours["history"].keys() == expected["history"].keys()
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
        ours,
        expected,
    )


@pytest.mark.slow
def test_only_the_first_worker_saves_the_model(first, alone):
    folder, _ = first
    model = keras.saving.load_model(folder / "model.keras")
    x, _ = worker.data()
    np.testing.assert_allclose(
        model.predict(x, verbose=0), alone["gradual"]["predicted"], atol=1e-6
    )
    assert not [each for each in folder.iterdir() if "worker" in each.name]


@pytest.mark.slow
def test_a_shuffled_epoch_contains_each_example_once(first):
    _, found = first
    np.testing.assert_allclose(found["shuffled"], -0.5, atol=1e-6)


@pytest.mark.slow
def test_only_bugs_of_keras_are_fixed(first):
    # If this fails: Keras has fixed the bugs, and _keras.fix_workers can be removed.
    _, found = first
    build, reduce = found["faults"]
    assert "PerReplica" in build and "dimension" in reduce, (build, reduce)
    assert found["mean"] == [[0.5, 5.0], 7]


@pytest.mark.slow
def test_after_a_kill_all_workers_end_and_resume_together(first, monkeypatch):
    folder, found = first
    assert found["error"] == "UnavailableError"
    assert (folder / "backup").is_dir()
    codes, words = run_pair("resume", folder)
    assert codes == [0, 0], words
    resumed = [
        json.loads((folder / f"resume_{index}.json").read_text()) for index in range(2)
    ]
    with tf.distribute.get_strategy().scope():
        whole = worker.model_of("lora")
    worker.fit(whole, worker.EPOCHS)
    for each in resumed:
        # The first worker had a backup of the epoch, and the killed worker had none.
        assert each["epochs"] == worker.EPOCHS - (worker.KILLED + 1)
        assert each["iterations"] == 3 * worker.EPOCHS
        for found, expected in zip(each["weights"], whole.get_weights(), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_paths(monkeypatch, tmp_path):
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "epoch").write_text("1")
    addresses = ["127.0.0.1:1", "127.0.0.1:2"]
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert worker_path("a/model.keras") == "a/model.keras"
    monkeypatch.setenv("TF_CONFIG", config(addresses, 0))
    assert worker_path(backup) == str(backup)
    monkeypatch.setenv("TF_CONFIG", config(addresses, 1))
    own = worker_path(backup)
    assert own != str(backup) and own.endswith("backup")
    assert worker_path(backup) != own  # a new path for each call
    with open(os.path.join(own, "epoch")) as file:
        assert file.read() == "1"
    assert worker_path("{epoch}.keras").endswith("{epoch}.keras")
    # If there is a chief, the chief is the first worker.
    both = {"chief": addresses[:1], "worker": addresses[1:]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": both, "task": task}))
    assert worker_path(backup) != str(backup)


@pytest.mark.parametrize(
    "text",
    [
        "host0:2222",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        config(["a:1", "b:1"], 2),
        config(["a:1", "b:1"], -1),
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_a_task_outside_the_cluster_raises(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    for call in (multi_worker, lambda: worker_path("a")):
        with pytest.raises(ValueError, match="TF_CONFIG=.* does not define"):
            call()


def test_parameter_servers_raise(monkeypatch):
    cluster = {"worker": ["a:1"], "ps": ["b:1"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(ValueError, match=r"names \['ps'\]"):
        multi_worker()
