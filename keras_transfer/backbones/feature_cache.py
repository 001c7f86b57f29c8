"""cache_features: run a backbone once and keep its features."""

import os
from collections.abc import Callable
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer.backbones.feature_rows import ArrayBatches
from keras_transfer.backbones.feature_rows import check_first
from keras_transfer.backbones.feature_rows import compare
from keras_transfer.backbones.feature_rows import count
from keras_transfer.backbones.feature_rows import Rows
from keras_transfer.backbones.feature_rows import triple
from keras_transfer.backbones.feature_shards import row_of
from keras_transfer.backbones.feature_shards import Shards
from keras_transfer.backbones.feature_shards import template_of
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.fingerprint import of_network
from keras_transfer.backbones.fingerprint import RowDigest
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.short_texts import ShortTexts
from keras_transfer.backbones.stitch import inputs_of
from keras_transfer.backbones.stitch import with_masks

# A shard ends at the first of these limits. If the process is killed, at most one shard
# is lost.
SHARD_BATCHES = 16
SHARD_BYTES = 2**26


def cache_features(
    backbone: keras.Model | FrozenBackbone,
    dataset: tf.data.Dataset | tuple,
    path: str | os.PathLike | None = None,
    *,
    batch_size: int = 32,
    verbose: int = 1,
) -> tf.data.Dataset:
    """Run a backbone once over a dataset and return a dataset of its features.

    A frozen backbone computes the same features in each epoch, and this takes nearly
    all of the training time. With cached features, `E` epochs of a head cost one pass
    of the backbone instead of `E`. Train the head on `cached.shuffle(n).batch(b)`. Pass
    `shuffle=False` to `fit`, because Keras warns of `shuffle=True` with a dataset. Then
    join head and backbone with `kt.backbones.stitch`.

    The backbone runs batch by batch, in the order of the dataset, in one compiled
    function, on the accelerator if there is one. It runs in inference mode: dropout is
    off and no statistic changes. The last batch may be smaller. Each element of the
    returned dataset is one example `(features, label, weight)`, because you shuffle
    and batch after the cache. The weight is 1 if the dataset has no weights. The
    returned dataset is finite and has a known cardinality.

    The features have the structure of the backbone's outputs, including dictionaries
    (lists become tuples). If an output has a Keras mask, the features are a dictionary
    `{"output": ..., "mask": ...}`, and the head needs two inputs with these names. The
    mask is a tensor for a single output, or else a dictionary by output name. Most
    heads need one vector: cache `kt.backbones.features(backbone)`.

    Padding of texts is not computed. Where each input is rows of tokens, one of them is
    named `padding_mask`, and the features are vectors, texts of similar length run
    together, cut to the longest of them, up to 16 batches at once. The features come in
    the order of the dataset. The first such batch also runs uncut, and if the features
    differ (by 1e-5 in float32), nothing is cut.

    With `path` the features are written to shards in this folder and read one shard at
    a time. If the process is killed, call the function again with the same arguments:
    it keeps the finished shards. If the cache is complete, the backbone does not run at
    all. Each call reads the dataset once. It compares the examples, labels and weights
    of each shard, and the config and weights of the backbone, with the fingerprints in
    the folder. The batch size may change. Only one process may write to a folder at a
    time.

    The cache fixes everything before it. Random augmentation before the cache gives
    one fixed variant of each image. A shuffle before the cache gives one fixed order,
    and with `path` a later call finds another order and fails. The function warns of
    both if two passes over the dataset differ in their first batch. Do not train the
    backbone while you use its cache.

    Args:
        backbone: Built `keras.Model` or `FrozenBackbone`, such as
            `kt.backbones.features(...)`. It is not changed.
        dataset: Batched `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)`, or a
            tuple of arrays, or structures of arrays, in this order. Labels and weights
            are numbers. The dataset must be finite, which cannot be checked if its
            length is unknown.
        path: String or path, the folder for the shards: a new folder, or the folder of
            this cache. Defaults to `None`, which keeps the features in memory.
        batch_size: Integer, the number of examples in a batch, for arrays. Defaults to
            32.
        verbose: 1 for a progress bar, 0 for no output, 2 for one line at the end.
            Defaults to 1.

    Returns:
        A `tf.data.Dataset` of single examples.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        x, y = np.ones((10, 4), "float32"), np.arange(10)
        cached = kt.backbones.cache_features(backbone, (x, y), "features", verbose=0)
        assert len(cached) == 10
        head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        head.compile("adam", "mse")
        head.fit(cached.shuffle(10).batch(4), epochs=2, shuffle=False, verbose=0)
        ```

    Raises:
        TypeError: If the backbone is not a model, if the dataset cannot be read twice
            (such as a generator), or if labels are not numbers.
        ValueError: If the dataset is infinite, empty, not batched or without labels,
            if examples differ in the shape of their features, or if the folder `path`
            is stale, is damaged or is not a feature cache. Nothing is overwritten.

    Reference:
        Donahue et al., 2014, "DeCAF: A Deep Convolutional Activation Feature for
        Generic Visual Recognition", arXiv 1310.1531; Keras, "Transfer learning &
        fine-tuning", keras.io/guides (compute the features once).
    """
    network = unwrap(backbone)
    if not network.built:
        raise ValueError(
            f"The backbone '{network.name}' is not built, so it has no weights yet. "
            "Call the backbone on a batch, or load its weights."
        )
    source = _source(dataset, batch_size)
    first = check_first(source.begin_twice(), inputs_of(network))
    folder = None if path is None else Shards(path, of_network(network))
    rows = Rows(source, keras.utils.Progbar(source.batches, verbose=verbose))
    chunks = []
    if folder is not None:
        compare(folder, rows)
    if folder is None or not folder.complete:
        template = None if folder is None else folder.template
        for structure, data in _chunks(_forward(network, first[0]), rows, template):
            if folder is None:
                chunks.append(structure)
            else:
                folder.add(structure, data)
        if folder is not None:
            folder.finish()
    rows.close()
    if folder is not None:
        return _lazy(folder)
    return tf.data.Dataset.from_tensor_slices(_join(chunks))


