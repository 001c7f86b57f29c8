"""cache_features: one pass in order, stored and reused."""

import json
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_transfer.backbones import cache_features
from keras_transfer.backbones import feature_cache
from keras_transfer.backbones import features
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.backbones.fingerprint import of_network
from keras_transfer.backbones.fingerprint import RowDigest
from tests import tiny
from tests.contracts.compare import assert_close
from tests.public import ROOT

CALLS = []  # the batch sizes of all runs of Counting
TRACES = []  # one entry for each trace of Counting


@keras.saving.register_keras_serializable(package="tests")
class Counting(keras.layers.Layer):
    """A layer that records each run of the compiled graph, and not only the traces."""

    def call(self, x):
        TRACES.append(1)

        def note(value):
            CALLS.append(len(value))
            return value

        y = tf.numpy_function(note, [x], tf.float32)
        y.set_shape(x.shape)
        return y

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_BATCHES", 2)
    CALLS.clear()


def network(dropout=0.0, seed=0):
    """Return a network from 6 to 4 numbers, with layers that differ in training."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            Counting(),
            layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed)),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
        ]
    )


def arrays(count=22):
    x = np.random.default_rng(0).normal(size=(count, 6)).astype("float32")
    return x, np.arange(count)


def dataset(count=22, batch=4):
    return tf.data.Dataset.from_tensor_slices(arrays(count)).batch(batch)


def cache(backbone, data, path=None, **kwargs):
    return cache_features(backbone, data, path, **dict(verbose=0) | kwargs)


def all_of(cached):
    """Return the examples of a cache as one batch."""
    return next(cached.batch(1000).as_numpy_iterator())


def token_network():
    """Return a network from token ids to rows with a Keras mask."""
    inputs = keras.Input((5,), dtype="int32")
    return keras.Model(inputs, layers.Embedding(9, 3, mask_zero=True)(inputs))


IDS = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0], [6, 7, 8, 1, 2]], "int32")


@pytest.fixture(params=["memory", "shards"])
def place(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "features"


def test_rows_in_order_with_the_last_partial_batch(place):
    backbone = network()
    x, y = arrays()
    cached = cache(backbone, dataset(), place)
    assert CALLS == [4, 4, 4, 4, 4, 2]
    assert int(cached.cardinality()) == 22
    stored, label, weight = all_of(cached)
    assert_close(stored, backbone(x), atol=1e-6)
    assert_close([label, weight], [y, np.ones(22, "float32")])
    assert len(CALLS) == 7  # reading the cache ran nothing


def test_equals_a_live_frozen_backbone_with_dropout_off(place):
    backbone = FrozenBackbone(network(dropout=0.5))
    before = backbone.get_weights()
    stored = all_of(cache(backbone, dataset(), place))[0]
    assert_close(stored, backbone(arrays()[0], training=True), atol=1e-6)
    live = backbone.layer(arrays()[0], training=True)
    assert np.abs(stored - live.numpy()).max() > 0.1  # the backbone has dropout
    backbone.layer.set_weights(before)


def test_statistics_do_not_change(place):
    backbone = network()
    before = backbone.get_weights()
    cache(backbone, dataset(), place)
    assert_close(backbone.get_weights(), before)


def test_pairs_survive_shuffling(place):
    backbone = network()
    cached = cache(backbone, dataset(), place)
    shuffled = cached.shuffle(22, seed=1)
    expected = backbone(arrays()[0]).numpy()
    for _ in range(2):
        stored, label, _ = all_of(shuffled)
        assert list(label) != list(range(22)) and set(label) == set(range(22))
        assert_close(stored, expected[label], atol=1e-6)


def test_weights_and_structures_of_labels_are_kept(place):
    x, y = arrays()
    labels = {"a": y, "b": np.eye(22, dtype="float32")}
    weight = {"a": np.linspace(0, 1, 22, dtype="float32"), "b": y * 0.5}
    stored = all_of(cache(network(), (x, labels, weight), place, batch_size=5))
    assert_close(stored[1:], (labels, weight))


def test_arrays_are_batched_and_one_function_is_traced():
    backbone = network()
    TRACES.clear()
    cache(backbone, arrays(), batch_size=8)
    assert CALLS == [8, 8, 6]
    assert len(TRACES) == 1


def test_masks_are_stored_next_to_the_output(place):
    backbone = token_network()
    stored, _, _ = all_of(cache(backbone, (IDS, np.arange(3)), place, batch_size=2))
    assert_close(stored["output"], backbone(IDS))
    assert (stored["mask"] == (IDS != 0)).all()
    # A FrozenBackbone passes the mask on.
    frozen, _, _ = all_of(cache(FrozenBackbone(backbone), (IDS, np.arange(3))))
    assert (frozen["mask"] == (IDS != 0)).all()


def test_a_mask_of_one_of_several_outputs_has_its_name(place):
    inputs = keras.Input((5,), dtype="int32")
    rows = layers.Embedding(9, 3, mask_zero=True)(inputs)
    other = layers.Embedding(9, 2)(inputs)
    backbone = keras.Model(inputs, {"other": other, "rows": rows})
    stored, _, _ = all_of(cache(backbone, (IDS, np.arange(3)), place))
    assert set(stored) == {"output", "mask"} and list(stored["mask"]) == ["rows"]
    assert_close(stored["output"], backbone(IDS))
    assert (stored["mask"]["rows"] == (IDS != 0)).all()


def tokens(count=7):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 60, (count, 12)).astype("int32")
    mask = (np.arange(12) < rng.integers(3, 12, (count, 1))).astype("int32")
    return dict(token_ids=ids, segment_ids=ids * 0, padding_mask=mask)


def test_dictionaries_of_inputs_and_outputs(place):
    backbone = tiny.bert(num_layers=1)
    x = tokens()
    stored, _, _ = all_of(cache(backbone, (x, np.arange(7)), place, batch_size=3))
    assert set(stored) == {"sequence_output", "pooled_output"}
    assert_close(stored, backbone(x, training=False), atol=1e-6)


def test_a_list_of_outputs_becomes_a_tuple(place):
    inputs = keras.Input((6,))
    backbone = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    stored, _, _ = all_of(cache(backbone, arrays(), place))
    assert isinstance(stored, tuple)
    assert_close(stored, backbone(arrays()[0]), atol=1e-6)


def test_bfloat16_keeps_its_bits(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    keras.config.set_dtype_policy("float32")
    in_memory = all_of(cache(backbone, arrays()))[0]
    on_disk = all_of(cache(backbone, arrays(), tmp_path / "f"))[0]
    assert on_disk.dtype == in_memory.dtype == tf.bfloat16.as_numpy_dtype
    assert (on_disk == in_memory).all()


def test_one_vector_per_text_of_any_length():
    # Batches that are padded to different lengths have features of the same shape.
    x = tokens()
    backbone = features(tiny.bert(num_layers=1))

    def batches():
        for part, length in ((slice(0, 4), 12), (slice(4, 7), 11)):
            yield {k: v[part, :length] for k, v in x.items()}, np.arange(7)[part]

    spec = {k: tf.TensorSpec([None, None], "int32") for k in x}
    data = tf.data.Dataset.from_generator(
        batches, output_signature=(spec, tf.TensorSpec([None], "int64"))
    )
    stored, _, _ = all_of(cache(backbone, data))
    assert_close(stored, backbone(x, training=False), atol=1e-5)


def test_features_of_different_shapes_raise(tmp_path):
    inputs = keras.Input((None, 2))
    backbone = keras.Model(inputs, layers.Dense(3)(inputs))
    data = tf.data.Dataset.from_generator(
        lambda: ((np.ones((2, n, 2)), np.ones(2)) for n in (4, 5)),
        output_signature=(tf.TensorSpec([None, None, 2]), tf.TensorSpec([None])),
    )
    with pytest.raises(ValueError, match="Pad all batches to the same length"):
        cache(backbone, data, tmp_path / "f")


def test_reuse_runs_nothing_for_any_batch_size(tmp_path):
    expected = all_of(cache(network(), dataset(), tmp_path / "f"))
    CALLS.clear()
    # A second build of the same network, with other default names of its layers.
    again = network()
    for data in (dataset(), dataset(batch=5), arrays()):
        assert_close(all_of(cache(again, data, tmp_path / "f")), expected)
    assert CALLS == []


class Killed(Exception):
    pass


def killed_after(batches):
    """Return the dataset and a version that raises an error after some batches."""

    def fail(index, x, y):
        def check(index):
            if index >= batches and fail.armed:
                raise Killed
            return index

        index = tf.numpy_function(check, [index], tf.int64)
        with tf.control_dependencies([index]):
            return tf.identity(x), tf.identity(y)

    fail.armed = True
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(4).enumerate()
    return data.map(lambda i, xy: fail(i, *xy)), fail


def test_a_killed_run_continues_at_the_same_place(tmp_path):
    data, switch = killed_after(batches=5)
    with pytest.raises(tf.errors.UnknownError, match="Killed"):
        cache(network(), data, tmp_path / "f")
    assert CALLS == [4] * 5
    index = json.loads((tmp_path / "f" / "index.json").read_text())
    assert [entry["rows"] for entry in index["shards"]] == [8, 8]
    assert index["complete"] is False
    CALLS.clear()
    switch.armed = False
    cached = cache(network(), data, tmp_path / "f")
    assert CALLS == [4, 2]  # not the 16 rows of the finished shards
    assert_close(all_of(cached), all_of(cache(network(), dataset())))


def test_resuming_with_another_batch_size(tmp_path):
    data, _ = killed_after(batches=5)
    with pytest.raises(tf.errors.UnknownError, match="Killed"):
        cache(network(), data, tmp_path / "f")
    CALLS.clear()
    cached = cache(network(), dataset(batch=9), tmp_path / "f")
    assert CALLS == [2, 4]  # 16 rows are 9 and 7 of the next 9
    assert_close(all_of(cached)[0], network()(arrays()[0]), atol=1e-6)


def changed_label():
    x, y = arrays()
    return x, np.where(y == 21, 0, y)


def changed_input():
    x, y = arrays()
    x[9, 3] += 1e-6
    return x, y


@pytest.mark.parametrize(
    "data, match",
    [
        (changed_input(), "shard-00001.safetensors are not the same"),
        (changed_label(), "shard-00002.safetensors are not the same"),
        ([each[::-1] for each in arrays()], "shard-00000"),
        ([each[:21] for each in arrays()], "shard-00002"),
        ([each[:16] for each in arrays()], "shard-00002"),
        (arrays(23), "not the same|more than its 22 examples"),
    ],
    ids=["input", "label", "order", "fewer", "shards fewer", "more"],
)
def test_a_cache_of_other_data_is_stale(tmp_path, data, match):
    if len(data[0]) == 23:  # otherwise the first 22 would differ too
        data = [np.concatenate([a, b[-1:]]) for a, b in zip(arrays(), data)]
    cache(network(), dataset(), tmp_path / "f")
    before = contents(tmp_path / "f")
    with pytest.raises(ValueError, match=f"stale.*({match})"):
        cache(network(), data, tmp_path / "f")
    assert contents(tmp_path / "f") == before


def test_a_cache_of_another_backbone_is_stale(tmp_path):
    backbone = network()
    cache(backbone, dataset(), tmp_path / "f")
    before = contents(tmp_path / "f")
    with pytest.raises(ValueError, match="stale: it was made with another backbone"):
        cache(network(seed=1), dataset(), tmp_path / "f")
    with pytest.raises(ValueError, match="stale: it was made with another backbone"):
        cache(network(dropout=0.1), dataset(), tmp_path / "f")
    backbone.weights[-1].assign(backbone.weights[-1] + 1e-6)
    with pytest.raises(ValueError, match="stale: it was made with another backbone"):
        cache(backbone, dataset(), tmp_path / "f")
    assert contents(tmp_path / "f") == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_fingerprint_depends_on_the_computation():
    def made(activation="relu", name=None):
        inputs = keras.Input((6,))
        x = layers.Dense(4, activation, kernel_initializer="ones", name=name)(inputs)
        return keras.Model(inputs, x)

    assert of_network(made()) == of_network(made()) == of_network(made(name="own"))
    assert of_network(made()) != of_network(made("tanh"))  # no weight differs
    frozen = made()
    frozen.trainable = False
    assert of_network(frozen) == of_network(made())


def test_a_digest_depends_on_order_and_not_on_batches():
    def digest(array, cut):
        rows = RowDigest()
        rows.update({"x": array[:cut]})
        rows.update({"x": array[cut:]})
        return rows.value()

    for array in (arrays()[0], np.array([b"a", b"bc", b"d"], object)):
        assert digest(array, 1) == digest(array, 2)
        assert digest(array, 1) != digest(array[::-1], 1)
    words = [np.array(w, object) for w in (["ab", "c"], ["a", "bc"])]
    assert digest(words[0], 1) != digest(words[1], 1)


@pytest.mark.parametrize("name", ["notes.txt", "index.json", "shard-00000.safetensors"])
def test_a_folder_that_is_not_a_cache_raises(tmp_path, name):
    (tmp_path / name).write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="is not a feature cache"):
        cache(network(), dataset(), tmp_path)
    assert contents(tmp_path) == {name: b'{"format": "other"}'}
    assert CALLS == []


def test_a_file_or_a_damaged_shard_raises(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        cache(network(), dataset(), tmp_path / "file")
    cache(network(), dataset(), tmp_path / "f")
    shard = tmp_path / "f" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged: shard-00001"):
        cache(network(), dataset(), tmp_path / "f")
    shard.unlink()
    with pytest.raises(ValueError, match="damaged: shard-00001"):
        cache(network(), dataset(), tmp_path / "f")


# The current partial file, and the partial file of version 0.1.0.
@pytest.mark.parametrize("partial", [".index.json.0a.partial", "index.json.tmp"])
def test_a_kill_before_the_first_index_leaves_a_usable_folder(partial, tmp_path):
    (tmp_path / partial).write_text("{")
    assert len(cache(network(), dataset(), tmp_path)) == 22
    assert sorted(contents(tmp_path)) == ["index.json"] + [
        f"shard-0000{i}.safetensors" for i in range(3)
    ]


def pairs():
    yield arrays()


def read_once():
    generator = pairs()
    spec = tf.TensorSpec([None, 6]), tf.TensorSpec([None], "int64")
    return tf.data.Dataset.from_generator(lambda: generator, output_signature=spec)


X, Y = arrays()


@pytest.mark.parametrize(
    "data, error, match",
    [
        (dataset().repeat(), ValueError, "infinite"),
        (dataset().take(0), ValueError, "empty"),
        ((X[:0], Y[:0]), ValueError, "empty"),
        (tf.data.Dataset.from_tensor_slices((X, Y)), ValueError, "not batched"),
        (tf.data.Dataset.from_tensor_slices((X, X)), ValueError, "not batched"),
        (pairs(), TypeError, "is a generator"),
        (X, TypeError, "is a ndarray"),
        (read_once(), ValueError, "empty when read a second time"),
        (dataset().map(lambda x, y: x), ValueError, "no labels"),
        ((X, None), ValueError, "no labels"),
        ((X, Y[:5]), ValueError, "different numbers of rows"),
        ((X, list(Y)), TypeError, "np.asarray"),
        ((X, Y.astype(str)), TypeError, "dtype <U21"),
        (dataset().map(lambda x, y: (x, tf.as_string(y))), TypeError, "dtype object"),
        (
            dataset().map(lambda x, y: (tf.RaggedTensor.from_tensor(x), y)),
            TypeError,
            "RaggedTensorSpec",
        ),
    ],
)
def test_bad_data_raises_before_the_backbone_runs(tmp_path, data, error, match):
    with pytest.raises(error, match=match):
        cache(network(), data, tmp_path / "f")
    assert CALLS == [] and not (tmp_path / "f").exists()


def test_a_dataset_that_ends_before_its_length_raises(tmp_path):

    def slow(row, label):
        tf.numpy_function(lambda: time.sleep(0.01), [], [])
        return row, label

    # The first batch is read before the others, which cancels `prefetch`.
    data = tf.data.Dataset.from_tensor_slices(arrays()).map(slow).prefetch(2).cache()
    with pytest.raises(ValueError, match="of 6 batches.* Put `.cache"):
        cache(network(), data.batch(4).prefetch(2), tmp_path / "f")
    assert cache(network(), dataset(), tmp_path / "f").cardinality() == 22


def test_bad_backbones_and_batch_sizes_raise():
    with pytest.raises(TypeError, match="Pass its `.backbone`"):
        cache(tiny.bert_classifier(num_layers=1), dataset())
    with pytest.raises(ValueError, match="not built"):
        cache(keras.Sequential([layers.Dense(2)]), dataset())
    with pytest.raises(ValueError, match="batch_size=0"):
        cache(network(), arrays(), batch_size=0)
    flat = keras.Model(inputs := keras.Input((6,)), keras.ops.reshape(inputs, (-1,)))
    with pytest.raises(ValueError, match="one row for each example"):
        cache(flat, dataset())


@pytest.mark.parametrize("upstream", ["augmentation", "shuffle"])
def test_random_data_before_the_cache_gives_a_warning(upstream):
    data = dataset().shuffle(10)
    if upstream == "augmentation":
        data = dataset().map(lambda x, y: (x + tf.random.normal(tf.shape(x)), y))
    with pytest.warns(UserWarning, match="augments or shuffles at random") as caught:
        cached = cache_features(network(), data, verbose=0)
    assert caught[0].filename == __file__.replace(".pyc", ".py")
    assert len(cached) == 22


def test_a_parallel_dataset_is_read_in_order():
    data = dataset(batch=1).map(lambda x, y: (x, y), num_parallel_calls=4)
    options = tf.data.Options()
    options.deterministic = False
    stored = all_of(cache(network(), data.with_options(options)))
    assert list(stored[1]) == list(range(22))


def test_a_shard_ends_at_its_maximum_size(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 4 * 4 * 4)  # one batch
    cache(network(), dataset(), tmp_path / "f")
    assert len(list((tmp_path / "f").glob("shard-*"))) == 6


def test_the_progress_bar_counts_batches(capsys):
    cache(network(), dataset(), verbose=1)
    assert "6/6" in capsys.readouterr().out
    cache(network(), dataset(), verbose=0)
    assert capsys.readouterr().out == ""


def test_a_subclassed_model_can_be_cached(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    backbone = Own()
    expected = backbone(arrays()[0])
    for _ in range(2):
        stored = all_of(cache(backbone, dataset(), tmp_path / "f"))[0]
        assert_close(stored, expected, atol=1e-6)


@pytest.mark.slow
def test_two_replicas_train_from_shards(tmp_path, strategy):
    cached = cache(network(), dataset(), tmp_path / "f")
    with strategy.scope():
        head = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
        head.compile("sgd", "mse", jit_compile=False)
    history = head.fit(
        cached.shuffle(22, seed=0).batch(8), epochs=2, shuffle=False, verbose=0
    )
    assert history.history["loss"][1] < history.history["loss"][0]


def test_a_new_process_reads_the_cache(tmp_path):
    expected = all_of(cache(plain(), dataset(), tmp_path / "f"))[0]
    plain().save(tmp_path / "plain.keras")
    code = f"""
import keras, numpy as np, keras_transfer as kt
backbone = keras.saving.load_model({str(tmp_path / "plain.keras")!r}, compile=False)
x = np.random.default_rng(0).normal(size=(22, 6)).astype("float32")
cached = kt.backbones.cache_features(
    backbone, (x, np.arange(22)), {str(tmp_path / "f")!r}, verbose=0
)
np.save({str(tmp_path / "stored.npy")!r}, np.stack([f for f, _, _ in cached]))
"""
    before = contents(tmp_path / "f")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)
    assert_close(np.load(tmp_path / "stored.npy"), expected)
    assert contents(tmp_path / "f") == before


def plain():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, kernel_initializer="ones")]
    )
