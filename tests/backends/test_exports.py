"""A SavedModel of a model of JAX gives its outputs in plain TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from tests.backends.processes import finish
from tests.backends.processes import MARKS
from tests.backends.processes import started
from tests.contracts.compare import assert_close
from tests.export import files
from tests.export import plain_tensorflow

pytestmark = MARKS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of the SavedModels and of what they must give."""
    made = tmp_path_factory.mktemp("exports")
    finish(started("jax", "tests.backends.exports", made))
    return made


@pytest.mark.parametrize("name", ["adapted", "images", "texts", "towers"])
def test_a_model_of_jax_runs_in_plain_tensorflow(folder, name):
    requests, expected = [], []
    for path in sorted(folder.glob(f"{name}_*.npz")):
        signature = path.stem.split("_", 2)[2]
        arrays = dict(np.load(path))
        x, y = (
            {key[2:]: value for key, value in arrays.items() if key[0] == letter}
            for letter in "xy"
        )
        requests.append((signature, x))
        expected.append(y)
    text = name == "texts"
    answers = plain_tensorflow.serve(folder / name / "1", requests, text=text)
    for answer, wanted in zip(answers, expected, strict=True):
        for key, array in wanted.items():
            assert np.ptp(array) > 0
            assert_close(answer[key], array, 1e-5)
    if name == "adapted":
        assert set(answers[0]) == {"outputs", "label", "label_id"}
        assert answers[0]["label_id"] == expected[0]["outputs"].argmax(-1)


def test_the_file_has_each_weight_once(folder):
    loaded = tf.saved_model.load(str(folder / "images" / "1"))
    assert len(loaded.weights) == 8  # a convolution, statistics and a Dense
    written = files.size(folder / "images" / "1" / "variables")
    assert written < 4 * sum(np.prod(x.shape) for x in loaded.weights) + 2000
