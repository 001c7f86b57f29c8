"""Loading a file with adapters without keras_transfer names the missing import."""

import subprocess
import sys

import keras

from keras_transfer import adapters

LOAD = "import sys, keras; keras.models.load_model(sys.argv[1])"


def test_the_error_names_the_package(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "model.keras")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    error = done.stderr.splitlines()[-1]
    assert error.startswith("TypeError")
    assert "run `import keras_transfer` first" in error[:300]
