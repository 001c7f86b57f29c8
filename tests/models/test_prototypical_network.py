"""PrototypicalNetwork: prototypes by hand, episodes, classes that come and go."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import NearestCentroid

import keras_transfer as kt
from keras_transfer.models import PrototypicalNetwork
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.model_contract import ModelContract

LEFT = np.array([[-1.0, 0.0], [-3.0, 0.0]], "float32")
RIGHT = np.array([[2.0, 0.0]], "float32")
ASKED = np.array([[1.0, 0.0], [-1.0, 5.0]], "float32")


def identity(width=2):
    return keras.Sequential([keras.Input((width,)), keras.layers.Identity()])


def in_the_plane(**kwargs):
    """Return a model of two classes in the plane, without weights to train."""
    model = PrototypicalNetwork(identity(), **kwargs)
    return model.add_class("left", LEFT).add_class("right", RIGHT)


def network():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, name="dense")])


def points(seed=0):
    """Return episodes of three classes around random centers, and the classes."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(0, 3, (8, 3, 1, 4))
    support = centers + rng.normal(0, 1, (8, 3, 2, 4))
    query = centers + rng.normal(0, 1, (8, 3, 5, 4))
    numbers = np.tile(np.repeat(np.arange(3), 5), (8, 1))
    episode = {"support": support, "query": query.reshape(8, 15, 4)}
    return {key: each.astype("float32") for key, each in episode.items()}, numbers


class TestContract(ModelContract):
    """A model with classes. It trains without them, and gets them again."""

    loss = None
    metrics = ("accuracy",)
    with_classes = True
    half_tolerance = 0.5  # of squared distances up to 60

    def make(self):
        keras.utils.set_random_seed(3)
        return self.filled(PrototypicalNetwork(network(), temperature=4.0))

    def filled(self, model):
        if self.with_classes:
            for number in range(2):
                model.add_class(f"class {number}", self.inputs()[4 * number :][:3])
        return model

    def trained(self, *args, **kwargs):
        self.with_classes = False
        try:
            model = super().trained(*args, **kwargs)
        finally:
            self.with_classes = True
        return model if model.class_names else self.filled(model)

    def inputs(self):
        return np.random.default_rng(1).normal(0, 1, (8, 4)).astype("float32")

    def training_inputs(self):
        return points()[0]

    def targets(self):
        return points()[1]


def test_two_classes_in_the_plane_by_hand():
    model = in_the_plane()
    # The prototypes are (-2, 0) and (2, 0).
    assert array(model.predict(ASKED, verbose=0)).tolist() == [[-9, -1], [-26, -34]]
    assert model.classify(ASKED) == ["right", "left"]
    assert model.class_names == ("left", "right")
    cosine = in_the_plane(distance="cosine", temperature=0.5)
    expected = [[-2.0, 2.0], [2 / 26**0.5, -2 / 26**0.5]]
    np.testing.assert_allclose(cosine.predict(ASKED, verbose=0), expected, rtol=1e-5)
    origin = cosine.predict(np.zeros((1, 2)), verbose=0)
    assert origin.tolist() == [[0.0, 0.0]]


def test_classes_as_scikit_learn_finds_them():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (60, 5)) + 100, rng.permutation(np.arange(60) % 4)
    model = PrototypicalNetwork(identity(5))
    for number in range(4):
        model.add_class(str(number), x[y == number])
    right = NearestCentroid().fit(x, y)
    asked = rng.normal(0, 1, (200, 5)) + 100
    assert model.classify(asked) == [str(each) for each in right.predict(asked)]
    distances = np.square(asked[:, None] - right.centroids_).sum(-1)
    np.testing.assert_allclose(-model.predict(asked, verbose=0), distances, atol=1e-3)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_episodes_are_the_classes_that_add_class_would_make(distance):
    backbone = network()
    model = PrototypicalNetwork(backbone, distance=distance, temperature=2.0)
    x, numbers = points()
    scores = array(run(model, x))
    assert scores.shape == (8, 15, 3)
    for support, query, found in zip(x["support"], x["query"], scores, strict=True):
        other = PrototypicalNetwork(backbone, distance=distance, temperature=2.0)
        for number, examples in enumerate(support):
            other.add_class(f"{number}", examples, batch_size=1)
        np.testing.assert_allclose(array(run(other, query)), found, atol=1e-4)
        break
    logs = scores - scores.max(-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
    loss = -np.take_along_axis(logs, numbers[..., None], -1).mean()
    model.compile("sgd", metrics=["accuracy"], jit_compile=False)
    found = model.evaluate(x, numbers, batch_size=8, verbose=0)
    right = (scores.argmax(-1) == numbers).mean()
    np.testing.assert_allclose(found, [loss, right], rtol=1e-5)


def test_training_separates_classes_that_a_random_network_mixes():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(30), 12)
    # The class is in one of six numbers. The others are noise.
    x = rng.normal(0, 4, (360, 6)).astype("float32")
    x[:, 2] = rng.normal(0, 8, 30)[y] + rng.normal(0, 0.1, 360)
    rest, held_out = kt.data.hold_out_classes(x, y, range(20, 30))
    model = PrototypicalNetwork(
        keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    )
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy"], jit_compile=False)
    settings = dict(num_episodes=64, batch_size=8)
    test = kt.data.episodes(*held_out, 3, 2, 5, shuffle=False, **settings)
    before = model.evaluate(test, verbose=0)[1]
    train = kt.data.episodes(*rest, 3, 2, 5, **settings)
    model.fit(train, epochs=8, shuffle=False, verbose=0)
    assert before < 0.75 < 0.85 < model.evaluate(test, verbose=0)[1]


