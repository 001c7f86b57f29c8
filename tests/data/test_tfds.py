"""from_tfds with a custom builder, and with mocked datasets of the catalog."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_transfer as kt

COUNT = 20


class TinyBoxes(tfds.core.GeneratorBasedBuilder):
    """Gray images. The pixel value is ten times the number of the example."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Gray images.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 6, 3)),
                    "photo": tfds.features.Image(shape=(None, None, 3)),
                    "mask": tfds.features.Image(shape=(4, 6, 1)),
                    "text": tfds.features.Text(),
                    "title": tfds.features.Text(),
                    "words": tfds.features.Sequence(np.int64),
                    "nested": tfds.features.Sequence(tfds.features.Sequence(np.int64)),
                    "number": np.float32,
                    "label": tfds.features.ClassLabel(names=["even", "odd"]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(COUNT)} | {
            "test": self._generate_examples(5)
        }

    def _generate_examples(self, count):
        for i in range(count):
            yield (
                i,
                {
                    "image": np.full((4, 6, 3), 10 * i, "uint8"),
                    "photo": np.full((3 + i % 4, 5, 3), 10 * i, "uint8"),
                    "mask": np.full((4, 6, 1), i % 2, "uint8"),
                    "text": f"text {i}",
                    "title": f"title {i}",
                    "words": list(range(i)),
                    "nested": [list(range(i))],
                    "number": i,
                    "label": i % 2,
                },
            )


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Return a builder that is not prepared yet."""
    return TinyBoxes(data_dir=tmp_path_factory.mktemp("tfds"))


def numbers(data):
    """Return the number of each image in the order of one pass."""
    means = [x.mean(axis=(1, 2, 3)) for x, _ in data.as_numpy_iterator()]
    return np.round(np.concatenate(means) / 10).astype(int).tolist()


def test_a_builder_becomes_batches_of_images_and_labels(boxes):
    data = kt.data.from_tfds(boxes, "train", batch_size=8)
    assert len(data) == 3
    x_spec, y_spec = data.element_spec
    assert (x_spec.shape.as_list(), x_spec.dtype) == ([None, 4, 6, 3], tf.float32)
    assert y_spec.dtype == tf.int64
    sizes = []
    for x, y in data.as_numpy_iterator():
        sizes.append(len(x))
        # Pixels are unchanged, in [0, 255], and each image keeps its label.
        np.testing.assert_array_equal(x[:, 0, 0, 0] / 10 % 2, y)
    assert sizes == [8, 8, 4]
    assert sorted(numbers(data)) == list(range(COUNT))


def test_the_order_of_the_files_is_kept(boxes):
    data = kt.data.from_tfds(boxes, "train", batch_size=8)
    expected = [
        int(example["number"])
        for example in boxes.as_dataset(split="train").as_numpy_iterator()
    ]
    assert numbers(data) == numbers(data) == expected


def test_a_builder_from_a_name_and_a_folder(boxes):
    boxes.download_and_prepare()
    again = tfds.builder("tiny_boxes", data_dir=boxes.data_dir_root)
    assert numbers(kt.data.from_tfds(again, "train")) == numbers(
        kt.data.from_tfds(boxes, "train")
    )


@pytest.mark.parametrize(
    "split, count",
    [
        ("test", 5),
        ("train[:25%]", 5),
        ("train[15:]+test", 10),
        (tfds.core.ReadInstruction("train", to=50, unit="%"), 10),
    ],
)
def test_parts_of_splits(boxes, split, count):
    data = kt.data.from_tfds(boxes, split, batch_size=2)
    assert len(data) == -(-count // 2)
    assert len(numbers(data)) == count


def test_orders_differ_between_epochs_and_are_equal_in_each_run(boxes):
    first, second = (
        kt.data.from_tfds(boxes, "train", batch_size=8, shuffle=3) for _ in range(2)
    )
    epochs = [numbers(first) for _ in range(3)]
    assert [numbers(second) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    other = kt.data.from_tfds(boxes, "train", batch_size=8, shuffle=4)
    assert numbers(other) not in epochs
    assert len(first) == 3


@pytest.mark.parametrize("key", ["image", "photo"])
def test_images_are_resized_like_in_keras(boxes, key):
    data = kt.data.from_tfds(
        boxes, "train", features=(key, "label"), image_size=(5, 7), batch_size=4
    )
    assert data.element_spec[0].shape.as_list() == [None, 5, 7, 3]
    resizing = keras.layers.Resizing(5, 7)
    examples = boxes.as_dataset(split="train").as_numpy_iterator()
    expected = [resizing(example[key].astype("float32")) for example in examples]
    found = np.concatenate([x for x, _ in data.as_numpy_iterator()])
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)
    assert found.max() > 1


def test_texts_and_pairs_of_texts(boxes):
    data = kt.data.from_tfds(boxes, "train", features=("text", "label"), batch_size=4)
    x, y = next(data.as_numpy_iterator())
    assert [int(text.split()[1]) % 2 for text in x] == y.tolist()
    pair = (("text", "title"), "label")
    x, _ = next(kt.data.from_tfds(boxes, "train", features=pair).as_numpy_iterator())
    assert [text.split()[1] for text in x[0]] == [title.split()[1] for title in x[1]]
    named = ({"a": "text", "b": "number"}, "label")
    x, _ = next(kt.data.from_tfds(boxes, "train", features=named).as_numpy_iterator())
    assert [float(text.split()[1]) for text in x["a"]] == x["b"].tolist()


def test_a_mask_can_be_y_if_images_are_not_resized(boxes):
    data = kt.data.from_tfds(boxes, "train", features=("image", "mask"))
    assert data.element_spec[1].dtype == tf.uint8
    with pytest.raises(ValueError, match="y is an image too"):
        kt.data.from_tfds(boxes, "train", features=("image", "mask"), image_size=(8, 8))


@pytest.mark.slow
def test_labels_per_class_matches_few_labels(boxes):
    everything = kt.data.from_tfds(boxes, "train")
    wanted = numbers(kt.data.few_labels(everything, 3, seed=0).labeled)
    assert [number % 2 for number in sorted(wanted)].count(1) == 3
    data = kt.data.from_tfds(boxes, "train", labels_per_class=3, batch_size=4)
    assert numbers(data) == wanted
    assert len(data) == 2
    photos = ("photo", "label")
    data = kt.data.from_tfds(
        boxes,
        "train",
        features=photos,
        image_size=(4, 4),
        labels_per_class=3,
        batch_size=4,
    )
    assert numbers(data) == wanted
    seeded = kt.data.from_tfds(boxes, "train", labels_per_class=3, shuffle=5)
    wanted = numbers(kt.data.few_labels(everything, 3, seed=5).labeled)
    assert sorted(numbers(seeded)) == sorted(wanted)
    with pytest.raises(ValueError, match="class 0 has 10, 1 has 10"):
        kt.data.from_tfds(boxes, "train", labels_per_class=11)


@pytest.mark.parametrize("limit", [2**30, 100])
def test_files_are_read_once_if_they_fit_into_memory(boxes, monkeypatch, limit):
    from keras_transfer.data import tfds as module

    monkeypatch.setattr(module, "CACHE_BYTES", limit)
    reads = []

    def as_dataset(self, **kwargs):
        def count(example):
            tf.numpy_function(lambda: reads.append(None), [], [])
            return example

        return type(boxes).as_dataset(self, **kwargs).map(count)

    monkeypatch.setattr(boxes, "as_dataset", as_dataset.__get__(boxes))
    data = kt.data.from_tfds(boxes, "train", shuffle=1)
    assert sorted(numbers(data)) == sorted(numbers(data)) == list(range(COUNT))
    assert len(reads) == (COUNT if limit > 100 else 2 * COUNT)


def test_a_pass_that_is_left_early_cuts_nothing(boxes, monkeypatch):
    """A canceled `prefetch` ends without an error, in the middle of the data."""
    boxes.download_and_prepare()
    images = 10 * np.arange(COUNT)[:, None, None, None] + np.zeros((4, 6, 3))
    examples = {"image": images.astype("uint8"), "label": np.arange(COUNT) % 2}

    def as_dataset(self, **kwargs):
        return tf.data.Dataset.from_tensor_slices(examples).map(slow).prefetch(2)

    def slow(example):
        tf.numpy_function(lambda: time.sleep(0.01), [], [])
        return example

    monkeypatch.setattr(boxes, "as_dataset", as_dataset.__get__(boxes))
    data = kt.data.from_tfds(boxes, "train", batch_size=8)
    next(iter(data))
    assert sorted(numbers(data)) == list(range(COUNT))


@pytest.mark.slow
def test_images_work_in_fit_and_the_feature_cache(boxes):
    data = kt.data.from_tfds(boxes, "train", batch_size=8, shuffle=1)
    inputs = keras.Input((4, 6, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(features))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    model.fit(data, epochs=2, verbose=0, shuffle=False)
    test = kt.data.from_tfds(boxes, "test")
    assert 0 <= model.evaluate(test, verbose=0, return_dict=True)["accuracy"] <= 1
    backbone = keras.Model(inputs, features)
    in_order = kt.data.from_tfds(boxes, "train", batch_size=8)
    cached = kt.backbones.cache_features(backbone, in_order, verbose=0)
    assert len(cached) == COUNT
    np.testing.assert_allclose(
        np.stack([x for x, *_ in cached.as_numpy_iterator()]),
        backbone.predict(in_order, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_texts_work_in_fit(boxes):
    data = kt.data.from_tfds(boxes, "train", features=("text", "label"), shuffle=1)
    inputs = keras.Input((), dtype="string")
    words = keras.layers.TextVectorization(
        vocabulary=["text", "1", "2"], output_mode="multi_hot"
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(words(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    history = model.fit(data, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "dev"}, r"split='dev' of tiny_boxes.*\['train', 'test'\]"),
        ({"split": "train+dev"}, "Unknown split 'dev'"),
        ({"split": "train[:1%]"}, "no data"),
        ({"split": "train["}, r"cannot be read.*\['train', 'test'\]"),
        ({"features": ("picture", "label")}, "no feature 'picture'. Pass .*'image'"),
        ({"features": (("text", "x"), "label")}, "no feature 'x'"),
        ({"features": ("text",)}, r"must be a pair \(x, y\)"),
        ({"features": "text"}, r"must be a pair \(x, y\)"),
        ({"features": ("photo", "label")}, "'photo' differ in size.*Pass image_size"),
        ({"features": ("words", "label")}, "'words' differ in size.*pad it yourself"),
        ({"features": ("text", "label"), "image_size": (4, 4)}, "x has no image"),
        ({"image_size": 4}, r"image_size=4 must be \(height, width\)"),
        ({"image_size": (4, 0)}, r"image_size=\(4, 0\)"),
        ({"image_size": (4, 4, 3)}, "image_size="),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": None}, "batch_size=None"),
        ({"shuffle": True}, "shuffle=True must be .* a seed"),
        ({"shuffle": -1}, "shuffle=-1 must be .* a seed"),
        ({"labels_per_class": 0}, "labels_per_class=0"),
    ],
)
def test_bad_arguments_raise(boxes, arguments, message):
    with pytest.raises(ValueError, match=message):
        kt.data.from_tfds(boxes, **{"split": "train"} | arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": None}, "split=None must be one split"),
        ({"split": ["train", "test"]}, "Call from_tfds for each"),
        ({"name": 3}, "name=3 must be the name of a dataset"),
        ({"name": TinyBoxes}, "must be the name of a dataset, or a tfds"),
        ({"features": ("nested", "label")}, "RaggedTensorSpec in"),
    ],
)
def test_other_types_raise(boxes, arguments, message):
    with pytest.raises(TypeError, match=message):
        kt.data.from_tfds(**{"name": boxes, "split": "train"} | arguments)


def test_a_dataset_without_supervised_keys_needs_features():
    with tfds.testing.mock_data(num_examples=4):
        with pytest.raises(ValueError, match="no supervised keys.*'sentence1'"):
            kt.data.from_tfds("glue/mrpc", "train")
        data = kt.data.from_tfds(
            "glue/mrpc",
            "train",
            features=(("sentence1", "sentence2"), "label"),
            batch_size=3,
        )
        (first, second), y = next(data.as_numpy_iterator())
    assert first.shape == second.shape == y.shape == (3,)
    assert first.dtype == object
    assert len(data) == 2


def test_datasets_of_the_catalog():
    with tfds.testing.mock_data(num_examples=5):
        images = kt.data.from_tfds(
            "mnist", "train", image_size=(8, 8), batch_size=4, shuffle=0
        )
        texts = kt.data.from_tfds("imdb_reviews", "train", batch_size=4)
        flowers = kt.data.from_tfds("oxford_flowers102", "train", image_size=(6, 6))
        with pytest.raises(ValueError, match="'image' differ in size"):
            kt.data.from_tfds("oxford_flowers102", "train")
        assert [x.shape for x, _ in images] == [(4, 8, 8, 1), (1, 8, 8, 1)]
        assert next(texts.as_numpy_iterator())[0].dtype == object
        assert next(iter(flowers))[0].shape == (5, 6, 6, 3)


def test_a_dataset_of_unknown_length_is_counted():
    def as_dataset(self, *args, **kwargs):
        examples = [
            {"image": np.ones((28, 28, 1), "uint8"), "label": i} for i in [1, 2]
        ]
        return tf.data.Dataset.from_generator(
            lambda: examples,
            output_signature={
                "image": tf.TensorSpec((28, 28, 1), tf.uint8),
                "label": tf.TensorSpec((), tf.int64),
            },
        )

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        data = kt.data.from_tfds("mnist", "train", batch_size=1)
    assert len(data) == 2


def test_an_unknown_name_raises():
    with pytest.raises(ValueError, match="no_such_data not found"):
        kt.data.from_tfds("no_such_data", "train")
