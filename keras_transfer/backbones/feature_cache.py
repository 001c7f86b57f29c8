"""cache_features: the backbone runs once, and its features are kept."""

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
from keras_transfer.backbones.stitch import inputs_of
from keras_transfer.backbones.stitch import with_masks

# A shard ends at the first of these. A kill loses one shard of work at most.
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

    A frozen backbone computes the same features in each epoch, and they cost nearly
    all of its time. With them kept, `E` epochs of a head cost one pass of the
    backbone, not `E`. Train the head on `cached.shuffle(n).batch(b)`, then put it
    back with `kt.backbones.stitch`. (Keras warns of `shuffle=True` beside any
    dataset; give `fit` `shuffle=False`.)

    The backbone runs batch by batch in one compiled function, on the accelerator if
    there is one, in the order of the dataset, at inference: dropout is off and no
    statistic moves. The last batch may be a partial one. The dataset that is
    returned has one example an element, for shuffling and batching come after the
    cache: `(features, label, weight)`, with weight 1 where none was given. It is
    finite and its cardinality is known.

    Features have the structure of the backbone's outputs, dictionaries included
    (lists become tuples). If an output carries a Keras mask they are a dictionary
    `{"output": ..., "mask": ...}`; the mask is a tensor for a single output, or else
    a dictionary by the name of the output. Give the head two inputs of these names.
    Most heads need one vector: cache `kt.backbones.features(backbone)`.

    With `path` the features are written there in shards as they come, and read
    lazily, a shard at a time. Call again with the same arguments after a kill, and
    the finished shards are kept; call again when all is done, and the backbone does
    not run at all. Either way the dataset is read once, and each shard's examples,
    labels and weights, and the backbone's config and weights, are compared with the
    fingerprints in the folder. Another batch size is no change. One process writes
    to a folder at a time.

    What is below the cache is fixed in it. Random augmentation keeps the one variant
    of each image that was drawn; a shuffle keeps its order, which another run with
    `path` will not meet again. Both are recognized, and warned of, if two passes over
    the dataset differ in their first batch. Thaw nothing of the backbone
    while its cache is used.

    Args:
        backbone: A built model or `FrozenBackbone`; such as
            `kt.backbones.features(...)`. It is not changed.
        dataset: A batched `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)`,
            or a tuple of arrays, or structures of arrays, in this order. Labels
            and weights are numbers. It must end: where its length is unknown, that
            cannot be checked.
        path: Folder for the shards, new or of this cache. Defaults to `None`: in
            memory.
        batch_size: Examples a batch, for arrays. Defaults to 32.
        verbose: 1 for a progress bar, 0 for none, 2 for a line at the end. Defaults
            to 1.

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
        TypeError: If the backbone is no model, the dataset is a generator or
            another thing that cannot be read twice, or labels are no numbers.
        ValueError: If the dataset is infinite, empty, not batched or without labels,
            if examples differ in the shape of their features, or if `path` is stale,
            damaged or belongs to something else. Nothing is overwritten.

    Reference:
        Donahue et al., 2014, "DeCAF: A Deep Convolutional Activation Feature for
        Generic Visual Recognition", arXiv 1310.1531; Keras, "Transfer learning &
        fine-tuning", keras.io/guides (features that are computed once).
    """
    network = unwrap(backbone)
    if not network.built:
        raise ValueError(
            f"The backbone '{network.name}' is not built, so it has no weights yet. "
            "Call it once on a batch, or load its weights."
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
    return tf.data.Dataset.from_tensor_slices(_joined(chunks))


class _DatasetBatches:
    """The batches of a tf.data.Dataset as triples of arrays, in fixed order."""

    def __init__(self, dataset: tf.data.Dataset):
        spec = dataset.element_spec
        if not isinstance(spec, tuple):
            spec = (spec,)
        triple(spec)
        for each in keras.tree.flatten(spec):
            if not isinstance(each, tf.TensorSpec):
                raise TypeError(
                    f"The dataset has a {type(each).__name__}, but a cache is of "
                    "dense arrays. Make it dense, such as by `.to_tensor()`."
                )
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "The dataset is infinite, so its features have no end. Leave "
                "`.repeat()` out, or limit it with `.take(steps)`."
            )
        options = tf.data.Options()
        options.deterministic = True
        self.dataset = dataset.with_options(options)
        cardinality = int(dataset.cardinality())
        self.batches = cardinality if cardinality >= 0 else None

    def begin_twice(self) -> list[tuple]:
        """Return the first batch of two passes."""
        # Under a global seed two iterators draw the same numbers; a repeat does not.
        twice = self.dataset.take(1).repeat(2)
        return [triple(batch) for batch in twice.as_numpy_iterator()]

    def __iter__(self) -> Iterator[tuple]:
        return map(triple, self.dataset.as_numpy_iterator())


def _source(dataset: object, batch_size: int) -> _DatasetBatches | ArrayBatches:
    if isinstance(dataset, tf.data.Dataset):
        return _DatasetBatches(dataset)
    if isinstance(dataset, tuple | list):
        return ArrayBatches(dataset, batch_size)
    raise TypeError(
        f"The dataset is a {type(dataset).__name__}. cache_features reads it more than "
        "once, in order: give a batched tf.data.Dataset of (x, y) or (x, y, "
        "sample_weight), or a tuple of arrays. tf.data.Dataset.from_generator takes a "
        "function that returns a new generator at each call."
    )


def _forward(network: keras.Model, example: object) -> Callable:
    """Return the network at inference as one compiled function of any batch size."""
    layers = _keras.flat_layers(network)
    # XLA pays on an accelerator only. Keras, too, leaves it out on a CPU.
    xla = bool(tf.config.list_physical_devices("GPU"))
    xla = xla and all(layer.supports_jit for layer in layers)

    @tf.function(jit_compile=xla, reduce_retracing=True)
    def forward(x: object) -> object:
        return keras.tree.lists_to_tuples(with_masks(network(x, training=False)))

    # All axes but the batch may still differ, so this only saves a second trace.
    signature = keras.tree.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), example
    )
    forward.get_concrete_function(signature)
    return lambda x: forward(keras.tree.map_structure(tf.convert_to_tensor, x))


def _chunks(
    forward: Callable, rows: Rows, template: object
) -> Iterator[tuple[tuple, str]]:
    """Yield the features, labels and weights of a shard, and their fingerprint."""
    while rows.peek() is not None:
        digest = RowDigest()
        pieces = []
        size = 0
        while len(pieces) < SHARD_BATCHES and size < SHARD_BYTES and rows.peek():
            x, *rest = rows.take()
            digest.update((x, *rest))
            piece = (forward(x), *rest)
            template = template or template_of(piece)
            _check(piece, template, count(rest))
            size += sum(
                tensor.shape.num_elements() * tensor.dtype.size
                for tensor in keras.tree.flatten(piece[0])
            )
            pieces.append(piece)
        # Only here, so that an accelerator need not wait after each batch.
        yield _joined(pieces), digest.value()


def _check(piece: tuple, template: tuple, rows: int) -> None:
    shapes = [tuple(x.shape) for x in keras.tree.flatten(piece[0])]
    if any(shape[:1] != (rows,) for shape in shapes):
        raise ValueError(
            f"The backbone gives {shapes} for {rows} examples, but features are rows: "
            "one for each example."
        )
    structure = template_of(piece)
    if structure != template:
        raise ValueError(
            f"Examples differ in their features, labels or weights: here {structure}, "
            f"before {template} (dtype:shape). Pad all batches to one length, or pool "
            "with kt.backbones.features(backbone)."
        )


def _joined(pieces: list[tuple]) -> tuple:
    return keras.tree.map_structure(
        lambda *x: np.concatenate([_array(each) for each in x]), *pieces
    )


def _array(x: tf.Tensor | np.ndarray) -> np.ndarray:
    return x.numpy() if isinstance(x, tf.Tensor) else x


def _lazy(folder: Shards) -> tf.data.Dataset:
    """Return single examples out of shards that are read one after the other."""
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
