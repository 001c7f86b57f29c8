"""Real data that needs no download: plain digits, and digits over photographs."""

from typing import NamedTuple

import numpy as np

# Images of a class in each part; the rest, 56 to 65 a class, is the source's train part.
SOURCE_TEST = 20
TARGET_TRAIN = 40
TARGET_TEST = 60

# Columns of both photographs that each part may show; 40 between them show nowhere.
TRAIN_COLUMNS = (0, 300)
TEST_COLUMNS = (340, 640)

SIZE = 32  # pixels a side, four for each pixel of scikit-learn's digits


class Source(NamedTuple):
    """Plain digits: `train` and `test` are `(images, labels)`."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Target(NamedTuple):
    """Digits over photographs: few with labels, `unlabelled` images, and a `test`."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    unlabelled: np.ndarray
