"""References without a model, and outputs of the same distribution."""

import numpy as np

from keras_transfer.analysis.shift.score_kind import ScoreKind
from keras_transfer.export.shift_reference import make_reference

NAMES = ("cat", "dog", "owl")
SCRIPT = "<script>alert(1)</script>"


def outputs(rng, count, shares=(1, 1, 1), size=4):
    """Return probabilities, features and classes of three Gaussian classes."""
    shares = np.array(shares) / np.sum(shares)
    y = rng.choice(3, count, p=shares)
    x = rng.normal(size=(count, size))
    x[:, 0] += np.array([-1.5, 0, 1.5])[y]
    powers = np.exp(-np.square(x[:, :1] - [-1.5, 0, 1.5]) / 2)
    return powers / powers.sum(1, keepdims=True), x, y


def reference(rng, count=300, *, names=NAMES, labeled=True, features=True, size=4):
    """Return a reference of such outputs."""
    scores, x, y = outputs(rng, count, size=size)
    return make_reference(
        ScoreKind("classes", False, 3),
        scores,
        x if features else None,
        y if labeled else None,
        names,
        0,
        {"output": "outputs", "model": "animals"},
    )