def test_masked_texts_do_not_depend_on_their_padding():
    model = PrototypicalNetwork(tiny.bert(num_layers=1, dropout=0.0))
    ids = np.random.default_rng(0).integers(1, 64, (6, 5)).astype("int32")
    x = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": ids * 0 + 1}
    longer = {
        key: np.pad(each, ((0, 0), (0, 3)), constant_values=(key == "token_ids") * 9)
        for key, each in x.items()
    }
    parts = [{k: each[rows] for k, each in x.items()} for rows in (slice(3), [3, 4])]
    model.add_class("first", parts[0]).add_class("second", parts[1])
    np.testing.assert_allclose(
        array(run(model, x)), array(run(model, longer)), atol=1e-4
    )
    episode = {
        "support": {k: each[:4].reshape(1, 2, 2, 5) for k, each in x.items()},
        "query": {k: each[None, 4:] for k, each in x.items()},
    }
    padded = {
        "support": {k: each[:4].reshape(1, 2, 2, 8) for k, each in longer.items()},
        "query": {k: each[None, 4:] for k, each in longer.items()},
    }
    np.testing.assert_allclose(
        array(run(model, episode)), array(run(model, padded)), atol=1e-4
    )


def test_classes_come_and_go_at_once():
    model = in_the_plane()
    assert model.predict(ASKED, verbose=0).shape == (2, 2)
    model.add_class("up", np.array([[0.0, 5.0]]))
    assert model.class_names == ("left", "right", "up")
    assert model.classify(ASKED) == ["right", "up"]
    model.remove_class("left")
    assert model.class_names == ("right", "up")
    assert model.predict(ASKED, verbose=0).tolist() == [[-1, -26], [-34, -1]]
    model.compile(metrics=["accuracy"], jit_compile=False)
    assert model.evaluate(ASKED, np.array([0, 1]), verbose=0)[1] == 1.0
    model.remove_class("right")
    model.remove_class("up")
    assert model.class_names == ()
    with pytest.raises(ValueError, match="The model has no classes"):
        model.predict(ASKED, verbose=0)


def test_the_threshold_rejects_the_share_that_was_asked_for():
    model = PrototypicalNetwork(identity(1)).add_class("zero", np.zeros((1, 1)))
    x = np.arange(20.0)[:, None]  # scores 0, -1, -4, ...
    found = model.fit_unknown(x, ["zero"] * 20, rate=0.1)
    assert found == (-(17.0**2), 0.1, None)
    assert model.unknown_threshold == -(17.0**2)
    assert model.classify(np.array([[17.0], [17.1]])) == ["zero", "unknown"]
    names = ["zero"] * 10 + ["other"] * 10
    found = model.fit_unknown(x, names, rate=0.0)
    assert found == (-81.0, 0.0, 0.0)
    assert model.fit_unknown(x[::-1], names, rate=0.3).unknown_accepted == 1.0
    model.forget_unknown()
    assert model.unknown_threshold is None
    assert model.classify(np.array([[1e6]])) == ["zero"]


def test_a_file_has_the_classes_and_the_threshold(tmp_path):
    model = in_the_plane()
    model.fit_unknown(LEFT, ["left", "left"], rate=0.0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.class_names == ("left", "right")
    assert again.unknown_threshold == -1.0
    assert again.classify(np.array([[-3.0, 0.0], [9.0, 9.0]])) == ["left", "unknown"]
    again.add_class("up", np.array([[0.0, 5.0]]))
    assert again.predict(ASKED, verbose=0).shape == (2, 3)
    empty = PrototypicalNetwork(identity())
    empty.save(tmp_path / "empty.keras")
    loaded = keras.saving.load_model(tmp_path / "empty.keras")
    assert loaded.class_names == () and loaded.add_class("left", LEFT)


def test_reloads_with_adapters(tmp_path):
    model = PrototypicalNetwork(tiny.mlp())
    kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, verbose=0)
    x = np.random.default_rng(0).normal(0, 1, (6, 6)).astype("float32")
    model.add_class("first", x[:3]).add_class("second", x[3:])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(run(again, x), run(model, x), 1e-5)


