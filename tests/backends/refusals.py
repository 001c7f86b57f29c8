"""What needs TensorFlow says so on JAX, before it changes anything.

KERAS_BACKEND=jax python -m tests.backends.refusals
"""

import pathlib
import tempfile

import keras_transfer as kt
from tests.golden import bases


def refused(needs, instead, call):
    """Fail unless a call raises an error that says what is needed, and what to do."""
    try:
        call()
    except NotImplementedError as error:
        said = str(error)
        assert said.startswith(f"{needs} needs the TensorFlow backend"), said
        assert "the backend is jax" in said and instead in said, said
    else:
        raise AssertionError(f"{needs} was not refused")


def main():
    model, workers = bases.mlp(), "kt.distribute.multi_worker"
    refused(workers, "keras.distribution.initialize", kt.distribute.multi_worker)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "exported")
        for name, export in (
            (
                "kt.export_serving with adapters=",
                lambda: kt.export_serving(model, path, adapters=["first"]),
            ),
            (
                "kt.export.export_file",
                lambda: kt.export.export_file(model, path, format="onnx"),
            ),
        ):
            refused(name, "KERAS_BACKEND=tensorflow", export)
            assert not path.exists()


if __name__ == "__main__":
    main()
