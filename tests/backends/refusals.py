"""What needs TensorFlow says so on JAX, before it changes anything.

KERAS_BACKEND=jax python -m tests.backends.refusals
"""

import pathlib
import tempfile

import keras
import numpy as np

import keras_transfer as kt
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
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


def rising(strength, x):
    model = kt.models.DANN(extractor(), free_head(), strength=strength)
    model.compile("adam", bases.LOGITS)
    model.fit(x, bases.labels(), verbose=0)


def main():
    distribute, model = kt.distribute, bases.mlp()
    refused("kt.distribute.connect", "DataParallel", distribute.connect)
    refused("kt.distribute.multi_worker", "DataParallel", distribute.multi_worker)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "exported")
        for name, export in (
            ("kt.export_serving", lambda: kt.export_serving(model, path)),
            (
                "kt.export.export_file",
                lambda: kt.export.export_file(model, path, format="onnx"),
            ),
        ):
            refused(name, "KERAS_BACKEND=tensorflow", export)
            assert not path.exists()
    x = {name: bases.vectors() for name in ("source", "target")}
    for strength in (None, kt.optimizers.GaninRampUp(20)):
        needs = "A strength that changes in training"
        refused(needs, "Pass a number", lambda each=strength: rising(each, x))
    model = kt.models.DANN(extractor(), free_head())  # a loaded one predicts
    assert np.isfinite(keras.ops.convert_to_numpy(model(bases.vectors()))).all()


if __name__ == "__main__":
    main()
