"""Whether a larger value of a metric is better."""

import keras
import numpy as np
import pytest

from keras_transfer.analysis.directions import direction_in
from keras_transfer.analysis.directions import larger_is_better
from tests import tiny


@pytest.mark.parametrize(
    "name, expected",
    [
        ("val_accuracy", True),
        ("AUC", True),
        ("val_loss", False),
        ("mean_absolute_error", False),
        ("perplexity", False),
        ("learning_rate", None),
        ("r2_score", None),
    ],
)
def test_the_name_shows_the_direction(name, expected):
    assert larger_is_better(name) is expected
    assert direction_in(tiny.mlp(), name) is expected


def test_the_compiled_metric_comes_before_the_name():
    class Score(keras.metrics.R2Score):
        pass

    model = tiny.mlp()
    model.compile(
        "sgd", "mse", metrics=["mae", Score(name="error_score")], jit_compile=False
    )
    model.evaluate(np.ones((4, 6)), np.ones((4, 3)), verbose=0)
    assert direction_in(model, "val_mae") is False
    assert direction_in(model, "val_out_mae") is False
    assert direction_in(model, "error_score") is True
    assert direction_in(model, "r2_score") is None