def test_serves_the_names_and_unknown(tmp_path):
    model = in_the_plane()
    folder = kt.export_serving(model, tmp_path / "plain", samples=ASKED, features=True)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = serve(inputs=tf.constant(ASKED))
    assert answer["label"].numpy().tolist() == [b"right", b"left"]
    assert answer["outputs"].numpy().tolist() == [[-9, -1], [-26, -34]]
    model.add_class("up", np.array([[0.0, 5.0]]))
    model.fit_unknown(LEFT, ["left", "left"], rate=0.0)
    folder = kt.export_serving(model, tmp_path / "more", samples=ASKED)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = serve(inputs=tf.constant([[-1.0, 5.0], [-1.0, 50.0]]))
    assert answer["label"].numpy().tolist() == [b"up", b"unknown"]
    assert answer["label_id"].numpy().tolist() == [2, -1]


def test_serves_image_files(tmp_path):
    backbone = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()]
    )
    model = PrototypicalNetwork(backbone)
    colors = np.zeros((2, 4, 4, 3), "float32")
    colors[0, ..., 0], colors[1, ..., 2] = 255, 255
    model.add_class("red", colors[:1]).add_class("blue", colors[1:])
    files = [tf.io.encode_png(each.astype("uint8")).numpy() for each in colors[::-1]]
    folder = kt.export_serving(
        model, tmp_path, preprocessor=kt.export.ImageBytes(scale=1.0), samples=files
    )
    serve = tf.saved_model.load(str(folder)).signatures["image_bytes"]
    answer = serve(image_bytes=tf.constant(files))
    assert answer["label"].numpy().tolist() == [b"blue", b"red"]


def test_bad_input_is_refused_and_changes_nothing():
    model = in_the_plane()
    with pytest.raises(ValueError, match="There is a class 'left' already"):
        model.add_class("left", LEFT)
    with pytest.raises(ValueError, match="Choose another name"):
        model.add_class("unknown", LEFT)
    with pytest.raises(ValueError, match="is a str, not 3"):
        model.add_class(3, LEFT)
    with pytest.raises(ValueError, match=r"have the shape \(2, 3\)"):
        model.add_class("up", np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"have the shape \(2,\)"):
        model.add_class("up", LEFT[0])
    with pytest.raises(ValueError, match="at least one"):
        model.add_class("up", LEFT[:0])
    with pytest.raises(ValueError, match="features of the examples are NaN"):
        model.add_class("up", LEFT * np.nan)
    with pytest.raises(ValueError, match=r"are \['a'\], but the model takes"):
        model.add_class("up", {"a": LEFT})
    with pytest.raises(ValueError, match="There is no class 'up'"):
        model.remove_class("up")
    with pytest.raises(ValueError, match="None of the examples has a class"):
        model.fit_unknown(LEFT, ["up", "up"])
    with pytest.raises(ValueError, match="but y has the shape"):
        model.fit_unknown(LEFT, ["left"])
    with pytest.raises(ValueError, match="rate=2"):
        model.fit_unknown(LEFT, ["left"] * 2, rate=2)
    with pytest.raises(ValueError, match="scores of the examples are NaN"):
        model.fit_unknown(LEFT * np.nan, ["left"] * 2)
    assert model.class_names == ("left", "right") and model.unknown_threshold is None
    assert model.predict(ASKED, verbose=0).tolist() == [[-9, -1], [-26, -34]]
    with pytest.raises(ValueError, match="distance='manhattan'"):
        PrototypicalNetwork(identity(), distance="manhattan")
    with pytest.raises(ValueError, match="temperature=0"):
        PrototypicalNetwork(identity(), temperature=0)


def test_bad_episodes_are_refused():
    model = PrototypicalNetwork(network())
    model.compile("sgd", jit_compile=False, run_eagerly=True)
    x, numbers = points()
    with pytest.raises(ValueError, match="`fit` got plain examples"):
        model.fit(x["query"][:, 0], numbers[:, 0], verbose=0)
    one = {"support": x["support"][:, :1], "query": x["query"]}
    with pytest.raises(ValueError, match="The episodes have 1 class"):
        model(one)
    with pytest.raises(ValueError, match="The support set has the shape"):
        model({"support": x["support"][..., :3], "query": x["query"]})
    model.add_class("first", x["support"][0, 0])
    with pytest.raises(ValueError, match="has the classes first. Their prototypes"):
        model.fit(x, numbers, verbose=0)
    model.backbone.trainable = False
    model.compile("sgd", jit_compile=False, run_eagerly=True)
    assert model.evaluate(x, numbers, verbose=0) > 0


def test_each_replica_needs_an_episode(strategy):
    with strategy.scope():
        model = PrototypicalNetwork(network())
        model.compile("sgd", jit_compile=False)
    x, y = np.zeros((8, 4), "float32"), np.arange(8) % 2
    data = kt.data.episodes(x, y, 2, 1, 1, num_episodes=2)
    with pytest.raises(ValueError, match="A batch has 1 episodes, but there are 2"):
        model.fit(data, shuffle=False, verbose=0)
    # Outside of the scope:
    model.add_class("zero", x)
    assert model.predict(np.ones((2, 4)), verbose=0).shape == (2, 1)
