"""RecurrentClassifier: padding, the head of the paper, thawing, strings, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.compute import exports
from tests.contracts.model_contract import ModelContract
from tests.models.test_recurrent_language_model import IDS
from tests.models.test_recurrent_language_model import small
from tests.models.test_recurrent_language_model import WORDS

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TEXTS = np.array(["good book", "bad plot", "not bad", "not good book"] * 8, object)
LABELS = np.array([1, 0, 1, 0] * 8)


class TestRecurrentClassifier(ModelContract):
    loss = LOSS

    def make(self):
        return small().classifier(3, units=6, dropout=0.0, batch_norm=False)

    def inputs(self):
        ids = np.random.default_rng(2).integers(1, 9, size=(8, 6)).astype("int32")
        return np.where(np.arange(6) < np.arange(1, 9)[:, None], ids, 0)

    def targets(self):
        return np.arange(8) % 3


@pytest.mark.parametrize("before, after", [(0, 7), (7, 0)])
def test_padding_changes_no_output(before, after):
    model = small().classifier(2)
    padded = np.pad(IDS, ((0, 0), (before, after)))
    expected = array(run(model, IDS))
    assert_close(run(model, padded), expected, 1e-5)
    both = np.concatenate([padded, np.pad(IDS[:, :5], ((0, 0), (0, 14)))])
    assert_close(run(model, both)[:2], expected, 1e-5)
    assert_close(run(model, both)[2:], run(model, IDS[:, :5]), 1e-5)
    assert np.isfinite(array(run(model, np.zeros((1, 4), "int32")))).all()


def test_the_head_is_that_of_the_paper():
    language_model = small()
    model = language_model.classifier(4)
    assert model.encoder is language_model.encoder
    names = [layer.name for layer in model.layers[2:]]
    blocks = [["norm_1", "dropout_1", "hidden"], ["norm_2", "dropout_2", "logits"]]
    assert names == ["pooling", *blocks[0], *blocks[1]]
    assert model.get_layer("hidden").kernel.shape == (3 * 4, 50)
    groups = kt.layer_groups(model)
    assert groups.names == ["embedding", "lstm_1", "lstm_2", "head"]
    assert model.vocabulary == WORDS


@pytest.mark.slow
def test_thawing_with_rates_and_a_schedule_learns_and_continues(tmp_path):
    keras.utils.set_random_seed(0)
    model = small().classifier(2, dropout=0.1)
    x = array(model.vectorizer(5)(TEXTS))
    schedule = kt.optimizers.SlantedTriangular(0.02, 15 * 4)
    adam = keras.optimizers.Adam(schedule)
    rates = kt.optimizers.discriminative(adam, model, layer_decay=1 / 2.6)
    model.compile(rates, LOSS, metrics=["accuracy"], jit_compile=False)
    callback = kt.callbacks.GradualUnfreezing(model)
    settings = {"batch_size": 8, "callbacks": [callback], "verbose": 0}
    history = model.fit(x, LABELS, epochs=15, **settings)
    assert history.history["accuracy"][-1] > 0.9
    assert history.history["phase"][:5] == [0, 1, 2, 3, 3]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again.optimizer.variables, model.optimizer.variables)
    assert_close(run(again, x), run(model, x))


@pytest.mark.slow
def test_fine_tune_thaws_it_by_name():
    keras.utils.set_random_seed(0)
    model = small().classifier(2, dropout=0.0)
    optimizer = keras.optimizers.AdamW(0.01)
    model.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=False)
    x = array(model.vectorizer(5)(TEXTS))
    history = kt.fine_tune(model, (x, LABELS), epochs=4, strategy="gradual", verbose=0)
    assert history.strategy == "gradual"
    assert max(history.history["phase"]) > 0


@exports
@pytest.mark.slow
def test_it_serves_strings(tmp_path):
    model = small().classifier(2)
    kt.export_serving(
        model,
        tmp_path / "served",
        preprocessor=model.vectorizer(6),
        samples=TEXTS[:2],
        labels=["bad", "good"],
    )
    served = tf.saved_model.load(tmp_path / "served" / "1")
    found = served.signatures["serving_default"](text=tf.constant(list(TEXTS[:4])))
    expected = run(model, array(model.vectorizer(9)(TEXTS[:4])))
    assert any(
        x.shape == (4, 2) and np.allclose(x, expected, atol=1e-5)
        for x in found.values()
        if x.dtype == tf.float32
    )


@pytest.mark.parametrize(
    "wrong", [{"units": 0}, {"dropout": 1.0}, {"num_classes": 0}, {"dropout": -0.1}]
)
def test_arguments_out_of_range_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        small().classifier(**{"num_classes": 2} | wrong)


def test_a_wrong_encoder_or_vocabulary_raises():
    model = small()
    classifier = kt.models.RecurrentClassifier
    with pytest.raises(
        ValueError, match="encoder has 9 words, but the vocabulary has 8"
    ):
        classifier(model.encoder, WORDS[:-1], 2)
    with pytest.raises(TypeError, match="without an embedding"):
        classifier(keras.Sequential([keras.Input((3,))]), WORDS, 2)
    with pytest.raises(TypeError, match="without an embedding"):
        classifier("encoder", WORDS, 2)
