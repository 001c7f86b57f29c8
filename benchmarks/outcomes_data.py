"""The cells of outcomes.py: real data with few labels, and pretrained networks."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import efficientnet_lite0
import keras
import numpy as np
import real_bert
import resnet20

import keras_transfer as kt

TEST = 1_000  # most examples of a test part
LENGTH = 64  # most tokens of a text
PIXELS = 96  # of the images of CIFAR-10 for the networks from ImageNet
# Name -> file of the train part, file of the test part.
TEXTS = {
    "sst2": ("sst2_train", "sst2_test"),
    "books": ("amazon_books_train", "amazon_books_test"),
    "chem": ("bc5cdr_has_chemical_train", "bc5cdr_has_chemical_test"),
}
IMAGES = {"cifar": "cifar10_small", "mnist": "mnist"}


class Network(NamedTuple):
    """A pretrained network, and the function that makes its inputs from raw data."""

    backbone: Callable
    prepare: Callable


class Cell(NamedTuple):
    """The name of the data, the number of labels in all, and the network."""

    data: str
    labels: int
    network: str

    @property
    def is_text(self):
        return self.data in TEXTS

    @property
    def epochs(self):
        return 4 if self.is_text else 6


CELLS = {
    "sst2-50": Cell("sst2", 50, "MiniLM"),
    "sst2-300": Cell("sst2", 300, "MiniLM"),
    "sst2-1000": Cell("sst2", 1000, "MiniLM"),
    "books-300": Cell("books", 300, "MiniLM"),
    "chem-100": Cell("chem", 100, "MiniLM"),
    "chem-300": Cell("chem", 300, "MiniLM"),
    "chem-1000": Cell("chem", 1000, "MiniLM"),
    "cifar-mobilenet-100": Cell("cifar", 100, "MobileNetV2"),
    "cifar-mobilenet-300": Cell("cifar", 300, "MobileNetV2"),
    "cifar-lite0-300": Cell("cifar", 300, "EfficientNet-Lite0"),
    "digits-100": Cell("digits", 100, "ResNet-20"),
    "mnist-100": Cell("mnist", 100, "ResNet-20"),
}


def train_part(cell, seed):
    """Return inputs and labels: as many examples of each class, chosen by the seed."""
    train, _ = raw_parts(cell.data)
    per_class = cell.labels // len(np.unique(train[1]))
    x, y = kt.data.few_labels(train, per_class, seed=seed).labeled
    return NETWORKS[cell.network].prepare(x), y


@functools.lru_cache(maxsize=1)
def test_part(cell):
    """Return inputs and labels of the test part, the same for each seed."""
    x, y = raw_parts(cell.data)[1]
    chosen = np.random.default_rng(0).permutation(len(y))[:TEST]
    return NETWORKS[cell.network].prepare(x[chosen]), y[chosen]


def backbone(cell):
    """Return a new copy of the pretrained network."""
    return NETWORKS[cell.network].backbone()


@functools.lru_cache(maxsize=1)
def raw_parts(name):
    """Return raw train and test data. Pixels are from 0 to 255."""
    folder = efficientnet_lite0.data_folder()
    if name in TEXTS:
        paths = [folder / f"{file}.tsv" for file in TEXTS[name]]
        return [tuple(kt.data.from_tsv(path)[:2]) for path in paths]
    if name == "digits":
        digits = kt.data.digits.load_target(labels_per_class=40)
        return [(255 * x, y) for x, y in (digits.train, digits.test)]
    with np.load(folder / f"{IMAGES[name]}.npz", allow_pickle=False) as arrays:
        pairs = [[arrays[f"{x}_{part}"] for x in "xy"] for part in ("train", "test")]
    return [(x, y.astype("int64")) for x, y in pairs]


@functools.cache
def _preprocessor():
    import keras_hub

    return keras_hub.models.TextClassifierPreprocessor.from_preset(
        real_bert.folder(), sequence_length=LENGTH
    )


def _minilm():
    import keras_hub

    return keras_hub.models.BertBackbone.from_preset(real_bert.folder())


def _tokens(texts):
    """Return token arrays, padded to the longest text rounded up to 8 tokens."""
    x = _preprocessor()(list(texts))
    x = keras.tree.map_structure(keras.ops.convert_to_numpy, x)
    longest = x["padding_mask"].sum(axis=1).max()
    length = min(LENGTH, -(-int(longest) // 8) * 8)
    return {name: array[:, :length] for name, array in x.items()}


def _mobilenet():
    size = (PIXELS, PIXELS, 3)
    model = keras.applications.MobileNetV2(size, include_top=False, weights=None)
    model.load_weights(efficientnet_lite0.data_folder() / "mobilenetv2_160.weights.h5")
    return model


def _enlarged(images):
    """Return images in which each pixel is repeated, as float32."""
    times = PIXELS // images.shape[1]
    return images.repeat(times, axis=1).repeat(times, axis=2).astype("float32")


def to_32_pixels(images):
    """Return color images of 32 x 32 pixels, interpolated bilinearly."""
    images = np.asarray(images, "float32")
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    resized = keras.ops.image.resize(images, (32, 32), interpolation="bilinear")
    return keras.ops.convert_to_numpy(resized)


NETWORKS = {
    "MiniLM": Network(_minilm, _tokens),
    "MobileNetV2": Network(_mobilenet, lambda x: _enlarged(x) / 127.5 - 1),
    "EfficientNet-Lite0": Network(
        functools.partial(efficientnet_lite0.network, PIXELS),
        lambda x: efficientnet_lite0.preprocess(_enlarged(x)),
    ),
    "ResNet-20": Network(
        resnet20.network, lambda x: resnet20.preprocess(to_32_pixels(x))
    ),
}
