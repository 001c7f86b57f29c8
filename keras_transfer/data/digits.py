"""Real data that needs no download: plain digits, and digits over photographs.

The images are scikit-learn's own: `load_digits` (1,797 handwritten digits of
8 x 8 pixels) and `load_sample_images` (two photographs of 427 x 640 pixels).
Each digit belongs to one part only, so nothing that a model has seen of the
source or of the target's train part comes back in the target's test part.
"""

from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer._instead import attributes_instead
from keras_transfer.data.labels import choose_per_class

SIZE = 16  # pixels a side: two for each pixel of scikit-learn's digits

# Digits of a class in each part; the source's train part has the rest, 64 to 73.
SOURCE_TEST = 15
TARGET_TRAIN = 40
TARGET_TEST = 55

# Columns of both photographs behind each part of the target. The gap of 40 is
# wider than a patch, so the two parts show neither the same nor adjoining pixels.
TRAIN_COLUMNS = (0, 300)
TEST_COLUMNS = (340, 640)

unknown_attribute = attributes_instead("Target", unlabelled="unlabeled")


class Source(NamedTuple):
    """Plain digits; `train` and `test` are pairs `(images, labels)`."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Target(NamedTuple):
    """Digits over photographs; `unlabeled` holds images of the train part only."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    unlabeled: np.ndarray

    def __getattr__(self, name: str) -> object:
        return unknown_attribute(name)


def load_source() -> Source:
    """Return the source domain: plain digits, white on black.

    697 digits to train on and 150 to test on, stratified by class. None of them
    occurs in any part of `load_target`. The split is always the same.

    Returns:
        A named tuple `(train, test)` of pairs `(images, labels)`, as
        `keras.datasets` return them. Images are float32 RGB in [0, 1] of shape
        `(count, 16, 16, 3)` with three equal channels; labels are int64 of
        shape `(count,)`, 0 to 9.

    Example:

    ```python
    import keras_transfer as kt

    (x_train, y_train), (x_test, y_test) = kt.data.digits.load_source()
    print(x_train.shape, x_test.shape)  # (697, 16, 16, 3) (150, 16, 16, 3)
    ```

    Reference:
        Alpaydin, Kaynak, 1998, Optical Recognition of Handwritten Digits, UCI
        Machine Learning Repository (scikit-learn's `load_digits`).
    """
    digits, labels = _digits()
    train, test, _, _ = _parts(labels)
    digits = np.repeat(digits[..., None], 3, axis=-1)
    return Source((digits[train], labels[train]), (digits[test], labels[test]))


def load_target(*, labels_per_class: int = 10, seed: int = 0) -> Target:
    """Return the target domain: other digits, blended over photograph patches.

    As MNIST-M is made, each image is `abs(digit - patch)`, with a patch of
    16 x 16 pixels cut at random out of one of two photographs: strokes invert
    what lies under them. 550 digits are the test part, 400 the train part, both
    stratified; the train part's patches come from the left of the photographs,
    the test part's from the right, with a gap between them. Images and test part
    are always the same: `seed` only chooses which of the train part have labels.

    Args:
        labels_per_class: Number of labeled images of each class in `train`,
            1 to 40. Defaults to 10, which leaves 300 in `unlabeled`.
        seed: Seed of the choice of the labeled images. Defaults to 0.

    Returns:
        A named tuple `(train, test, unlabeled)`: two pairs `(images, labels)`
        and the images of the train part that were not chosen. Images are
        float32 RGB in [0, 1] of shape `(count, 16, 16, 3)`; labels are int64 of
        shape `(count,)`, 0 to 9.

    Example:

    ```python
    import keras_transfer as kt

    target = kt.data.digits.load_target(seed=1)
    images, labels = target.train
    print(images.shape, target.unlabeled.shape)  # (100, 16, 16, 3) (300, 16, 16, 3)
    ```

    Raises:
        ValueError: `labels_per_class` is not a whole number from 1 to 40.

    Reference:
        Ganin, Lempitsky, 2015, Unsupervised Domain Adaptation by
        Backpropagation (MNIST-M), arXiv:1409.7495.
    """
    why = f"the target's train part has {TARGET_TRAIN} images a class"
    whole_number("labels_per_class", labels_per_class, most=TARGET_TRAIN, why=why)
    digits, labels = _digits()
    _, _, train, test = _parts(labels)
    x_train = _over_photographs(digits[train], TRAIN_COLUMNS, seed=1)
    x_test = _over_photographs(digits[test], TEST_COLUMNS, seed=2)
    y_train = labels[train]
    with_label = choose_per_class(y_train, labels_per_class, seed)
    return Target(
        train=(x_train[with_label], y_train[with_label]),
        test=(x_test, labels[test]),
        unlabeled=x_train[~with_label],
    )


def _digits():
    """Return all digits as float32 in [0, 1], enlarged bilinearly, and labels."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scale = SIZE // 8
    images = zoom(
        bunch.images / 16.0,
        (1, scale, scale),
        order=1,
        mode="nearest",
        grid_mode=True,
    )
    return images.astype("float32"), bunch.target.astype("int64")


def _parts(labels: np.ndarray):
    """Return sorted indices: source train, source test, target train and test."""
    rng = np.random.default_rng(0)
    cuts = np.cumsum([TARGET_TEST, TARGET_TRAIN, SOURCE_TEST])
    by_class = [
        np.split(rng.permutation(np.flatnonzero(labels == label)), cuts)
        for label in range(10)
    ]
    parts = (np.sort(np.concatenate(part)) for part in zip(*by_class, strict=True))
    target_test, target_train, source_test, source_train = parts
    return source_train, source_test, target_train, target_test


def _over_photographs(digits: np.ndarray, columns: tuple[int, int], seed: int):
    """Return `abs(digit - patch)`, each patch from a random place in `columns`."""
    from sklearn.datasets import load_sample_images

    photographs = np.stack(load_sample_images().images).astype("float32") / 255
    patches = np.lib.stride_tricks.sliding_window_view(
        photographs[:, :, slice(*columns)], (SIZE, SIZE), axis=(1, 2)
    )
    rng = np.random.default_rng(seed)
    places = tuple(rng.integers(end, size=len(digits)) for end in patches.shape[:3])
    chosen = np.moveaxis(patches[places], 1, -1)  # channels come first in a window
    return np.abs(digits[..., None] - chosen)
