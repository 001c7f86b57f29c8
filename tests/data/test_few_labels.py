"""few_labels: selections are seeded, stratified, nested and disjoint from the rest."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt

Y = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [9, 12, 15]))
X = np.arange(36.0).reshape(36, 1)  # identifies each example


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


def values(data):
    """Return all elements of a dataset as one array for each component."""
    batches = list(data.as_numpy_iterator())
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *batches)


def test_selection_is_stratified_and_keeps_the_order():
    (x, y), rest = kt.data.few_labels((X, Y), 4)
    assert np.bincount(y).tolist() == [4, 4, 4]
    assert np.array_equal(Y[x[:, 0].astype(int)], y)  # each x keeps its y
    assert (np.diff(x[:, 0]) > 0).all()
    assert (np.diff(rest[:, 0]) > 0).all()
    assert sorted([*x[:, 0], *rest[:, 0]]) == X[:, 0].tolist()


def test_the_selection_depends_on_the_seed():
    first, again, other = (
        kt.data.few_labels((X, Y), 4, seed=seed).labeled[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def test_selections_with_the_same_seed_are_nested():
    chosen = [
        set(kt.data.few_labels((X, Y), count, seed=3).labeled[0][:, 0])
        for count in (1, 5, 9)
    ]
    assert chosen[0] < chosen[1] < chosen[2]


def test_all_examples_of_the_smallest_class_can_be_selected():
    (_, y), rest = kt.data.few_labels((X, Y), 9)
    assert np.bincount(y).tolist() == [9, 9, 9]
    assert len(rest) == 9
    balanced = (X[:6], np.arange(6) % 2)
    labeled, rest = kt.data.few_labels(balanced, 3)
    np.testing.assert_array_equal(labeled[0], X[:6])
    assert rest.shape == (0, 1)


def test_structures_and_weights_are_kept():
    x = {"ids": X, "mask": np.ones((36, 3))}
    weight = np.linspace(0, 1, 36)
    labeled, rest = kt.data.few_labels((x, Y, weight), 2)
    chosen = labeled[0]["ids"][:, 0].astype(int)
    assert labeled[0]["mask"].shape == (6, 3)
    np.testing.assert_array_equal(labeled[2], weight[chosen])
    assert rest["ids"].shape == (30, 1)
    pair = ([f"a{i}" for i in range(36)], [f"b{i}" for i in range(36)])
    labeled, rest = kt.data.few_labels((pair, Y, None), 2)
    assert labeled[0][0].tolist() == [f"a{i}" for i in chosen]
    assert labeled[0][0].dtype == object  # Keras does not accept "<U3"
    assert rest[1].shape == (30,)
    assert labeled[2] is None


@pytest.mark.parametrize(
    "labels",
    [
        Y[:, None],
        Y.astype("float32"),
        np.eye(3)[Y],
        np.array(["no", "so", "yes"])[Y],
        np.array(["no", "so", "yes"], object)[Y],
        tf.constant(Y),
        Y.tolist(),
    ],
)
def test_labels_of_other_forms_give_the_same_selection(labels):
    wanted = kt.data.few_labels((X, Y), 4).labeled
    x, y = kt.data.few_labels((X, labels), 4).labeled
    np.testing.assert_array_equal(x, wanted[0])
    np.testing.assert_array_equal(y, np.asarray(labels)[x[:, 0].astype(int)])


@pytest.mark.parametrize("size", [None, 5, 36, 50])
def test_a_dataset_is_split_like_its_arrays(size):
    weight = np.linspace(0, 1, 36)
    data = dataset({"a": X}, Y, weight)
    wanted, wanted_rest = kt.data.few_labels(({"a": X}, Y, weight), 4, seed=2)
    labeled, rest = kt.data.few_labels(data.batch(size) if size else data, 4, seed=2)
    if size is None:
        assert len(labeled) == 12
        assert len(rest) == 24
        labeled, rest = labeled.batch(7), rest.batch(7)
    else:
        assert len(labeled) == -(-12 // min(size, 36))
        assert len(next(iter(rest))["a"]) == min(size, 24)
    x, y, read_weight = values(labeled)
    np.testing.assert_array_equal(x["a"], wanted[0]["a"])
    np.testing.assert_array_equal(y, wanted[1])
    np.testing.assert_array_equal(read_weight, wanted[2])
    np.testing.assert_array_equal(values(rest)["a"], wanted_rest["a"])


def test_a_dataset_of_unknown_length_and_static_batches_is_split():
    data = dataset(X, Y).batch(6, drop_remainder=True).filter(lambda *_: True)
    labeled, rest = kt.data.few_labels(data, 4)
    np.testing.assert_array_equal(
        values(labeled)[0], kt.data.few_labels((X, Y), 4).labeled[0]
    )
    assert len(labeled) == 2
    assert len(rest) == 4


def test_a_dataset_of_texts_and_of_one_hot_labels_is_split():
    texts = np.array([f"text {i}" for i in range(36)])
    x, y = values(kt.data.few_labels(dataset(texts, np.eye(3)[Y]).batch(8), 4).labeled)
    chosen = kt.data.few_labels((X, Y), 4).labeled[0][:, 0].astype(int)
    assert [each.decode() for each in x] == texts[chosen].tolist()
    assert y.sum(0).tolist() == [4, 4, 4]


def test_labeled_is_read_once_and_then_cached():
    passes = []

    def examples():
        passes.append(None)
        yield from zip(X, Y, strict=True)

    signature = (tf.TensorSpec((1,)), tf.TensorSpec((), "int64"))
    data = tf.data.Dataset.from_generator(examples, output_signature=signature)
    labeled, _ = kt.data.few_labels(data, 4)
    assert len(passes) == 2
    for _ in range(3):
        assert len(list(labeled)) == 12
    assert len(passes) == 3


def test_images_of_several_sizes_are_split():
    sizes = tf.data.Dataset.range(8)
    data = sizes.map(lambda i: (tf.zeros((i + 1, 2)), i % 2))
    labeled, rest = kt.data.few_labels(data, 2)
    assert len({x.shape for x, _ in labeled.as_numpy_iterator()}) == 4
    assert len({x.shape for x in rest.as_numpy_iterator()}) == 4


@pytest.mark.parametrize("global_seed", [None, 7])
@pytest.mark.parametrize("change", ["shuffle", "augment"])
def test_a_dataset_that_changes_between_passes_raises(change, global_seed):
    # The selection from one pass would select other examples in the next pass.
    if global_seed is not None:
        keras.utils.set_random_seed(global_seed)
    data = dataset(X, Y)
    if change == "shuffle":
        data = data.shuffle(36, seed=1)
    else:
        data = data.map(lambda x, y: (x + tf.random.uniform((), dtype=x.dtype), y))
    with pytest.raises(ValueError, match="Two passes over `data` differ"):
        kt.data.few_labels(data.batch(4), 2)


def test_a_shuffle_with_a_fixed_order_is_accepted():
    data = dataset(X, Y).shuffle(36, seed=1, reshuffle_each_iteration=False).batch(4)
    labeled, rest = kt.data.few_labels(data, 4)
    x, y = values(labeled)
    np.testing.assert_array_equal(Y[x[:, 0].astype(int)], y)
    assert sorted([*x[:, 0], *values(rest)[:, 0]]) == X[:, 0].tolist()


def test_a_dataset_that_allows_only_one_pass_raises():
    once = iter(list(zip(X, Y, strict=True)))
    signature = (tf.TensorSpec((1,)), tf.TensorSpec((), "int64"))
    data = tf.data.Dataset.from_generator(lambda: once, output_signature=signature)
    with pytest.raises(ValueError, match="only one pass"):
        kt.data.few_labels(data, 2)


@pytest.mark.parametrize("batched", [False, True])
def test_labeled_works_in_fit(batched):
    data = (X, Y)
    if batched:
        data = dataset(*data).batch(8)
    labeled, rest = kt.data.few_labels(data, 4)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    if batched:
        model.fit(labeled, epochs=2, verbose=0, shuffle=False)
    else:
        model.fit(*labeled, epochs=2, verbose=0)
    assert model.predict(rest, verbose=0).shape == (24, 3)


def test_classes_with_too_few_examples_raise():
    for data in ((X, Y), dataset(X, Y).batch(4)):
        with pytest.raises(ValueError, match=r"2 of 3.*class 0 has 9, 1 has 12\. .* 9"):
            kt.data.few_labels(data, 13)
    names = np.array(["no", "so", "yes"])[Y]
    with pytest.raises(ValueError, match="class 'no' has 9. Pass at most 9"):
        kt.data.few_labels((X, names), 10)


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.eye(3)[Y] * 0.5, r"shape \(36, 3\) and are not one-hot"),
        (np.ones((36, 3)), "not one-hot"),
        (np.zeros((36, 2, 2)), "one whole number for each example"),
        (Y + 0.5, "not whole numbers"),
        (np.where(Y == 0, -1, Y), "9 of 36 labels are below 0: -1.*without a label"),
        (np.where(Y == 0, np.nan, Y), "NaN"),
        (None, "no labels"),
        (Y[:30], r"\[30, 36\] examples"),
    ],
)
def test_labels_that_are_not_classes_raise(labels, message):
    with pytest.raises(ValueError, match=message):
        kt.data.few_labels((X, labels), 2)


@pytest.mark.parametrize(
    "data, message",
    [
        ((X,), "no labels"),
        ((X[:0], Y[:0]), "empty"),
        (dataset(X).map(lambda x: x), "no labels"),
        (dataset(X, Y).take(0), "empty"),
        (dataset(X, Y).repeat(), "no end"),
        # One-hot labels of single examples have a different first axis than x.
        (dataset(X, np.eye(3)[Y]), "not batched, and its y are not scalars"),
    ],
)
def test_data_without_usable_labels_raise(data, message):
    with pytest.raises(ValueError, match=message):
        kt.data.few_labels(data, 2)


@pytest.mark.parametrize(
    "data, message",
    [
        ([X, Y], "`data` is a list"),
        (iter(dataset(X, Y)), "Iterator"),
        ((X, {"a": Y, "b": Y}), "y is a dict of several labels"),
        (dataset(X, {"a": Y, "b": Y}), "y is a dict of several labels"),
        (dataset(tf.ragged.constant([[1], []] * 18), Y), "RaggedTensorSpec"),
    ],
)
def test_other_types_raise(data, message):
    with pytest.raises(TypeError, match=message):
        kt.data.few_labels(data, 2)


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "two", None])
def test_bad_labels_per_class_raises(count):
    with pytest.raises(ValueError, match="labels_per_class=.* above 0"):
        kt.data.few_labels((X, Y), count)


@pytest.mark.parametrize("seed", [None, -1, 0.5])
def test_bad_seeds_raise(seed):
    with pytest.raises(ValueError, match="seed=.* 0 or more"):
        kt.data.few_labels((X, Y), 2, seed=seed)
