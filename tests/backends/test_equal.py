"""On JAX, trainings from the same weights end as on TensorFlow."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests.backends.processes import finish
from tests.backends.processes import MARKS
from tests.backends.processes import started
from tests.backends.trainings import TRAININGS
from tests.contracts.compare import assert_close
from tests.golden import bases

RUN = "tests.backends.trainings"

pytestmark = MARKS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of the same trainings on TensorFlow and on JAX."""
    made = [tmp_path_factory.mktemp(name) for name in ("tensorflow", "jax")]
    processes = [started(folder.name[:-1], RUN, folder) for folder in made]
    for process in processes:  # both run at the same time
        finish(process)
    return made


@pytest.fixture(scope="module")
def alone(folders, tmp_path_factory):
    """Continue a training of TensorFlow on JAX, then check what JAX alone shows.

    Return the folder, the exit code and what the process said.
    """
    made = tmp_path_factory.mktemp("alone")
    (made / "half.keras").write_bytes((folders[0] / "half.keras").read_bytes())
    process = started("jax", "tests.backends.alone", made)
    said, _ = process.communicate()
    return made, process.returncode, said


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_ends_with_the_same_state(folders, name):
    expected, found = (np.load(folder / f"{name}.npz") for folder in folders)
    assert expected.files == found.files
    for array in expected.files:
        np.testing.assert_allclose(found[array], expected[array], rtol=0, atol=1e-5)
    losses = expected[expected.files[-1]]
    assert not np.allclose(losses[0], losses[-1], rtol=0, atol=1e-4)  # it has moved


def test_a_file_of_jax_continues_on_tensorflow(folders):
    models = [kt.resume(folder / "half.keras") for folder in folders]
    inputs = bases.vectors(16)
    assert_close(*(model(inputs) for model in models), 1e-6)
    assert_close(*(model.optimizer.variables for model in models), 1e-6)
    flags = [[weight.trainable for weight in model.weights] for model in models]
    assert flags[0] == flags[1] and not all(flags[0])
    assert keras.backend.backend() == "tensorflow"


def test_a_file_of_tensorflow_continues_on_jax(folders, alone):
    found = np.load(alone[0] / "continued.npz")
    expected = np.load(folders[0] / "resumed.npz")
    for array in expected.files:
        np.testing.assert_allclose(found[array], expected[array], rtol=0, atol=1e-5)


def test_two_devices_train_as_one():
    finish(started("jax", "tests.backends.devices"))


def test_half_precision_random_steps_and_refusals(alone):
    _, code, said = alone
    assert code == 0, said[-3000:]


def test_another_backend_is_refused_on_import():
    process = started("numpy", "keras_transfer.losses")
    said, _ = process.communicate()
    assert process.returncode
    assert "ImportError: keras_transfer runs on the backends TensorFlow and JAX" in said
