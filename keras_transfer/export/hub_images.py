"""The way into an image Task of keras-hub: through its own preprocessor."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_transfer.export.image_bytes import bytes_spec
from keras_transfer.export.image_bytes import decoded
from keras_transfer.export.request import Entry
from keras_transfer.export.request import fitted
from keras_transfer.export.request import raw_entry


def image_entries(preprocessor: keras.Layer, plain: Entry) -> dict[str, Entry]:
    """Return the entries of a Task that resizes and scales images itself.

    `serving_default` takes what the Task's `predict` takes, images of one size with
    values of 0 to 255; `image_bytes` takes files, each of its own size.
    """
    what = f"The preprocessor {type(preprocessor).__name__}"
    (name,) = plain.specs
    size = tuple(plain.specs[name].shape[1:3])
    if None in size:
        size = tuple(preprocessor.image_converter.image_size or size)
    if None in size:
        raise ValueError(
            "The Task takes images of any size, and a batch has one. Give its "
            "image_converter an image_size."
        )

    def prepare(tensors: dict[str, tf.Tensor]) -> object:
        return fitted(preprocessor(tensors[name]), plain, what)

    def prepare_bytes(tensors: dict[str, tf.Tensor]) -> object:
        def resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
            return tf.cast(preprocessor(image), tf.float32)

        return fitted(decoded(tensors["image_bytes"], size, resize), plain, what)

    files = {"image_bytes": bytes_spec()}
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name=name)
    return {
        "serving_default": raw_entry({name: images}, prepare, preprocessor),
        "preprocessed": plain,
        "image_bytes": raw_entry(files, prepare_bytes, preprocessor),
    }
