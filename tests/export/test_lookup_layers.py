"""Models with lookup layers, whose tables are saved in the file."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer.export import export_serving
from tests.export import files
from tests.export import plain_tensorflow

TEXTS = ["good bad", "good", "a word that is not known", ""]
WORDS = np.array([["a", "b", "c"], ["b", "b", "?"]])
NUMBERS = np.array([[10, 20, 30], [20, 20, 7]])


def classifier(inputs, numbers):
    """Return a model with two logits on a tensor of whole numbers."""
    x = layers.Embedding(40, 4)(numbers)
    x = layers.GlobalAveragePooling1D()(x)
    return files.shaken(keras.Model(inputs, layers.Dense(2)(x)))


def vectorization():
    inputs = keras.Input((1,), dtype="string")
    words = layers.TextVectorization(
        vocabulary=["good", "bad"], output_sequence_length=3
    )
    return classifier(inputs, words(inputs)), TEXTS


def adapted_vectorization():
    words = layers.TextVectorization(output_mode="tf_idf")
    words.adapt(TEXTS)
    return files.shaken(
        keras.Sequential([keras.Input((1,), dtype="string"), words, layers.Dense(2)])
    ), np.array(TEXTS)[:, None]


def vocabulary_file():
    inputs = keras.Input((3,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    inner = keras.Model(inputs, lookup(inputs))
    outer = keras.Input((3,), dtype="string")
    return classifier(outer, inner(outer)), WORDS


def integers():
    inputs = keras.Input((3,), dtype="int64")
    lookup = layers.IntegerLookup(vocabulary=[10, 20])
    return classifier(inputs, lookup(inputs)), NUMBERS


def hashing():
    inputs = keras.Input((3,), dtype="string")
    return classifier(inputs, layers.Hashing(10)(inputs)), WORDS


def columns():
    """Return a model of the columns of a table, with one layer for each column."""
    inputs = {
        "city": keras.Input((1,), dtype="string", name="city"),
        "age": keras.Input((1,), name="age"),
        "kind": keras.Input((1,), dtype="int32", name="kind"),
    }
    lookup = layers.StringLookup(vocabulary=["Rome", "Oslo"], output_mode="one_hot")
    ages = layers.Discretization([20.0, 60.0], output_mode="one_hot")
    kinds = layers.CategoryEncoding(4, "one_hot")
    crossed = layers.HashedCrossing(5, output_mode="one_hot")
    x = layers.Concatenate()(
        [
            lookup(inputs["city"]),
            ages(inputs["age"]),
            kinds(inputs["kind"]),
            crossed((inputs["city"], inputs["kind"])),
        ]
    )
    model = keras.Model(inputs, layers.Dense(2)(x))
    request = {"city": ["Rome", "Paris"], "age": [7.0, 70.0], "kind": [1, 3]}
    return files.shaken(model), request


def names_of_classes():
    """Return a model that returns the name of the class in addition to the logits."""
    inputs = keras.Input((3,))
    logits = layers.Dense(2)(inputs)
    names = layers.StringLookup(
        vocabulary=["cat", "dog"], invert=True, num_oov_indices=0
    )
    outputs = {"logits": logits, "name": names(keras.ops.argmax(logits, -1))}
    return files.shaken(keras.Model(inputs, outputs)), np.eye(3, dtype="float32")


def augmentation():
    inputs = keras.Input((8, 8, 3))
    x = layers.RandomFlip()(inputs)
    x = layers.RandomRotation(0.1)(x)
    x = layers.Rescaling(1 / 255)(layers.Resizing(4, 4)(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    return files.shaken(model), pixels.astype("float32")


class Owner(layers.Layer):
    """A custom layer with a table."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        values = tf.lookup.KeyValueTensorInitializer(["a", "b"], [1, 2])
        self.tables = [tf.lookup.StaticHashTable(values, 0)]

    def call(self, inputs):
        return self.tables[0].lookup(inputs)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "int32")


def own_table():
    inputs = keras.Input((3,), dtype="string")
    return classifier(inputs, Owner()(inputs)), WORDS


MODELS = [
    vectorization,
    adapted_vectorization,
    vocabulary_file,
    integers,
    hashing,
    columns,
    names_of_classes,
    augmentation,
    own_table,
]