class _DatasetBatches:
    """The batches of a tf.data.Dataset as triples of arrays, in a fixed order."""

    def __init__(self, dataset: tf.data.Dataset):
        spec = dataset.element_spec
        if not isinstance(spec, tuple):
            spec = (spec,)
        triple(spec)
        for leaf in keras.tree.flatten(spec):
            if not isinstance(leaf, tf.TensorSpec):
                raise TypeError(
                    f"The dataset has a {type(leaf).__name__}, but a cache contains "
                    "only dense arrays. Make it dense, for example with "
                    "`.to_tensor()`."
                )
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "The dataset is infinite, so the cache would never end. Leave out "
                "`.repeat()`, or limit the dataset with `.take(steps)`."
            )
        options = tf.data.Options()
        options.deterministic = True
        self.dataset = dataset.with_options(options)
        cardinality = int(dataset.cardinality())
        self.batches = cardinality if cardinality >= 0 else None

    def begin_twice(self) -> list[tuple]:
        """Return the first batch of two passes."""
        # With a global seed, two iterators give the same random numbers. The second
        # pass of a repeated dataset does not.
        twice = self.dataset.take(1).repeat(2)
        return [triple(batch) for batch in twice.as_numpy_iterator()]

    def __iter__(self) -> Iterator[tuple]:
        read = 0
        for batch in self.dataset.as_numpy_iterator():
            read += 1
            yield triple(batch)
        if self.batches not in (None, read):
            raise ValueError(
                f"The dataset ended after {read} of {self.batches} batches. TensorFlow "
                "can cut `.prefetch(n).cache()` short when a pass ends early, such as "
                "`.take(1)`. Put `.cache()` before `.prefetch(n)`."
            )


