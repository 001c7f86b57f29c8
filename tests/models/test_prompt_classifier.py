"""PromptClassifier: the likelihood of label words, by hand and after a training."""

import keras
import keras_hub
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.models import PromptClassifier
from tests import tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["it", "was", "good", "bad", "##ly", "film", "fun", "dull", "."]
LETTERS = [*"abcdefgh:", *(f"Ġ{each}" for each in "abcdefgh"), "Ġ", "Ċ"]


def bert_tokenizer():
    return keras_hub.models.BertTokenizer(vocabulary=WORDS)


def gpt_tokenizer():
    vocabulary = {token: number for number, token in enumerate(LETTERS)}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    return keras_hub.models.GPT2Tokenizer(
        vocabulary=vocabulary, merges=[f"Ġ {each}" for each in "abcdefgh"]
    )


@pytest.fixture(scope="module")
def masked():
    keras.utils.set_random_seed(0)
    return keras_hub.models.BertMaskedLM(tiny.bert(num_layers=1, dropout=0.0))


def new_causal():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=21,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=16,
        max_sequence_length=16,
        dropout=0.0,
    )
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(gpt_tokenizer())
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=preprocessor)


@pytest.fixture(scope="module")
def causal():
    return new_causal()


def probabilities(scores):
    values = np.exp(scores - np.max(scores))
    return values / values.sum()


def logs(logits):
    logits = keras.ops.convert_to_numpy(logits)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_masked_scores_are_means_over_the_masks_of_a_word(masked):
    classifier = PromptClassifier(
        masked,
        "{text} it was {label} .",
        {"plus": "good", "minus": "badly"},
        calibrate=False,
        tokenizer=bert_tokenizer(),
    )
    scores = []
    for word in ([7], [8, 9]):
        ids = [2, 10, 5, 6, *[4] * len(word), 13, 3]
        x = {
            "token_ids": np.array([ids]),
            "segment_ids": np.zeros((1, len(ids)), "int32"),
            "padding_mask": np.ones((1, len(ids)), "int32"),
            "mask_positions": np.arange(4, 4 + len(word))[None],
        }
        found = logs(masked(x))[0]
        scores.append(
            np.mean([found[place, token] for place, token in enumerate(word)])
        )
    found = classifier.predict(["film"])
    np.testing.assert_allclose(found, [probabilities(scores)], rtol=1e-4)
    assert classifier.class_names == ("plus", "minus")


def test_causal_scores_are_means_over_the_tokens_of_a_word(causal):
    classifier = PromptClassifier(
        causal, "{text}: {label}", ["a", "bc"], calibrate=False
    )
    scores = []
    end = len(LETTERS)
    prompt = [end, 3, 8]  # <|endoftext|> d :
    for word in ([9], [10, 2]):  # " a", and " b" "c"
        ids = np.array([[*prompt, *word, end]])
        found = logs(causal({"token_ids": ids, "padding_mask": ids * 0 + 1}))[0]
        scores.append(np.mean([found[2 + n, token] for n, token in enumerate(word)]))
    found = classifier.predict(["d"])
    np.testing.assert_allclose(found, [probabilities(scores)], rtol=1e-4)


def test_the_calibration_divides_by_the_answers_without_content(causal):
    plain = PromptClassifier(causal, "{text}: {label}", ["a", "b"], calibrate=False)
    prior = plain.predict(["N/A", "[MASK]", ""]).mean(0)
    right = plain.predict(["d", "e f"]) / prior
    right /= right.sum(1, keepdims=True)
    calibrated = PromptClassifier(causal, "{text}: {label}", ["a", "b"])
    np.testing.assert_allclose(calibrated.predict(["d", "e f"]), right, rtol=1e-5)


def test_batches_and_padding_change_nothing(causal):
    classifier = PromptClassifier(causal, "{text}: {label}", ["a", "bc"])
    texts = ["d", "d e f g h", "e e", "f g h"]
    together = classifier.predict(texts)
    alone = np.concatenate([classifier.predict([text], batch_size=1) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    names = np.array(classifier.class_names)[together.argmax(1)]
    assert classifier.classify(texts) == names.tolist()


@pytest.mark.slow
def test_a_trained_model_answers_and_examples_are_shown(causal):
    task, texts = new_causal(), ["a b: a", "c d: b"] * 40
    kt.continue_pretraining(task, texts, epochs=40, learning_rate=1e-2, verbose=0)
    classifier = PromptClassifier(
        task,
        "{text}: {label}",
        {"first": "a", "second": "b"},
        calibrate=False,
    )
    assert classifier.classify(["a b", "c d"]) == ["first", "second"]
    shown = PromptClassifier(
        causal, "{text}: {label}", ["a", "b"], examples=[("d", "a")], calibrate=False
    )
    whole = PromptClassifier(
        causal, "d: a\n\n{text}: {label}", ["a", "b"], calibrate=False
    )
    np.testing.assert_allclose(shown.predict(["e"]), whole.predict(["e"]), rtol=1e-5)


def test_words_that_do_not_fit_are_counted(masked):
    classifier = PromptClassifier(
        masked, "{text} it was {label}", ["good", "bad"], tokenizer=bert_tokenizer()
    )
    long = " ".join(["film"] * 7 + ["fun"] * 5)  # 12 positions: room for 7 words
    with pytest.warns(UserWarning, match="5 words at the end of 1 texts"):
        found = classifier.predict([long])
    np.testing.assert_allclose(found, classifier.predict([" ".join(["film"] * 7)]))


def test_is_a_row_of_compare_inputs(masked):
    classifier = PromptClassifier(
        masked, "{text} it was {label}", ["good", "bad"], tokenizer=bert_tokenizer()
    )
    found = classifier.predict(np.array(["film", "fun"], object))
    assert found.shape == (2, 2) and found.dtype == "float32"
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_bad_input_is_refused(masked, causal):
    def made(template="{text}: {label}", labels=("good", "bad"), task=masked, **kwargs):
        kwargs = {"tokenizer": bert_tokenizer(), **kwargs}
        return PromptClassifier(task, template, labels, **kwargs)

    with pytest.raises(TypeError, match="needs a CausalLM of text or a MaskedLM"):
        made(task=masked.backbone)
    with pytest.raises(ValueError, match="no preprocessor with a tokenizer"):
        made(tokenizer=None)
    with pytest.raises(ValueError, match="must have {text} and {label}, once each"):
        made("{text}: ")
    with pytest.raises(TypeError, match="is not a string"):
        made(3)
    with pytest.raises(ValueError, match="goes on after {label}"):
        made("{label}: {text}", ["a", "b"], causal, tokenizer=gpt_tokenizer())
    with pytest.raises(ValueError, match="'bad' and 'badly' begin with the same token"):
        made(labels=["bad", "badly"])
    with pytest.raises(ValueError, match="has one class"):
        made(labels=["good"])
    with pytest.raises(ValueError, match="label words"):
        made(labels={"a": "good", "b": "good"})
    with pytest.raises(ValueError, match="the class 'ugly', which is not in"):
        made(examples=[("film", "ugly")])
    with pytest.raises(ValueError, match="12 positions. Use fewer"):
        made(examples=[("film fun dull film", "good")] * 2)
    with pytest.raises(TypeError, match="Text 0 is 1"):
        made().predict([1])
    with pytest.raises(ValueError, match="There are no texts"):
        made().predict([])
