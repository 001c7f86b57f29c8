"""Texts without labels, for language models whose preprocessor creates the labels."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.data.made_labels import makes_labels
from tests import tiny

TEXTS = ["a b c", "b c d", "c d e", "d e f", "e f g", "f g h"]


def causal():
    words = ["<|endoftext|>", *"abcdefgh", "\u0120"]
    words += [f"\u0120{letter}" for letter in "abcdefgh"]
    tokenizer = keras_hub.models.GPT2Tokenizer(
        vocabulary={word: number for number, word in enumerate(words)},
        merges=[f"\u0120 {letter}" for letter in "abcdefgh"],
    )
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(words),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=8,
        dropout=0.0,
    )
    return compiled(
        keras_hub.models.GPT2CausalLM(
            backbone,
            keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=6),
        )
    )


def masked():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    preprocessor = keras_hub.models.BertMaskedLMPreprocessor(
        keras_hub.models.BertTokenizer(vocabulary=words),
        sequence_length=6,
        mask_selection_length=3,
        mask_selection_rate=0.9,
    )
    backbone = tiny.bert(num_layers=2, dropout=0.0)
    return compiled(keras_hub.models.BertMaskedLM(backbone, preprocessor))


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    return model


def tune(model, data, **settings):
    return kt.fine_tune(model, data, **dict(epochs=2, verbose=0) | settings)


@pytest.mark.slow
def test_a_causal_language_model_trains_completely_on_texts(capsys):
    model = causal()
    batches = tf.data.Dataset.from_tensor_slices(TEXTS).batch(3)
    history = tune(model, TEXTS, batch_size=3, validation_data=batches, verbose=2)
    assert history.history["phase"] == [0, 0] and len(history.history["val_loss"]) == 2
    assert len(model.trainable_variables) == len(model.weights)
    assert history.history["loss"][1] < history.history["loss"][0]
    said = capsys.readouterr().out
    assert "strategy 'full', because there is no new head" in said
    assert said.startswith("fine_tune: no pilot, because the preprocessor creates")
    assert "transformer_layer_0" in said.splitlines()[3]
    assert model.optimizer.iterations == 4
    tune(compiled(model), batches, strategy="gradual")
    assert float(model.optimizer._common_factor) == 1.0


# A masked language model does not use the pooler of BERT.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.slow
def test_a_masked_language_model_has_a_new_head_and_no_cache(capsys):
    model = masked()
    history = tune(model, (np.array(TEXTS),), strategy="lp-ft", verbose=2)
    assert history.history["phase"] == [0, 1]
    said = capsys.readouterr().out
    assert "the preprocessor may create new labels in each pass" in said
    assert "0       0    10 " in said


def test_all_forms_of_texts_without_labels():
    model = masked()
    words = tf.data.Dataset.from_tensor_slices(TEXTS).batch(3)
    for data in (TEXTS, (TEXTS,), (TEXTS, None), np.array(TEXTS), words):
        assert makes_labels(model, data)
    for data in (
        (TEXTS, [0] * 6),
        words.map(lambda x: (x, x)),
        iter(words),
        "a b",
        None,
    ):
        assert not makes_labels(model, data)
    assert not makes_labels(tiny.mlp(), TEXTS)


def test_labels_and_class_weights_with_texts_raise():
    model = masked()
    with pytest.raises(ValueError, match="validation_data` must have only texts"):
        tune(model, TEXTS, validation_data=(TEXTS, np.zeros(6)))
    with pytest.raises(ValueError, match="class_weight, but the preprocessor"):
        tune(model, TEXTS, class_weight="balanced")
    with pytest.raises(TypeError, match="`data` is a list"):
        tune(tiny_classifier(), TEXTS)


def tiny_classifier():
    return compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]))
