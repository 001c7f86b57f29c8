"""MAML: its gradient by hand and by differences, its states, and wrong episodes."""

import functools

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.models import ANIL
from keras_transfer.models import MAML
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.model_contract import ModelContract

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@functools.cache
def tasks():
    """Return 8 episodes of three classes around random centers, and the classes."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 2, (8, 3, 1, 4))
    support = centers + rng.normal(0, 1, (8, 3, 2, 4))
    query = centers + rng.normal(0, 1, (8, 3, 5, 4))
    numbers = np.tile(np.repeat(np.arange(3), 5), (8, 1))
    episode = {"support": support, "query": query.reshape(8, 15, 4)}
    return {key: each.astype("float32") for key, each in episode.items()}, numbers


def with_targets(x):
    """Return episodes of classes with their classes as targets."""
    support = x["support"].reshape(len(x["support"]), 6, 4)
    classes = np.tile(np.repeat(np.arange(3), 2), (len(support), 1))
    return {"support": support, "support_y": classes, "query": x["query"]}


def network(*middle):
    keras.utils.set_random_seed(2)
    hidden = keras.layers.Dense(5, "tanh", name="hidden")
    head = keras.layers.Dense(3, name="last")
    return keras.Sequential([keras.Input((4,)), hidden, *middle, head])


def compiled(model, rate=1.0, loss=SPARSE, **settings):
    settings = dict(metrics=["accuracy"], jit_compile=False) | settings
    model.compile(keras.optimizers.SGD(rate), loss, **settings)
    return model


def first(count, x=None):
    """Return the first episodes, and their classes."""
    x, y = tasks() if x is None else (x, tasks()[1])
    return keras.tree.map_structure(lambda rows: rows[:count], x), y[:count]


class Contract(ModelContract):
    loss = SPARSE
    metrics = ("accuracy",)

    def inputs(self):
        return np.random.default_rng(1).normal(0, 1, (8, 4)).astype("float32")

    def training_inputs(self):
        return tasks()[0]

    def targets(self):
        return tasks()[1]

    test_symbolic_output_equals_eager = None  # a model around a model has no output
    test_exports = None  # the model of `adapt` is exported


class TestMAML(Contract):
    def make(self):
        return MAML(network(), 0.1, 2)


class TestANIL(Contract):
    def make(self):
        return ANIL(network(), 0.1, 2, first_order=True, batch_norm="support")


def test_episodes_of_other_sizes_follow_each_other():
    x, y = tasks()
    model = compiled(MAML(network(), 0.1, 2))
    for shot, queries in ((1, 15), (2, 6)):
        support, query = x["support"][:, :, :shot], x["query"][:, :queries]
        part = {"support": support, "query": query}, y[:, :queries]
        alone = compiled(MAML(model.model, 0.1, 2))
        found = model.evaluate(*part, verbose=0)
        assert_close(found, alone.evaluate(*part, verbose=0))


@pytest.mark.parametrize("first_order", [False, True])
def test_the_gradient_of_a_line_by_hand(first_order):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (2, 3, 6, 1)).astype("float32")
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((1,)), dense])
    maml = MAML(model, 0.1, 2, first_order=first_order)
    compiled(maml, 0.5, "mse", metrics=[])
    before, slopes, losses = float(array(dense.kernel)[0, 0]), [], []
    for a, b, c, d in zip(x[:, :4], y[:, :4], x[:, 4:], y[:, 4:], strict=True):
        w = before
        for _ in range(2):
            w -= 0.1 * 2 * np.mean(a * (w * a - b))
        # Each step multiplies the derivative of w by 1 - 0.1 * 2 mean(a^2).
        through = 1 if first_order else (1 - 0.2 * np.mean(a**2)) ** 2
        slopes.append(2 * np.mean(c * (w * c - d)) * through)
        losses.append(np.mean((w * c - d) ** 2))
    episodes = {"support": x[:, :4], "support_y": y[:, :4], "query": x[:, 4:]}
    loss = maml.train_on_batch(episodes, y[:, 4:])
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    after = float(array(dense.kernel)[0, 0])
    assert after == pytest.approx(before - 0.5 * np.mean(slopes), rel=1e-5)


def softmax_loss(weights, x, y):
    """Return the loss and the gradients of the network in float64."""
    kernel, bias, last, end = weights
    hidden = np.tanh(x @ kernel + bias)
    logits = hidden @ last + end
    powers = np.exp(logits - logits.max(1, keepdims=True))
    p = powers / powers.sum(1, keepdims=True)
    rows = np.arange(len(y))
    error = p.copy()
    error[rows, y] -= 1
    error /= len(y)
    back = error @ last.T * (1 - hidden**2)
    slopes = [x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]
    return -np.log(p[rows, y]).mean(), slopes


def oracle(weights, x, y, moved, at=None):
    """Return the mean loss of the queries after two steps, and the adapted weights.

    With `at`, the gradients of the steps are those of other weights, as constants.
    """
    losses, found = [], []
    for place in range(len(y)):
        support, classes = x["support"][place].reshape(6, 4), np.repeat([0, 1, 2], 2)
        now, fixed = list(weights), list(at or weights)
        for _ in range(2):
            slopes = softmax_loss(fixed, support, classes)[1]
            step = [0.3 * g * (i in moved) for i, g in enumerate(slopes)]
            now = [w - g for w, g in zip(now, step, strict=True)]
            fixed = [w - g for w, g in zip(fixed, step, strict=True)] if at else now
        losses.append(softmax_loss(now, x["query"][place], y[place])[0])
        found.append(now)
    return np.mean(losses), found


@pytest.mark.parametrize("kind", [MAML, ANIL])
@pytest.mark.parametrize("first_order", [False, True])
def test_gradients_are_the_differences_of_an_oracle(kind, first_order):
    x, y = first(2)
    model = network()
    maml = compiled(kind(model, 0.3, 2, first_order=first_order))
    weights = [each.astype("float64") for each in model.get_weights()]
    moved = (2, 3) if kind is ANIL else (0, 1, 2, 3)
    at = weights if first_order else None
    loss = maml.train_on_batch(x, y)[0]
    assert float(loss) == pytest.approx(oracle(weights, x, y, moved, at)[0], rel=1e-4)
    for place, after in enumerate(model.get_weights()):
        slope = np.zeros(after.shape)
        for index in np.ndindex(after.shape):
            ends = []
            for step in (1e-5, -1e-5):
                other = [each.copy() for each in weights]
                other[place][index] += step
                ends.append(oracle(other, x, y, moved, at)[0])
            slope[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(weights[place] - after, slope, atol=2e-6)


@pytest.mark.parametrize("kind", ["BatchNormalization", "LayerNormalization"])
def test_gradients_go_through_normalization(kind):
    x, y = first(2)
    model = network(getattr(keras.layers, kind)())
    maml = compiled(MAML(model, 1.0, 1), metrics=[])
    before = model.get_weights()
    maml.train_on_batch(x, y)
    slope = (before[2] - model.get_weights()[2], before[0] - model.get_weights()[0])
    for place, expected in zip((2, 0), slope, strict=True):
        for index in np.ndindex(expected.shape):
            ends = []
            for step in (5e-3, -5e-3):
                moved = [each.copy() for each in before]
                moved[place][index] += step
                model.set_weights(moved)
                ends.append(float(maml.test_on_batch(x, y)))
            found = (ends[0] - ends[1]) / 1e-2
            assert found == pytest.approx(expected[index], abs=2e-3)


def test_targets_of_the_support_set_are_the_classes_in_order():
    maml = compiled(MAML(network(), 0.1, 2), run_eagerly=True)
    x, y = tasks()
    expected = maml.predict(x, verbose=0)
    assert expected.shape == (8, 15, 3)
    assert_close(maml.predict(with_targets(x), verbose=0), expected, 1e-6)
    scores = maml.evaluate(x, y, verbose=0)
    assert_close(maml.evaluate(with_targets(x), y, verbose=0), scores, 1e-6)
    np.testing.assert_allclose(scores[1], (expected.argmax(-1) == y).mean(), rtol=1e-6)
    # Plain examples go to the model without a step.
    assert_close(maml.predict(x["query"][0], verbose=0), run(maml.model, x["query"][0]))


def test_adapt_takes_the_steps_of_sgd_in_fit():
    l2 = keras.regularizers.L2(0.1)
    layers = [
        keras.layers.Dense(
            5, "tanh", kernel_regularizer=l2, kernel_constraint="non_neg"
        ),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(3, activity_regularizer=l2),
    ]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), *layers])
    maml = compiled(MAML(model, 0.2, 1))
    x, _ = first(1)
    before = model.get_weights()
    adapted = maml.adapt(x["support"][0], steps=4)
    assert type(adapted) is keras.Sequential and not adapted.compiled
    assert_close(model.get_weights(), before)
    model.compile(keras.optimizers.SGD(0.2), SPARSE, jit_compile=False)
    x, y = x["support"].reshape(6, 4), np.repeat(np.arange(3), 2)
    model.fit(x, y, batch_size=6, epochs=4, shuffle=False, verbose=0)
    trained = [array(each) for each in model.trainable_variables]
    assert_close(adapted.trainable_variables, trained, 1e-5)
    assert np.abs(trained[0] - before[0]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["batch", "support", "frozen"])
def test_nothing_of_an_episode_stays_in_batch_norm(policy):
    model = network(keras.layers.BatchNormalization(name="norm"))
    norm = model.get_layer("norm")
    rng = np.random.default_rng(0)
    norm.moving_mean.assign(rng.normal(0, 1, 5))
    norm.moving_variance.assign(rng.uniform(0.5, 2, 5))
    maml = compiled(MAML(model, 0.1, 2, batch_norm=policy), 0.1, run_eagerly=True)
    statistics = [array(x) for x in (norm.moving_mean, norm.moving_variance)]
    x, y = tasks()
    maml.fit(x, y, batch_size=4, verbose=0)
    maml.evaluate(x, y, batch_size=4, verbose=0)
    answers = maml.predict(x, verbose=0)
    assert_close([norm.moving_mean, norm.moving_variance], statistics)
    assert norm.momentum == 0.99 and model.losses == []
    adapted = maml.adapt(x["support"][1])
    own = run(adapted, x["query"][1])
    gap = np.abs(array(own) - answers[1]).max()
    assert gap > 0.01 if policy == "batch" else gap < 1e-5
    hidden = array(adapted.get_layer("hidden")(x["support"][1].reshape(6, 4)))
    expected = statistics if policy == "frozen" else [hidden.mean(0), hidden.var(0)]
    found = adapted.get_layer("norm").non_trainable_variables
    assert_close(found, expected, 1e-5)
    if policy == "batch":
        inputs = adapted.get_layer("hidden")(x["query"][1])
        inputs = adapted.get_layer("norm")(inputs, training=True)
        found = adapted.get_layer("last")(inputs)
        assert_close(found, answers[1], 1e-5)
    # An answer depends on the other queries only with the statistics of the batch.
    alone = x | {"query": x["query"][:, :3]}
    same = np.allclose(maml.predict(alone, verbose=0), answers[:, :3], atol=1e-5)
    assert same == (policy != "batch")


@pytest.mark.slow
def test_a_frozen_norm_and_frozen_layers_keep_their_weights():
    model = network(keras.layers.BatchNormalization(name="norm"))
    model.get_layer("norm").trainable = False
    model.get_layer("hidden").trainable = False
    maml = compiled(MAML(model, 0.1, 2), 0.1, run_eagerly=True)
    before = model.get_weights()
    x, y = tasks()
    maml.fit(x, y, batch_size=4, verbose=0)
    adapted = maml.adapt(x["support"][0])
    for found in (model.get_weights(), adapted.get_weights()):
        assert_close(found[:6], before[:6])
        assert np.abs(found[6] - before[6]).max() > 1e-3
    assert [each.trainable for each in adapted.layers] == [False, False, True]


def test_anil_adapts_only_the_head():
    model = network()
    anil = compiled(ANIL(model, 0.3, 3), 0.1, run_eagerly=True)
    before = model.get_weights()
    adapted = anil.adapt(tasks()[0]["support"][0]).get_weights()
    assert_close(adapted[:2], before[:2])
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(adapted[2:], before[2:]))
    other = compiled(ANIL(model, 0.3, 3, head="hidden"))
    adapted = other.adapt(tasks()[0]["support"][0]).get_weights()
    assert_close(adapted[2:], before[2:])
    assert np.abs(adapted[0] - before[0]).max() > 1e-3
    anil.fit(*tasks(), verbose=0)
    after = model.get_weights()
    assert all(np.abs(a - b).max() > 1e-5 for a, b in zip(after, before, strict=True))
    classifier = kt.models.TransferClassifier(tiny.mlp((6, 4)), 3)
    found = ANIL(classifier, 0.3, 3)._adapted()
    assert [id(x) for x in found] == [id(x) for x in classifier.layers[-1].weights]
    with pytest.raises(ValueError, match="head='top' is the name of 0 layers"):
        ANIL(model, 0.1, 1, head="top")
    model.get_layer("last").trainable = False
    with pytest.raises(ValueError, match="head of .* has no weight to train"):
        ANIL(model, 0.1, 1, head="last")


def test_dropout_differs_between_episodes_and_only_fit_moves_its_seed():
    dropout = keras.layers.Dropout(0.5, seed=3)
    model = network(dropout)
    maml = compiled(MAML(model, 0.5, 2), 0.0)
    x, y = first(1)
    same = keras.tree.map_structure(lambda rows: np.repeat(rows, 3, 0), x)
    seed = dropout.seed_generator.state
    before = array(seed)
    answers = maml.predict(same, verbose=0)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
    assert_close(maml.predict(same, verbose=0), answers)
    assert_close(array(seed), before)
    # The first episode has the seeds of the model, as `adapt` has.
    adapted = maml.adapt(x["support"][0])
    assert_close(run(adapted, x["query"][0]), answers[0], 1e-5)
    maml.train_on_batch(same, np.repeat(y, 3, 0))
    # Two steps, and the query set.
    assert (array(seed) - before).tolist() == [0, 3]


@pytest.mark.slow
def test_masked_texts_and_their_padding():
    backbone = tiny.bert(num_layers=1, dropout=0.0)
    maml = MAML(kt.models.TransferClassifier(backbone, 2), 0.1, 1)
    compiled(maml, 0.01, run_eagerly=True)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 64, (2, 8, 5)).astype("int32")
    x = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": ids * 0 + 1}
    longer = {
        key: np.pad(each, ((0, 0), (0, 0), (0, 3)), constant_values=value)
        for (key, each), value in zip(x.items(), (9, 0, 0), strict=True)
    }

    def episode(x):
        support = {k: v[:, :4].reshape(2, 2, 2, -1) for k, v in x.items()}
        return {"support": support, "query": {k: v[:, 4:] for k, v in x.items()}}

    answers = maml.predict(episode(x), verbose=0)
    assert answers.shape == (2, 4, 2)
    assert_close(maml.predict(episode(longer), verbose=0), answers, 1e-4)
    maml.fit(episode(x), np.tile([0, 0, 1, 1], (2, 1)), verbose=0)
    adapted = maml.adapt({k: v[0] for k, v in episode(x)["support"].items()})
    assert run(adapted, {k: v[0] for k, v in x.items()}).shape == (8, 2)


@keras.saving.register_keras_serializable("test_maml")
class Own(keras.Model):
    """A subclassed model, in which a layer adds a loss and a weight has no use."""

    def __init__(self, idle=False, **kwargs):
        super().__init__(**kwargs)
        self.idle = idle
        self.hidden = keras.layers.Dense(5, activity_regularizer="l2")
        self.last = keras.layers.Dense(3)
        self.unused = keras.layers.Dense(2)

    def build(self, shape):
        self.hidden.build(shape)
        self.last.build((None, 5))
        if self.idle:
            self.unused.build((None, 5))

    def call(self, x):
        return self.last(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "idle": self.idle}


def test_a_subclassed_model(tmp_path):
    model = Own()
    model.build((None, 4))
    maml = compiled(MAML(model, 0.1, 1), 0.1, run_eagerly=True)
    x, y = tasks()
    losses = maml.fit(x, y, batch_size=8, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    # The losses that layers add in the answers count once.
    maml.evaluate(x, y, batch_size=8, verbose=0)
    found = maml.evaluate(x, y, batch_size=8, verbose=0)[0]
    hidden = [maml.adapt(each).hidden(q) for each, q in zip(x["support"], x["query"])]
    added = np.mean([0.01 * np.square(each).sum() / 15 for each in hidden])
    plain = SPARSE(y, maml.predict(x, verbose=0))
    assert found == pytest.approx(float(plain) + added, rel=1e-3)
    model.hidden.trainable = False
    compiled(maml, run_eagerly=True)
    maml.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert len(again.trainable_variables) == 2
    assert_close(again.predict(x, verbose=0), maml.predict(x, verbose=0), 1e-6)
    idle = Own(idle=True)
    idle.build((None, 4))
    maml = compiled(MAML(idle, 0.1, 1), run_eagerly=True)
    with pytest.raises(ValueError, match="2 of 6 trainable weights .*/kernel, .*/bias"):
        maml.fit(x, y, verbose=0)


def test_bad_arguments():
    model = network()
    with pytest.raises(TypeError, match="model is a str, not a Keras model"):
        MAML("model", 0.1, 1)
    with pytest.raises(ValueError, match="inner_rate=0 must be"):
        MAML(model, 0, 1)
    with pytest.raises(ValueError, match="inner_rate=nan must be"):
        MAML(model, float("nan"), 1)
    with pytest.raises(ValueError, match="inner_steps=0 must be"):
        MAML(model, 0.1, 0)
    with pytest.raises(ValueError, match="first_order='yes' must be one of"):
        MAML(model, 0.1, 1, first_order="yes")
    with pytest.raises(ValueError, match="batch_norm='moving' must be one of"):
        MAML(model, 0.1, 1, batch_norm="moving")
    with pytest.raises(ValueError, match="is not built"):
        MAML(keras.Sequential([keras.layers.Dense(1)]), 0.1, 1)
    with pytest.raises(ValueError, match="has 2 outputs"):
        MAML(keras.Model(model.inputs, model.outputs * 2), 0.1, 1)
    norm = keras.layers.BatchNormalization(synchronized=True)
    with pytest.raises(ValueError, match="has synchronized=True"):
        MAML(network(norm), 0.1, 1)
    MAML(network(norm), 0.1, 1, batch_norm="frozen")
    frozen = network()
    frozen.trainable = False
    with pytest.raises(ValueError, match="has no weight to train"):
        MAML(frozen, 0.1, 1)


def test_bad_compile():
    maml = MAML(network(), 0.1, 1)
    x, y = tasks()
    for call in (lambda: maml.adapt(x["support"][0]), lambda: maml(x)):
        with pytest.raises(ValueError, match="is not compiled, so the loss of the"):
            call()
    with pytest.raises(ValueError, match="follow one loss. Pass one"):
        maml.compile("sgd")
    with pytest.raises(ValueError, match="follow one loss. Pass one"):
        maml.compile("sgd", ["mse", "mse"])
    with pytest.raises(ValueError, match="loss_weights=2 has no use"):
        maml.compile("sgd", "mse", loss_weights=2)
    assert not maml.compiled


def test_bad_episodes():
    maml = compiled(MAML(network(), 0.1, 1), run_eagerly=True)
    x, y = tasks()
    with pytest.raises(ValueError, match="`fit` got plain examples"):
        maml.fit(x["query"][:, 0], y[:, 0], verbose=0)
    with pytest.raises(ValueError, match="The episodes have 1 class"):
        maml(x | {"support": x["support"][:, :1]})
    with pytest.raises(ValueError, match="The support set has the shape"):
        maml(x | {"support": x["support"][..., :3]})
    with pytest.raises(ValueError, match=r"has the shape \(3,\), but .* takes \(4,\)"):
        maml({key: each[..., :3] for key, each in x.items()})
    more = np.concatenate([x["support"]] * 2, axis=1)
    with pytest.raises(ValueError, match="have 6 classes, but .* has 3 outputs"):
        maml(x | {"support": more})
    given = with_targets(x)
    with pytest.raises(ValueError, match=r"its targets \(8, 5\)"):
        maml(given | {"support_y": given["support_y"][:, 1:]})
    maml.model.trainable = False
    with pytest.raises(ValueError, match="has no weight to train"):
        maml.fit(x, y, verbose=0)


def test_bad_support_sets_change_nothing():
    maml = compiled(MAML(network(), 0.1, 1))
    before = maml.get_weights()
    x, y = tasks()[0]["support"][0], np.repeat(np.arange(3), 2)
    rows = x.reshape(6, 4)
    with pytest.raises(ValueError, match="steps=0 must be"):
        maml.adapt(x, steps=0)
    with pytest.raises(ValueError, match=r"without y it must be \(way, shot"):
        maml.adapt(x[:1])
    with pytest.raises(ValueError, match=r"has the shape \(2, 4\), but .* \(4,\)"):
        maml.adapt(x, [0, 1, 2])
    with pytest.raises(ValueError, match="but y has the shape"):
        maml.adapt(rows, y[:5])
    with pytest.raises(ValueError, match="are a dictionary of"):
        maml.adapt({"a": rows}, y)
    with pytest.raises(ValueError, match="has one class, 1"):
        maml.adapt(rows, y * 0 + 1)
    with pytest.raises(ValueError, match="has the class 3, but"):
        maml.adapt(rows, y + 1)
    with pytest.raises(ValueError, match="The classes of the support set are -1"):
        maml.adapt(rows, y - 1)
    with pytest.raises(ValueError, match="values that are NaN"):
        maml.adapt(rows * np.nan, y)
    linear = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    wild = compiled(MAML(linear, 1e6, 20), loss="mse")
    with pytest.raises(ValueError, match="NaN or infinite after 20 steps"):
        wild.adapt(rows, np.ones((6, 1)))
    assert_close(maml.get_weights(), before)


def test_each_replica_needs_an_episode(strategy):
    with strategy.scope():
        maml = compiled(MAML(network(), 0.1, 1))
    x, y = np.zeros((8, 4), "float32"), np.arange(8) % 2
    data = kt.data.episodes(x, y, 2, 1, 1, num_episodes=2)
    with pytest.raises(ValueError, match="A batch has 1 episodes, but there are 2"):
        maml.fit(data, shuffle=False, verbose=0)
    adapted = maml.adapt(np.ones((2, 4)), np.array([0, 1]))
    assert adapted.predict(x, verbose=0).shape == (8, 3)