def _source(dataset: object, batch_size: int) -> _DatasetBatches | ArrayBatches:
    if isinstance(dataset, tf.data.Dataset):
        return _DatasetBatches(dataset)
    if isinstance(dataset, tuple | list):
        return ArrayBatches(dataset, batch_size)
    raise TypeError(
        f"The dataset is a {type(dataset).__name__}, but cache_features must read it "
        "more than once, in order. Pass a batched tf.data.Dataset of (x, y) or (x, y, "
        "sample_weight), or a tuple of arrays. For a generator, pass a function that "
        "returns a new generator to tf.data.Dataset.from_generator."
    )


def _forward(network: keras.Model, example: object) -> Callable:
    """Return the network in inference as one compiled function of any batch size."""
    texts = ShortTexts.serves(network, example)
    run, by_shape = _keras.inference(network, _finish, example, any_length=texts)
    return ShortTexts(network, run, powers=by_shape) if texts else run


def _finish(outputs: object) -> object:
    return keras.tree.lists_to_tuples(with_masks(outputs))


def _chunks(
    forward: Callable, rows: Rows, template: object
) -> Iterator[tuple[tuple, str]]:
    """Yield the features, labels and weights of a shard, and their fingerprint."""
    texts = isinstance(forward, ShortTexts)
    while rows.peek() is not None:
        digest = RowDigest()
        pieces = []
        size = 0
        while len(pieces) < SHARD_BATCHES and size < SHARD_BYTES and rows.peek():
            x, *rest = rows.take()
            digest.update((x, *rest))
            pieces.append((x if texts else forward(x), *rest))
            size += sum(map(_num_bytes, keras.tree.flatten(pieces[-1][0])))
        if texts:  # of several batches, so texts of one length are together
            features = forward.features([piece[0] for piece in pieces])
            pieces = [
                (each, *rest) for each, (_, *rest) in zip(features, pieces, strict=True)
            ]
        for piece in pieces:
            template = template or template_of(piece)
            _check_piece(piece, template, count(piece[1:]))
        # Copied only here, so an accelerator does not wait after each batch.
        yield _join(pieces), digest.value()


def _num_bytes(x: object) -> int:
    if isinstance(x, tf.Tensor):
        return x.shape.num_elements() * x.dtype.size
    return x.nbytes


def _check_piece(piece: tuple, template: tuple, rows: int) -> None:
    shapes = [tuple(x.shape) for x in keras.tree.flatten(piece[0])]
    if any(shape[:1] != (rows,) for shape in shapes):
        raise ValueError(
            f"The backbone returns the shapes {shapes} for {rows} examples, but "
            "features need one row for each example. Use a backbone whose first output "
            "axis is the batch."
        )
    structure = template_of(piece)
    if structure != template:
        raise ValueError(
            f"Examples differ in their features, labels or weights: this batch has "
            f"{structure}, earlier batches {template} (dtype:shape). Pad all batches "
            "to the same length, or pool with kt.backbones.features(backbone)."
        )


def _join(pieces: list[tuple]) -> tuple:
    return keras.tree.map_structure(
        lambda *arrays: np.concatenate([_array(array) for array in arrays]), *pieces
    )


def _array(x: object) -> np.ndarray:
    return x.numpy() if isinstance(x, tf.Tensor) else np.asarray(x)


def _lazy(folder: Shards) -> tf.data.Dataset:
    """Return a dataset of single examples that reads one shard after another."""
    signature = keras.tree.map_structure(
        lambda leaf: tf.TensorSpec([None, *row_of(leaf)[1]], row_of(leaf)[0]),
        folder.template,
    )
    shards = tf.data.Dataset.from_generator(
        lambda: map(folder.read, range(len(folder.entries))),
        output_signature=signature,
    )
    counted = tf.data.experimental.assert_cardinality(folder.rows)
    return shards.unbatch().apply(counted)