@pytest.mark.parametrize("make", MODELS)
def test_a_process_with_tensorflow_alone_looks_up_the_same(tmp_path, make):
    model, samples = make()
    folder = export_serving(model, tmp_path, samples=samples)
    request = samples if isinstance(samples, dict) else {"inputs": samples}
    request = {k: _column(model, k, np.array(v)) for k, v in request.items()}
    (answer,) = plain_tensorflow.serve(folder, [("serving_default", request)])
    given = request if isinstance(samples, dict) else request["inputs"]
    right = model(keras.tree.map_structure(tf.constant, given), training=False)
    right = right if isinstance(right, dict) else {"outputs": right}
    assert set(answer) == set(right)
    for name, value in right.items():
        if value.dtype == tf.string:
            np.testing.assert_array_equal(answer[name], value.numpy())
        else:
            np.testing.assert_allclose(answer[name], value, rtol=0, atol=1e-6)


def test_samples_can_omit_the_last_axis_of_size_one(tmp_path):
    model, _ = vectorization()
    folder = export_serving(model, tmp_path, samples=TEXTS, labels=["no", "yes"])
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = serve(inputs=tf.constant(TEXTS)[:, None])
    right = model(tf.constant(TEXTS)[:, None])
    np.testing.assert_allclose(found["outputs"], right, rtol=0, atol=1e-6)
    names = np.array([b"no", b"yes"])[np.argmax(right, -1)]
    np.testing.assert_array_equal(found["label"].numpy(), names)


@pytest.mark.slow
def test_a_subclassed_model_with_a_preprocessor_inside(tmp_path):
    class Texts(keras.Model):
        def __init__(self):
            super().__init__()
            self.front = files.text_preprocessor(8)
            self.embedding = layers.Embedding(20, 4)
            self.head = layers.Dense(2)

        def call(self, inputs):
            x = self.embedding(self.front(inputs)["token_ids"])
            return self.head(keras.ops.mean(x, axis=1))

    model = Texts()
    right = model(tf.constant(files.TEXTS))
    folder = export_serving(model, tmp_path, samples=files.TEXTS)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = serve(inputs=tf.constant(files.TEXTS))
    np.testing.assert_allclose(found["outputs"], right, rtol=0, atol=1e-6)


def test_adapters_of_a_model_with_a_table(tmp_path):
    model, _ = vectorization()
    for name in ("a", "b"):
        adapter = kt.adapters.LoRA(rank=2, targets=["dense.*", "embedding.*"])
        files.shaken(adapter.attach(model, name=name))
    # The export compares each example with each adapter separately.
    folder = export_serving(model, tmp_path, samples=TEXTS, adapters=["a", "b"])
    assert len(_tables(tf.saved_model.load(str(folder)))) == len(_tables(model))


def test_an_unused_table_is_not_written(tmp_path):
    model, samples = integers()
    model.spare = layers.StringLookup(vocabulary=["a", "b"])
    assert len(_tables(model)) == 2
    folder = export_serving(model, tmp_path, samples=samples)
    assert len(_tables(tf.saved_model.load(str(folder)))) == 1


def test_a_table_that_no_layer_owns_is_refused(tmp_path):
    values = tf.lookup.KeyValueTensorInitializer(["a"], [1])
    table = tf.lookup.StaticHashTable(values, 0)
    inputs = keras.Input((3,), dtype="string")
    numbers = layers.Lambda(lambda x: table.lookup(x), output_shape=(3,))(inputs)
    with pytest.raises(ValueError, match="no layer owns it"):
        export_serving(classifier(inputs, numbers), tmp_path)
    assert not files.everything(tmp_path)


class Drifting(layers.Layer):
    """A layer that returns different strings in each call."""

    def call(self, inputs):
        number = tf.random.uniform(tf.shape(inputs)[:1])
        return tf.strings.as_string(number)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape[:1], "string")


def test_strings_that_differ_are_not_published(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Drifting()(inputs))
    with pytest.raises(ValueError, match="another 'outputs' than the model"):
        export_serving(model, tmp_path, samples=np.ones((2, 3)))
    assert not files.everything(tmp_path)


@pytest.mark.slow
def test_find_learning_rate_takes_strings():
    model, _ = vectorization()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    x, y = np.array(TEXTS * 4), np.arange(16) % 2
    for texts in (x[:, None], tf.constant(x)[:, None], tf.constant(x)):
        curve = kt.find_learning_rate(model, (texts, y), steps=12)
        assert np.isfinite(curve.losses[0])


def _column(model, name, values):
    values = values.astype(object) if values.dtype.kind == "U" else values
    encode = np.vectorize(lambda each: each.encode(), otypes=[object])
    values = encode(values) if values.dtype == object else values
    inputs = model.input[name] if len(model.inputs) > 1 else model.inputs[0]
    values = values.reshape(len(values), *inputs.shape[1:])
    return values if values.dtype == object else values.astype(inputs.dtype)


def _tables(root):
    kind = tf.saved_model.experimental.TrackableResource
    below = tf.train.TrackableView(root).descendants()
    return [each for each in below if isinstance(each, kind)]
