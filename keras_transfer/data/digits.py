"""Real data without a download: plain digits, and digits over photographs.

The images come with scikit-learn: `load_digits` (1,797 handwritten digits of 8 x 8
pixels) and `load_sample_images` (two photographs of 427 x 640 pixels). Each digit
belongs to only one part, so no digit in the test part of the target is in another part.
"""

from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer._instead import attributes_instead
from keras_transfer.data.labels import choose_per_class

SIZE = 16  # pixels per side, twice as many as in the digits of scikit-learn

# Digits of a class in each part. The source's train part has the other 64 to 73.
SOURCE_TEST = 15
TARGET_TRAIN = 40
TARGET_TEST = 55

# Columns of the photographs from which each part of the target takes its patches. The
# gap of 40 is wider than a patch, so the parts share no pixels and no neighbors.
TRAIN_COLUMNS = (0, 300)
TEST_COLUMNS = (340, 640)

unknown_attribute = attributes_instead("Target", unlabelled="unlabeled")


class Source(NamedTuple):
    """Plain digits. `train` and `test` are pairs `(images, labels)`."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Target(NamedTuple):
    """Digits over photographs. `unlabeled` has only images of the train part."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    unlabeled: np.ndarray

    def __getattr__(self, name: str) -> object:
        return unknown_attribute(name)


def load_source() -> Source:
    """Return the source domain, which has plain white digits on black.

    The train part has 697 digits and the test part has 150. Both are stratified by
    class. None of these digits occurs in any part of `load_target`. The split is
    always the same.

    Returns:
        A named tuple `(train, test)` of pairs `(images, labels)`, in the format of
        `keras.datasets`. Images are float32 RGB in [0, 1] of shape
        `(count, 16, 16, 3)` with three equal channels. Labels are int64 of shape
        `(count,)`, from 0 to 9.

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
    """Return the target domain, which has other digits over patches of photographs.

    The images are made like the images of MNIST-M. Each image is `abs(digit - patch)`,
    where the patch has 16 x 16 pixels from a random place in one of two photographs.
    The strokes of the digit invert the patch. The train part has 400 digits and the
    test part has 550. Both are stratified by class. The patches of the train part come
    from the left of the photographs, and the patches of the test part from the right,
    with a gap in between. The images and the test part are always the same. `seed`
    only selects which images of the train part have labels.

    Args:
        labels_per_class: Integer from 1 to 40, the number of labeled images of each
            class in `train`. Defaults to 10, which leaves 300 images in `unlabeled`.
        seed: Integer, the seed that selects the labeled images. Defaults to 0.

    Returns:
        A named tuple `(train, test, unlabeled)`. `train` and `test` are pairs
        `(images, labels)`, and `unlabeled` has the other images of the train part.
        Images are float32 RGB in [0, 1] of shape `(count, 16, 16, 3)`. Labels are
        int64 of shape `(count,)`, from 0 to 9.

    Example:

    ```python
    import keras_transfer as kt

    target = kt.data.digits.load_target(seed=1)
    images, labels = target.train
    print(images.shape, target.unlabeled.shape)  # (100, 16, 16, 3) (300, 16, 16, 3)
    ```

    Raises:
        ValueError: If `labels_per_class` is not a whole number from 1 to 40.

    Reference:
        Ganin, Lempitsky, 2015, Unsupervised Domain Adaptation by
        Backpropagation (MNIST-M), arXiv:1409.7495.
    """
    why = f"the target's train part has {TARGET_TRAIN} images of each class"
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
    """Return all digits as float32 in [0, 1], enlarged bilinearly, and their labels."""
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
    """Return sorted indices of source train, source test, target train, target test."""
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
    """Return `abs(digit - patch)`, with each patch from a random place in `columns`."""
    from sklearn.datasets import load_sample_images

    photographs = np.stack(load_sample_images().images).astype("float32") / 255
    patches = np.lib.stride_tricks.sliding_window_view(
        photographs[:, :, slice(*columns)], (SIZE, SIZE), axis=(1, 2)
    )
    rng = np.random.default_rng(seed)
    places = tuple(rng.integers(end, size=len(digits)) for end in patches.shape[:3])
    chosen = np.moveaxis(patches[places], 1, -1)  # windows have the channels first
    return np.abs(digits[..., None] - chosen)
