"""domain_dataset: lengths, orders, balance, and errors."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data import domain_dataset
from keras_transfer.data import from_tfds
from keras_transfer.data import from_tsv

SOURCE = np.arange(20.0, dtype="float32").reshape(20, 1)
LABELS = np.arange(20) % 3
TARGET = 100 + np.arange(7.0, dtype="float32").reshape(7, 1)


def epoch(data):
    """Return the x of both domains and the labels of one epoch, batch by batch."""
    batches = list(data.as_numpy_iterator())
    pairs = [(x["source"].ravel(), x["target"].ravel()) for x, *_ in batches]
    source, target = zip(*pairs, strict=True)
    labels = [y for _, y, *_ in batches]
    return np.stack(source), np.stack(target), np.stack(labels)


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


def both(kind):
    """Return source and target as arrays or as datasets of single examples."""
    if kind == "arrays":
        return (SOURCE, LABELS), TARGET
    return dataset(SOURCE, LABELS), dataset(TARGET)


each_kind = pytest.mark.parametrize("kind", ["arrays", "datasets"])


@each_kind
@pytest.mark.parametrize("longer", ["source", "target"])
def test_an_epoch_is_one_pass_over_the_longer_domain(kind, longer):
    source, target = both(kind)
    if longer == "target":
        target, source = source, (TARGET, np.arange(7))
        target = target[0] if kind == "arrays" else target.map(lambda x, y: x)
    data = domain_dataset(source, target, 5)
    assert len(data) == 4
    of_source, of_target, _ = epoch(data)
    long, short = (of_source, of_target)[:: 1 if longer == "source" else -1]
    assert sorted(long.ravel()) == list(range(20))
    # 20 examples from 7 are two passes and 6 of a third, each in another order.
    passes = np.split(short.ravel(), [7, 14])
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(100, 107))
    assert len(set(passes[2])) == 6
    assert not np.array_equal(passes[0], passes[1])


@each_kind
def test_labels_stay_with_their_examples(kind):
    of_source, _, labels = epoch(domain_dataset(*both(kind), 5))
    assert np.array_equal(labels, of_source.astype(int) % 3)


@each_kind
def test_the_last_batch_is_filled_from_the_next_pass(kind):
    data = domain_dataset(*both(kind), 6)
    of_source, of_target, _ = epoch(data)
    assert of_source.shape == of_target.shape == (4, 6)
    assert sorted(of_source.ravel()[:20]) == list(range(20))
    shapes = [each.shape for each in keras.tree.flatten(data.element_spec)]
    assert [shape.as_list() for shape in shapes] == [[6, 1], [6, 1], [6]]


@each_kind
def test_epochs_differ_and_are_equal_in_each_run(kind):
    one, two = (domain_dataset(*both(kind), 5, seed=3) for _ in range(2))
    keras.utils.set_random_seed(1)
    first = [epoch(one) for _ in range(3)]
    keras.utils.set_random_seed(2)  # the order only depends on `seed`
    again = [epoch(two) for _ in range(3)]
    keras.tree.map_structure(np.testing.assert_array_equal, first, again)
    for a, b in itertools.combinations(first, 2):
        assert not np.array_equal(a[0], b[0])
        assert not np.array_equal(a[1], b[1])
    other = epoch(domain_dataset(*both(kind), 5, seed=4))
    assert not np.array_equal(other[0], first[0][0])


@each_kind
def test_the_global_seed_does_not_change(kind):
    tf.random.set_seed(5)
    expected = [float(tf.random.uniform(())) for _ in range(2)]
    tf.random.set_seed(5)
    found = [float(tf.random.uniform(()))]
    epoch(domain_dataset(*both(kind), 5))
    assert [*found, float(tf.random.uniform(()))] == expected


@each_kind
def test_prefetching_does_not_change_orders(kind):
    # Prefetching can start many passes of the shorter domain before the first batch.
    one, two = (domain_dataset(*both(kind), 5) for _ in range(2))
    next(iter(one))
    epoch(two)
    keras.tree.map_structure(np.testing.assert_array_equal, epoch(one), epoch(two))


@each_kind
def test_without_shuffle_the_order_of_the_data_is_kept(kind):
    data = domain_dataset(*both(kind), 5, shuffle=False)
    of_source, of_target, _ = epoch(data)
    assert np.array_equal(of_source.ravel(), np.arange(20))
    assert np.array_equal(of_target.ravel(), 100 + np.arange(20) % 7)
    again = epoch(data)
    assert np.array_equal(of_target, again[1])


@each_kind
def test_the_two_domains_have_different_orders(kind):
    same = (SOURCE, LABELS), SOURCE
    if kind == "datasets":
        same = dataset(SOURCE, LABELS), dataset(SOURCE)
    of_source, of_target, _ = epoch(domain_dataset(*same, 5))
    assert not np.array_equal(of_source, of_target)


@each_kind
def test_sample_weights_stay_with_their_examples(kind):
    source = (SOURCE, LABELS, SOURCE[:, 0] / 2)
    target = TARGET
    if kind == "datasets":
        source, target = dataset(*source), dataset(target)
    for x, _, weights in domain_dataset(source, target, 5):
        assert np.array_equal(weights, x["source"][:, 0] / 2)


def test_structures_of_arrays_and_texts():
    source = {
        "text": np.array(["a", "bc", "d", "e"]),
        "ids": np.arange(8).reshape(4, 2),
    }
    target = {"ids": np.arange(6).reshape(3, 2), "text": ["ü", "v", "w"]}
    data = domain_dataset((source, [0, 1, 0, 1]), target, 2, shuffle=False)
    x, y = next(data.as_numpy_iterator())
    assert x["source"]["text"].tolist() == [b"a", b"bc"]
    assert x["target"]["text"].tolist() == ["ü".encode(), b"v"]
    assert x["target"]["ids"].tolist() == [[0, 1], [2, 3]]
    assert y.tolist() == [0, 1]


def test_a_pair_of_texts_is_accepted_as_target(tmp_path):
    (tmp_path / "a.tsv").write_text("0\ta\tb\n1\tc\td\n")
    train = from_tsv(tmp_path / "a.tsv", columns=("label", "one", "two"))
    target = (np.array(["e", "f"], object), np.array(["g", "h"], object))
    data = domain_dataset((train.texts, train.labels), target, 2, shuffle=False)
    x, _ = next(data.as_numpy_iterator())
    assert [each.tolist() for each in x["target"]] == [[b"e", b"f"], [b"g", b"h"]]
    with pytest.raises(ValueError, match=r"target\.texts"):
        domain_dataset((train.texts, train.labels), train, 2)
    with pytest.raises(ValueError, match=r"train\.texts, train\.labels"):
        domain_dataset(train, target, 2)


def test_arrays_and_a_dataset():
    data = domain_dataset((SOURCE, LABELS), dataset(TARGET), 5)
    _, of_target, _ = epoch(data)
    assert set(of_target.ravel()) == set(TARGET.ravel())


def batches(*arrays, size=4, **kwargs):
    return dataset(*arrays).batch(size, **kwargs)


@pytest.mark.parametrize("drop", [False, True])
def test_datasets_of_batches_keep_their_order(drop):
    source = batches(SOURCE[:18], LABELS[:18], drop_remainder=drop)
    target = batches(TARGET, drop_remainder=drop)
    data = domain_dataset(source, target, None)
    of_source, of_target, _ = epoch(data)
    # 18 examples are 4 full batches, and 2 examples that the next pass fills up.
    if drop:
        assert of_source.ravel().tolist() == list(range(16))
        assert set(of_target.ravel()) == {100, 101, 102, 103}
    else:
        assert of_source.ravel().tolist() == [*range(18), 0, 1]
        assert of_target.ravel().tolist() == [100 + i % 7 for i in range(20)]
    assert len(data) == len(of_source)
    assert data.element_spec[0]["target"].shape == (4, 1)


def test_datasets_of_from_tfds():
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=6):
        options = dict(image_size=(8, 8), batch_size=4, shuffle=0)
        source = from_tfds("cifar10", "train", **options)
        target = from_tfds("cifar10", "test", **options).map(lambda x, y: x)
        data = domain_dataset(source, target, None)
        assert len(data) == 2
        for x, y in data:
            assert x["source"].shape == x["target"].shape == (4, 8, 8, 3)
            assert y.shape == (4,)
        with pytest.raises(ValueError, match="`source` is already batched"):
            domain_dataset(source, target, 4)


def test_steps_end_the_epoch_of_infinite_data():
    endless = dataset(SOURCE, LABELS).repeat()
    data = domain_dataset(endless, TARGET, 5, steps=3)
    assert len(data) == 3
    assert len(epoch(data)[0]) == 3
    with pytest.raises(ValueError, match="`source` has no end.*steps="):
        domain_dataset(endless, TARGET, 5)
    with pytest.raises(ValueError, match="`target` has no end.*steps="):
        domain_dataset((SOURCE, LABELS), dataset(TARGET).repeat(), 5)
    cut = domain_dataset((SOURCE, LABELS), TARGET, 5, steps=9)
    assert len(epoch(cut)[0]) == 9


def test_a_dataset_of_unknown_length():
    some = dataset(SOURCE, LABELS).filter(lambda x, y: y > 0)
    with pytest.raises(ValueError, match="assert_cardinality"):
        domain_dataset(some, TARGET, 5)
    known = some.apply(tf.data.experimental.assert_cardinality(13))
    assert len(domain_dataset(known, TARGET, 5)) == 3
    # With `steps`, only the start of the dataset is read to check its size.
    assert len(epoch(domain_dataset(some, TARGET, 5, steps=4))[0]) == 4
    none = dataset(TARGET).filter(lambda x: False)
    with pytest.raises(ValueError, match="`target` is empty"):
        domain_dataset((SOURCE, LABELS), none, 5, steps=4)


@each_kind
def test_each_replica_gets_half_of_both_domains(strategy, kind):
    data = domain_dataset(*both(kind), 4, shuffle=False)
    seen = []
    for x, y in strategy.experimental_distribute_dataset(data):
        parts = [
            [each.numpy() for each in strategy.experimental_local_results(value)]
            for value in (x["source"], x["target"], y)
        ]
        for source, target, labels in zip(*parts, strict=True):
            assert source.shape == target.shape == (2, 1)
            assert (source < 100).all() and (target >= 100).all()
            assert np.array_equal(labels, source[:, 0].astype(int) % 3)
            seen.append(source)
    assert sorted(np.concatenate(seen).ravel()) == list(range(20))


def two_streams():
    inputs = {name: keras.Input((1,), name=name) for name in ("source", "target")}
    joined = keras.layers.Concatenate()([inputs["source"], inputs["target"] / 100])
    head = keras.layers.Dense(1, kernel_initializer="ones")
    model = keras.Model(inputs, head(joined))
    model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
    return model


@pytest.mark.slow
def test_two_replicas_train_like_one(strategy):
    def trained(data):
        model = two_streams()
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations.numpy()) == 10
        return model.get_weights()

    one, two = (domain_dataset((SOURCE / 20, LABELS), TARGET, 4) for _ in range(2))
    # Under a strategy, `fit` takes a batch before the first epoch.
    next(iter(one))
    expected = trained(one)
    with strategy.scope():
        found = trained(two)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_the_batch_must_be_divisible_by_the_replicas(strategy):
    with strategy.scope():
        domain_dataset((SOURCE, LABELS), TARGET, 4)
        with pytest.raises(ValueError, match="batch_size=5 is not divisible by 2"):
            domain_dataset((SOURCE, LABELS), TARGET, 5)
        odd = (batches(SOURCE, LABELS, size=5), batches(TARGET, size=5))
        with pytest.raises(ValueError, match="batch_size=5 is not divisible by 2"):
            domain_dataset(*odd, None)


@pytest.mark.parametrize(
    "target, fix",
    [
        ((TARGET, np.arange(7)), r"target\[0\]"),
        ((TARGET, np.arange(7), np.ones(7)), r"target\[0\]"),
        (dataset(TARGET, np.arange(7)), r"target\.map\("),
    ],
)
def test_labels_of_the_target_raise(target, fix):
    with pytest.raises(ValueError, match=f"would leak into training.*{fix}"):
        domain_dataset((SOURCE, LABELS), target, 5)


def test_labels_in_batches_of_the_target_raise():
    target = batches(TARGET, np.arange(7))
    with pytest.raises(ValueError, match=r"would leak.*target\.map\("):
        domain_dataset(batches(SOURCE, LABELS), target, None)


@pytest.mark.parametrize(
    "source",
    [
        SOURCE,
        {"x": SOURCE},
        [SOURCE, LABELS],
        (SOURCE,),
        (SOURCE, None),
        dataset(SOURCE),
        dataset(SOURCE).map(lambda x: (x, None)),
    ],
)
def test_a_source_without_labels_raises(source):
    with pytest.raises(ValueError, match="`source` has no labels"):
        domain_dataset(source, TARGET, 5)


IMAGES = np.zeros((20, 8, 8, 1), "float32")


@pytest.mark.parametrize(
    "source, target, message",
    [
        (
            IMAGES,
            np.zeros((7, 8, 8, 3), "float32"),
            r"8, 8, 1.*8, 8, 3.*repeat channels",
        ),
        (IMAGES, np.zeros((7, 8, 8), "float32"), "shapes and dtypes"),
        (IMAGES, np.zeros((7, 8, 8, 1), "uint8"), "float32.*uint8.*cast"),
        (IMAGES, dataset(np.zeros((7, 9, 8, 1), "float32")), "shapes and dtypes"),
        (IMAGES, {"x": IMAGES}, "same structure"),
        ({"a": IMAGES}, {"b": IMAGES}, "same structure"),
        (IMAGES, (IMAGES, IMAGES, IMAGES)[:1], "same structure"),
        (SOURCE, np.array([["a"]] * 7), "float32.*string"),
    ],
)
def test_domains_that_differ_raise(source, target, message):
    with pytest.raises(ValueError, match=message):
        domain_dataset((source, LABELS), target, 5)


def test_axes_of_unknown_size_raise():
    ragged = tf.data.Dataset.from_generator(
        lambda: iter([]), output_signature=tf.TensorSpec((None,), "float32")
    )
    with pytest.raises(ValueError, match="`target` have an axis of unknown size"):
        domain_dataset((SOURCE, LABELS), ragged, 5)
    with pytest.raises(TypeError, match="RaggedTensorSpec"):
        domain_dataset((SOURCE, LABELS), dataset(tf.ragged.constant([[1.0], []])), 5)


@pytest.mark.parametrize(
    "source, target, batch_size, message",
    [
        (batches(SOURCE, LABELS), dataset(TARGET), 5, "`source` is already batched"),
        (dataset(SOURCE, LABELS), batches(TARGET), 5, "`target` is already batched"),
        ((SOURCE, LABELS), batches(TARGET), 5, "`target` is already batched"),
        (dataset(SOURCE, LABELS), batches(TARGET), None, "`source` has single"),
        (batches(SOURCE, LABELS), dataset(TARGET), None, "`target` has single"),
        (
            batches(np.array(["a", "b"]), [0, 1], size=2),
            dataset(np.array(["a", "b"])),
            None,
            "`target` has single",
        ),
        (batches(SOURCE, LABELS), TARGET, None, "`target` is arrays"),
        ((SOURCE, LABELS), batches(TARGET), None, "`source` is arrays"),
        (batches(SOURCE, LABELS), batches(TARGET, size=5), None, "4 examples.* 5"),
    ],
)
def test_a_batch_size_that_does_not_fit_raises(source, target, batch_size, message):
    with pytest.raises(ValueError, match=message):
        domain_dataset(source, target, batch_size)


@pytest.mark.parametrize(
    "source, target, message",
    [
        ((SOURCE[:0], LABELS[:0]), TARGET, "`source` is empty"),
        ((SOURCE, LABELS), TARGET[:0], "`target` is empty"),
        ((SOURCE, LABELS), dataset(TARGET[:0]), "`target` is empty"),
        ((SOURCE[:4], LABELS[:4]), TARGET, "`source` has 4 examples.*batch_size=5"),
        ((SOURCE, LABELS), TARGET[:4], "`target` has 4 examples.*batch_size=5"),
        ((SOURCE, LABELS), dataset(TARGET[:4]), "`target` has 4 examples"),
        ((SOURCE, LABELS[:19]), TARGET, r"`source` have \[19, 20\] examples"),
        ((SOURCE, LABELS * 0 + 2), TARGET, "one class, 2"),
        ((SOURCE, np.eye(3)[LABELS * 0]), TARGET, "one class"),
        ((SOURCE, ["cat"] * 20), TARGET, "one class, cat"),
        ((SOURCE, np.full(20, np.nan)), TARGET, "20 of 20 labels.*NaN"),
        ((SOURCE, LABELS, np.full(20, np.inf)), TARGET, "20 of 20 .*weights"),
    ],
)
@pytest.mark.parametrize("steps", [None, 2])
def test_bad_domains_raise(source, target, message, steps):
    with pytest.raises(ValueError, match=message):
        domain_dataset(source, target, 5, steps=steps)


def test_target_arrays_of_different_lengths_raise():
    source, target = (SOURCE, SOURCE), (TARGET, TARGET[:5])
    with pytest.raises(ValueError, match=r"`target` have \[5, 7\] examples"):
        domain_dataset((source, LABELS), target, 5)


def test_empty_batches_raise():
    with pytest.raises(ValueError, match="`target` is empty"):
        domain_dataset(batches(SOURCE, LABELS), batches(TARGET[:0]), None)


class Batches(keras.utils.PyDataset):
    pass


@pytest.mark.parametrize("bad", ["source", "target"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: iter([SOURCE]),
        lambda: iter(dataset(SOURCE, LABELS)),
        lambda: (each for each in SOURCE),
        Batches,
    ],
)
def test_iterators_and_other_types_raise(bad, make):
    arguments = dict(source=(SOURCE, LABELS), target=TARGET) | {bad: make()}
    with pytest.raises(TypeError, match=f"`{bad}` is a "):
        domain_dataset(**arguments, batch_size=5)


def test_a_target_of_none_raises():
    with pytest.raises(TypeError, match="`target` is a NoneType"):
        domain_dataset((SOURCE, LABELS), None, 5)


@pytest.mark.parametrize(
    "settings",
    [
        dict(batch_size=0),
        dict(batch_size=-1),
        dict(batch_size=2.5),
        dict(batch_size=True),
        dict(seed=-1),
        dict(seed=None),
        dict(steps=0),
        dict(shuffle=3),
    ],
)
def test_bad_settings_raise(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        domain_dataset((SOURCE, LABELS), TARGET, **dict(batch_size=5) | settings)
