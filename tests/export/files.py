"""Helpers for tests of the export: sizes of files, images and text models."""

import io
import pathlib

import keras
import numpy as np
import tensorflow as tf

TEXTS = ["the quick foxes", "", "a brown fox, the ü"]


def everything(folder):
    """Return the paths of everything in a folder, including hidden files."""
    folder = pathlib.Path(folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def size(folder, pattern="*"):
    """Return the total size of the files below a folder in bytes."""
    found = pathlib.Path(folder).rglob(pattern)
    return sum(path.stat().st_size for path in found if path.is_file())


def size_of_weights(model):
    """Return the total size of the weights of a model in bytes."""
    return sum(np.prod(w.shape) * np.dtype("float32").itemsize for w in model.weights)


def pictures(count=3, height=20, width=30):
    """Return smooth images of different sizes, because JPEG changes noise too much."""
    found = []
    for i in range(count):
        y, x = np.mgrid[0 : height + i, 0:width]
        planes = [127 + 120 * np.sin((x * (i + 1) + y * c) / 9) for c in (1, 2, 3)]
        found.append(np.stack(planes, -1).astype("uint8"))
    return found


def encoded(images):
    """Return images as the content of files: JPEG, PNG, JPEG, ..."""
    kinds = [tf.io.encode_jpeg, tf.io.encode_png]
    return [kinds[i % 2](image).numpy() for i, image in enumerate(images)]


def pillow(file):
    """Return the values of an encoded image as Pillow decodes them."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype("float32")


def text_preprocessor(length=12):
    """Return a keras-hub preprocessor of BERT with a vocabulary of eleven tokens."""
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += ["the", "quick", "brown", "fox", "##es", "a"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
    return keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=length
    )


def text_task(preprocessor=None):
    """Return a keras-hub Task that takes strings."""
    import keras_hub

    from tests import tiny

    return keras_hub.models.BertTextClassifier(
        backbone=tiny.bert(num_layers=1),
        num_classes=3,
        preprocessor=preprocessor or text_preprocessor(),
    )


def shaken(model, scale=0.3):
    """Add positive noise to all weights, so statistics stay positive."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        change = np.abs(rng.normal(0, scale, weight.shape)).astype("float32")
        weight.assign(keras.ops.convert_to_numpy(weight.value) + change)
    return model
