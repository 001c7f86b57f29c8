"""from_tfds, which loads texts or images of TensorFlow Datasets for `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data.few_labels import few_labels

# Largest dataset to keep in memory, and largest shuffle buffer.
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
    """Return a split of a TensorFlow dataset as batches `(x, y)` for `fit`.

    Texts stay strings, which a keras-hub Task or preprocessor accepts. Images become
    float32 without rescaling, so uint8 images keep the range [0, 255]. This is the
    input range of `preprocess_input` in `keras.applications`, of the image converters
    in keras-hub, and of a `Rescaling` layer. A split of up to 1 GiB is kept in memory
    after the first pass. The next batches are prepared while a model trains.

    With `shuffle`, each epoch has another order, and the orders are the same in each
    run. The orders also depend on the global seed of TensorFlow, for example from
    `keras.utils.set_random_seed`. A resumed run starts again with the first order. A
    split in memory is shuffled completely, and a larger split with a buffer of 1 GiB.
    Do not use `shuffle` for evaluation or for `kt.backbones.cache_features`. Shuffle
    the dataset that `cache_features` returns instead.

    Args:
        name: Name of a dataset in the catalog, such as "imdb_reviews" or "glue/sst2",
            or a `tfds.core.DatasetBuilder`, such as
            `tfds.builder(name, data_dir=folder)` or a custom builder. The dataset is
            downloaded and prepared if necessary.
        split: String, the part of the dataset, such as "train", "test" or
            "train[:80%]".
        features: Names of the features for x and y, such as `("sentence", "label")`.
            For a pair of texts, `(("premise", "hypothesis"), "label")`. x can also be a
            dictionary. Defaults to `None`, the supervised keys of the dataset.
        image_size: Pair `(height, width)` in pixels. The images of x are resized to
            this size, as in `keras.layers.Resizing`. Defaults to `None`, which keeps
            the size. All images must then have the same size.
        batch_size: Integer of 1 or more, the number of examples in each batch. The last
            batch can be smaller. Defaults to 32.
        shuffle: Integer of 0 or more, the seed of the order, or `None` for the order of
            the files. Defaults to `None`.
        labels_per_class: Integer of 1 or more, the number of examples of each class to
            keep. They are selected by `kt.data.few_labels` with the seed `shuffle`, or
            with 0 if `shuffle` is `None`. To get the other examples without labels, or
            to use another seed, call `few_labels` yourself. Defaults to `None`, all
            examples.

    Returns:
        A `tf.data.Dataset` of batches with a known length.

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
        TypeError: If `name` or `split` is of another type, or examples are ragged.
        ValueError: If a split or a feature does not exist, the dataset has no
            supervised keys, the split is empty, examples differ in size, or another
            argument is not valid.

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
    # True for each key that is an image, in the structure of the keys.
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
        # If an iterator is left early, as in `take(1)`, TensorFlow cancels `prefetch`,
        # which ends without an error. The cache would keep that as the whole dataset.
        data = data.apply(tf.data.experimental.assert_cardinality(count)).cache()
    if shuffle is not None:
        fits = count if size <= CACHE_BYTES else max(1, CACHE_BYTES * count // size)
        data = data.shuffle(fits, seed=shuffle, reshuffle_each_iteration=True)
    # Cast images after the cache, because uint8 takes a quarter of the memory.
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
        why = "pass a seed, such as 0, or None for the order of the files"
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
    """Return `(x, y)` with the names of features instead of their values."""
    known = list(builder.info.features)
    keys = builder.info.supervised_keys if features is None else features
    if keys is None:
        raise ValueError(
            f"{builder.name} has no supervised keys, so x and y are not known. Pass "
            f"features=(x, y) with names from {known}."
        )
    if not isinstance(keys, tuple | list) or len(keys) != 2:
        raise ValueError(
            f"features={keys!r} must be a pair (x, y) with names from {known}. For "
            "pairs of texts, pass ((first, second), y)."
        )
    unknown = [key for key in keras.tree.flatten(keys) if key not in known]
    if unknown:
        raise ValueError(
            f"{builder.name} has no feature {unknown[0]!r}. Pass names from {known}."
        )
    return keras.tree.lists_to_tuples(tuple(keys))


def _read(builder: Any, split: Any, keys: tuple) -> tf.data.Dataset:
    """Return a dataset of known length with single examples in the order of files."""
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
            f"split={split!r} of {builder.name} cannot be read: {reason}. Use one of "
            f"the splits {list(builder.info.splits)}."
        ) from error
    data = data.map(
        lambda example: keras.tree.map_structure(lambda key: example[key], keys)
    )
    for spec in keras.tree.flatten(data.element_spec):
        if not isinstance(spec, tf.TensorSpec):
            raise TypeError(
                f"{builder.name} has a {type(spec).__name__} in {keys}, so its "
                "examples differ in length. Use other features, or map the dataset of "
                "tfds.load to dense tensors yourself."
            )
    count = int(data.cardinality())
    if count < 0:
        count = sum(1 for _ in data)
        data = data.apply(tf.data.experimental.assert_cardinality(count))
    if count == 0:
        raise ValueError(
            f"split={split!r} of {builder.name} is empty. Pass a larger split."
        )
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
            f"image_size={tuple(image_size)}, but x has no image. Leave out "
            "image_size, or name the image in `features`."
        )
    if any(keras.tree.flatten(images[1])):
        raise ValueError(
            f"image_size={tuple(image_size)}, but y is an image too, and resizing "
            "would blur its classes. Load with tfds.load and resize both yourself."
        )
    size = tuple(int(each) for each in image_size)
    return _map_images(data, images, lambda image: tf.image.resize(image, size))


def _check_shapes(data: tf.data.Dataset, keys: tuple, images: tuple) -> None:
    flat = (keras.tree.flatten(each) for each in (keys, images, data.element_spec))
    for key, is_image, spec in zip(*flat, strict=True):
        if spec.shape.is_fully_defined():
            continue
        how = "Use another feature, or load with tfds.load and pad it yourself."
        if is_image:
            how = "Pass image_size=(height, width)."
        raise ValueError(
            f"The examples of {key!r} differ in size, {spec.shape}, so they cannot be "
            f"batched. {how}"
        )


def _bytes(data: tf.data.Dataset, text: int) -> int:
    """Return the approximate bytes of all examples. `text` is the bytes of strings."""
    specs = keras.tree.flatten(data.element_spec)
    numeric = [spec for spec in specs if spec.dtype != tf.string]
    example = sum(
        np.prod(spec.shape.as_list(), dtype="int64") * spec.dtype.size
        for spec in numeric
    )
    return int(example) * len(data) + (text if len(numeric) < len(specs) else 0)
