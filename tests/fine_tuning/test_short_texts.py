"""fine_tune pads texts to the longest of them, and trains the same."""

import contextlib
import io

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.short_texts import short_texts
from tests import tiny
from tests.contracts.compare import assert_close

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
TEXTS = ["a", "b c", "d e f", "g", "h a b c", "d e", "f g h", "a b", "c", "d"]
Y = np.arange(len(TEXTS)) % 2
SAID = "texts are padded to 8 tokens, not to 32: no text is longer"


def task(sequence_length=32):
    import keras_hub

    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer(vocabulary=WORDS),
        sequence_length=sequence_length,
    )
    keras.utils.set_random_seed(0)
    model = keras_hub.models.BertTextClassifier(
        tiny.bert(num_layers=1, dropout=0.0, max_sequence_length=32),
        2,
        preprocessor=preprocessor,
        dropout=0.0,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(0.1), loss, metrics=["accuracy"], jit_compile=False
    )
    return model


def tune(model, data=(TEXTS, Y), **kwargs):
    keras.utils.set_random_seed(1)
    settings = dict(epochs=2, strategy="full", batch_size=4, verbose=2)
    return kt.fine_tune(model, data, **settings | kwargs)


@pytest.fixture(scope="module")
def tuned():
    """Return a model that was trained on short texts, its History and the output."""
    model, said = task(), io.StringIO()
    with contextlib.redirect_stdout(said):
        history = tune(model, **HELD_OUT)
    return model, history, said.getvalue()


HELD_OUT = {
    "validation_data": (TEXTS[3:7], Y[3:7]),
    "class_weight": {0: 1.0, 1: 2.0},
}


@pytest.mark.slow
def test_weights_and_history_are_those_of_the_full_length(tuned, capsys, monkeypatch):
    short, found, said = tuned
    assert SAID in said
    assert short.preprocessor.sequence_length == 32
    whole = task()
    start = whole.get_weights()
    monkeypatch.setattr(
        "keras_transfer.fine_tuning.phased_fit.short_texts", lambda *args: None
    )
    expected = tune(whole, **HELD_OUT)
    assert SAID not in capsys.readouterr().out
    assert_close(short.get_weights(), whole.get_weights(), 1e-5)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(start, short.get_weights(), strict=True)
    )
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert found.history[name] == pytest.approx(expected.history[name], abs=1e-5)


@pytest.mark.slow
def test_a_run_continues_as_if_it_was_not_interrupted(tuned, tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    whole, again = tuned[0], task()
    with pytest.raises(KeyboardInterrupt):
        tune(task(), directory=tmp_path / "run", callbacks=Kill(), **HELD_OUT)
    tune(again, directory=tmp_path / "run", **HELD_OUT)
    assert_close(again.get_weights(), whole.get_weights(), 1e-6)
    assert _keras.value(again.optimizer.iterations) == 6


def epochs(x=TEXTS):
    return Epochs((x, Y), 4, 0)


@pytest.mark.slow
def test_texts_are_as_long_as_the_longest():
    model = task()
    found = short_texts(model, epochs(), None)
    assert (found.length, found.full_length) == (8, 32)
    x, y = found._of_batch(keras.ops.convert_to_tensor(TEXTS), Y)
    assert x["token_ids"].shape == (10, 8) and y is Y
    long = Epochs(([" ".join("abcdefgh" * 2)], Y[:1]), 4, 0)
    assert short_texts(model, epochs(), long).length == 24


def test_what_cannot_be_shortened_stays():
    model = task()
    assert short_texts(task(8), epochs(), None) is None  # short already
    assert short_texts(model, epochs().dataset, None) is None
    assert short_texts(model, epochs(), epochs().dataset) is None
    assert short_texts(tiny.bert_classifier(), epochs(), None) is None
    assert short_texts(tiny.mlp(), epochs(), None) is None

    class Own(type(model)):
        def fit(self, *args, **kwargs):
            return super().fit(*args, **kwargs)

    model.__class__ = Own
    assert short_texts(model, epochs(), None) is None


def test_a_model_that_reads_padding_keeps_its_length():
    model = task()
    model.call = lambda x, training=None, mask=None: keras.ops.sum(
        1.0 - keras.ops.cast(x["padding_mask"], "float32"), -1
    )
    assert short_texts(model, epochs(), None) is None
