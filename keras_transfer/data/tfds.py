"""from_tfds: texts or images of TensorFlow Datasets, ready for `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data.few_labels import few_labels

# What is kept in memory, and how much of it a shuffle holds that is read anew.
CACHE_BYTES = 2**30


def from_tfds(
    name: Any,
    split: Any,
    *,
    features: Sequence | None = None,
    image_size: tuple[int, int] | None = None,
    batch_size: int = 32,
    shuffle: int | None = None,
    labels_per_class: int | None = None,
) -> tf.data.Dataset:
    """Return a split of TensorFlow Datasets as batches `(x, y)` for any of our models.

    Texts stay strings: a keras-hub Task or preprocessor takes them as they are.
    Images become float32 in the range of the file, [0, 255] for the usual uint8,
    which is what `preprocess_input` of `keras.applications`, the converters of
    keras-hub, and a `Rescaling` layer expect. The split is kept in memory after the
    first pass if it takes up to 1 GiB, and the next batches are made while a model
    trains.

    With `shuffle` each epoch has another order, and the sequence of orders is the
    same in each run. (It also follows the global seed of TensorFlow, if one is set,
    such as by `keras.utils.set_random_seed`, and a run that is resumed begins with
    the first order again.) What is kept in memory is shuffled as a whole, else as
    much as 1 GiB holds. Leave it out for evaluation, and for
    `kt.backbones.cache_features`: shuffle what that returns.

    Args:
        name: Name in the catalog, such as "imdb_reviews" or "glue/sst2", or a
            `tfds.core.DatasetBuilder`, such as `tfds.builder(name, data_dir=folder)`
            or one of your own. It is downloaded and prepared if it is not yet.
        split: Which part, such as "train", "test" or "train[:80%]".
        features: Names of the features for x and y: `("sentence", "label")`; for a
            pair of texts `(("premise", "hypothesis"), "label")`, or a dictionary in
            the place of x. Defaults to `None`: the supervised keys of the dataset.
        image_size: Height and width in pixels to which the images of x are resized,
            as `keras.layers.Resizing` does. Defaults to `None`: their own size,
            which must be one for all.
        batch_size: Examples a batch; the last may have fewer. Defaults to 32.
        shuffle: Seed of the order, or `None` for the order of the files. Defaults
            to `None`.
        labels_per_class: Number of examples of each class that are kept, by
            `kt.data.few_labels` with the seed `shuffle`, or 0 if that is `None`.
            For the other examples without label, or another seed, call it yourself.
            Defaults to `None`: all.

    Returns:
        A `tf.data.Dataset` of batches, whose length is known.

    Example:
        ```python
        import keras_transfer as kt
        import tensorflow_datasets as tfds

        with tfds.testing.mock_data(num_examples=6):  # no download: random images
            train = kt.data.from_tfds(
                "cifar10", "train", image_size=(8, 8), batch_size=4, shuffle=0
            )
            x, y = next(iter(train))
        assert x.shape == (4, 8, 8, 3) and len(train) == 2
        ```

    Raises:
        TypeError: If `name` or `split` is of another kind, or examples are ragged.
        ValueError: If there is no such split or feature, no supervised keys, the
            split is empty, examples differ in size, or a number cannot be used.

    Reference:
        TensorFlow Datasets, tensorflow.org/datasets (`tfds.load`, `as_supervised`).
    """
    import tensorflow_datasets as tfds

    _check(split, image_size, batch_size, shuffle)
    if not isinstance(name, str | tfds.core.DatasetBuilder):
        raise TypeError(
            f"name={name!r} must be the name of a dataset, or a "
            "tfds.core.DatasetBuilder such as tfds.builder(name, data_dir=folder)."
        )
    builder = tfds.builder(name) if isinstance(name, str) else name
    keys = _checked_keys(builder, features)
    builder.download_and_prepare()
    data = _read(builder, split, keys)
    # A structure as that of x: which of it are images.
    images = keras.tree.map_structure(
        lambda key: isinstance(builder.info.features[key], tfds.features.Image), keys
    )
    if image_size is not None:
        data = _resized(data, images, image_size)
    _check_shapes(data, keys, images)
    if labels_per_class is not None:
        data = few_labels(data, labels_per_class, seed=shuffle or 0).labeled
    count = len(data)
    size = max(1, _bytes(data, int(builder.info.dataset_size)))
    if size <= CACHE_BYTES:
        data = data.cache()
    if shuffle is not None:
        fits = count if size <= CACHE_BYTES else max(1, CACHE_BYTES * count // size)
        data = data.shuffle(fits, seed=shuffle, reshuffle_each_iteration=True)
    # Images become floats after the cache, in which bytes take a quarter of the room.
    data = _map_images(
        data.batch(batch_size), images, lambda image: tf.cast(image, "float32")
    )
    return data.prefetch(tf.data.AUTOTUNE)


def _check(split: Any, image_size: Any, batch_size: Any, shuffle: Any) -> None:
    if isinstance(split, list | tuple | dict) or split is None:
        raise TypeError(
            f"split={split!r} must be one split, such as 'train' or 'train[:80%]'. "
            "Call from_tfds for each."
        )
    whole_number("batch_size", batch_size)
    if shuffle is not None:
        why = "it is a seed, such as 0, or None for the order of the files"
        whole_number("shuffle", shuffle, 0, why=why)
    if image_size is None:
        return
    pair = isinstance(image_size, tuple | list) and len(image_size) == 2
    if not pair:
        raise ValueError(
            f"image_size={image_size!r} must be (height, width) in pixels, such as "
            "(224, 224)."
        )
    for side, pixels in zip(("height", "width"), image_size, strict=True):
        whole_number(side, pixels, why=f"image_size={image_size!r} is in pixels")


def _checked_keys(builder: Any, features: Sequence | None) -> tuple:
    """Return `(x, y)` with the names of features in the places of their values."""
    known = list(builder.info.features)
    keys = builder.info.supervised_keys if features is None else features
    if keys is None:
        raise ValueError(
            f"{builder.name} has no supervised keys: it does not say what x and y are. "
            f"Pass features=(x, y) out of {known}."
        )
    if not isinstance(keys, tuple | list) or len(keys) != 2:
        raise ValueError(
            f"features={keys!r} must be a pair (x, y) out of {known}; for two texts "
            "((first, second), y)."
        )
    unknown = [key for key in keras.tree.flatten(keys) if key not in known]
    if unknown:
        raise ValueError(
            f"{builder.name} has no feature {unknown[0]!r}. It has {known}."
        )
    return keras.tree.lists_to_tuples(tuple(keys))


def _read(builder: Any, split: Any, keys: tuple) -> tf.data.Dataset:
    """Return single examples `(x, y)` in the order of the files, of known number."""
    import tensorflow_datasets as tfds

    unused = set(builder.info.features) - set(keras.tree.flatten(keys))
    skipped = {
        key: tfds.decode.SkipDecoding()
        for key in unused
        if isinstance(builder.info.features[key], tfds.features.Image)
    }
    try:
        data = builder.as_dataset(
            split=split,
            decoders=skipped or None,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
    except ValueError as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise ValueError(
            f"split={split!r} of {builder.name} cannot be read: {reason}. Its splits "
            f"are {list(builder.info.splits)}."
        ) from error
    data = data.map(
        lambda example: keras.tree.map_structure(lambda key: example[key], keys)
    )
    for spec in keras.tree.flatten(data.element_spec):
        if not isinstance(spec, tf.TensorSpec):
            raise TypeError(
                f"{builder.name} has a {type(spec).__name__} in {keys}: its examples "
                "are of several lengths. Name other features, or map the dataset of "
                "tfds.load to dense tensors yourself."
            )
    count = int(data.cardinality())
    if count < 0:
        count = sum(1 for _ in data)
        data = data.apply(tf.data.experimental.assert_cardinality(count))
    if count == 0:
        raise ValueError(f"split={split!r} of {builder.name} is empty.")
    return data


def _map_images(data: tf.data.Dataset, images: tuple, function: Any) -> tf.data.Dataset:
    """Apply `function` to the images of x."""

    def one(is_image: bool, value: tf.Tensor) -> tf.Tensor:
        return function(value) if is_image else value

    if not any(keras.tree.flatten(images[0])):
        return data
    return data.map(
        lambda x, y: (keras.tree.map_structure(one, images[0], x), y),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _resized(
    data: tf.data.Dataset, images: tuple, image_size: tuple[int, int]
) -> tf.data.Dataset:
    if not any(keras.tree.flatten(images[0])):
        raise ValueError(
            f"image_size={tuple(image_size)}, but x has no image. Leave it out, or "
            "name the image in `features`."
        )
    if any(keras.tree.flatten(images[1])):
        raise ValueError(
            f"image_size={tuple(image_size)}, but y is an image too, and resizing "
            "would blur its classes. Resize both yourself, out of tfds.load."
        )
    size = tuple(int(each) for each in image_size)
    return _map_images(data, images, lambda image: tf.image.resize(image, size))


def _check_shapes(data: tf.data.Dataset, keys: tuple, images: tuple) -> None:
    flat = (keras.tree.flatten(each) for each in (keys, images, data.element_spec))
    for key, is_image, spec in zip(*flat, strict=True):
        if spec.shape.is_fully_defined():
            continue
        how = "Name another feature, or pad it yourself, out of tfds.load."
        if is_image:
            how = "Pass image_size=(height, width)."
        raise ValueError(
            f"The examples of {key!r} differ in size, {spec.shape}, and cannot be "
            f"batched. {how}"
        )


def _bytes(data: tf.data.Dataset, text: int) -> int:
    """Return about how many bytes all examples take; `text` is that of all strings."""
    specs = keras.tree.flatten(data.element_spec)
    numeric = [spec for spec in specs if spec.dtype != tf.string]
    example = sum(
        np.prod(spec.shape.as_list(), dtype="int64") * spec.dtype.size
        for spec in numeric
    )
    return int(example) * len(data) + (text if len(numeric) < len(specs) else 0)
