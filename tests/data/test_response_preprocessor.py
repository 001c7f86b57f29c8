"""ResponsePreprocessor: which tokens are learned, cuts, training and saving."""

import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "yes", "no"]
START, END, GOOD, BAD, YES, NO = 2, 3, 5, 6, 7, 8
PAIRS = {"prompts": ["good bad", "good"], "responses": ["yes", "no"]}


def plain(sequence_length=6, **settings):
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=WORDS)
    return keras_hub.models.CausalLMPreprocessor(
        tokenizer, sequence_length=sequence_length, **settings
    )


def responses(sequence_length=6, **settings):
    return kt.data.ResponsePreprocessor(plain(sequence_length, **settings))


def test_only_tokens_of_the_response_and_its_end_are_learned():
    x, y, weights = responses()(PAIRS)
    assert x["token_ids"].tolist() == [
        [START, GOOD, BAD, YES, END, 0],
        [START, GOOD, NO, END, 0, 0],
    ]
    assert x["padding_mask"].tolist() == [
        [True] * 5 + [False],
        [True] * 4 + [False] * 2,
    ]
    assert y.tolist() == [[GOOD, BAD, YES, END, 0, 0], [GOOD, NO, END, 0, 0, 0]]
    assert weights.tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]]


def test_the_tokens_are_those_of_the_given_preprocessor():
    texts = [" ".join(pair) for pair in zip(*PAIRS.values(), strict=True)]
    x, y, _ = plain()(texts)
    found, labels, _ = responses()(PAIRS)
    np.testing.assert_array_equal(found["token_ids"], x["token_ids"])
    np.testing.assert_array_equal(found["padding_mask"], x["padding_mask"])
    np.testing.assert_array_equal(labels, y)


def test_a_long_prompt_loses_its_start_and_a_long_response_its_end():
    preprocessor = responses(4)
    long = {"prompts": ["good good bad", "good"], "responses": ["yes", "yes " * 9]}
    x, y, weights = preprocessor(long)
    assert x["token_ids"].tolist() == [[START, GOOD, BAD, YES], [START, YES, YES, YES]]
    assert y[:, -1].tolist() == [END, YES]
    assert weights.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert preprocessor.num_cut(long) == 2
    assert responses(3).num_cut(PAIRS) == 1  # four and five tokens, and three for x
    assert responses(4).num_cut(PAIRS) == 0


def test_no_start_and_no_end():
    x, y, weights = responses(add_start_token=False, add_end_token=False)(PAIRS)
    assert x["token_ids"][0].tolist() == [GOOD, BAD, YES, 0, 0, 0]
    assert weights[0].tolist() == [0, 1, 0, 0, 0, 0]


@pytest.mark.slow
def test_a_dataset_of_batches_and_of_single_examples():
    preprocessor = responses()
    expected = preprocessor(PAIRS)
    dataset = tf.data.Dataset.from_tensor_slices(PAIRS)
    for batch in dataset.batch(2).map(preprocessor).as_numpy_iterator():
        keras.tree.map_structure(np.testing.assert_array_equal, batch, expected)
    (first, _) = dataset.map(preprocessor).as_numpy_iterator()
    assert first[1].tolist() == expected[1][0].tolist()


def test_it_is_a_copy_of_its_class():
    given = plain()
    made = kt.data.ResponsePreprocessor(given)
    assert isinstance(made, keras_hub.models.CausalLMPreprocessor)
    assert isinstance(made, kt.data.ResponsePreprocessor)
    assert type(given) is keras_hub.models.CausalLMPreprocessor
    made.sequence_length = 4
    assert given.sequence_length == 6
    again = kt.data.ResponsePreprocessor(made)
    assert again is not made and again(PAIRS)[1].shape == (2, 4)


@pytest.fixture(scope="module")
def task():
    """A language model that has learned to answer."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        len(WORDS), 1, 2, 16, 32, max_sequence_length=8, dropout=0.0
    )
    model = keras_hub.models.GPT2CausalLM(backbone, responses())
    adam = keras.optimizers.Adam(0.05)
    model.compile(adam, weighted_metrics=[], jit_compile=False, sampler="greedy")
    pairs = {
        "prompts": np.array(["good bad", "bad good"] * 64, object),
        "responses": np.array(["yes", "no"] * 64, object),
    }
    run = kt.fine_tune(model, pairs, strategy="full", epochs=2, batch_size=4, verbose=0)
    assert run.history["loss"][-1] < run.history["loss"][0]
    return model


@pytest.mark.slow
def test_a_task_answers_after_fine_tuning(task):
    assert task.generate(["good bad", "bad good"]) == ["good bad yes", "bad good no"]


NEW_PROCESS = """
import sys
import keras
import keras_transfer as kt
task = keras.models.load_model(sys.argv[1])
task.compile(sampler="greedy")
pairs = {"prompts": ["good bad"], "responses": ["yes"]}
print(isinstance(task.preprocessor, kt.data.ResponsePreprocessor))
print(task.preprocessor(pairs)[2].sum(), *task.generate(["good bad"]))
"""


@pytest.mark.slow
def test_a_saved_task_answers_in_a_new_process(task, tmp_path):
    task.save(tmp_path / "task.keras")
    command = [sys.executable, "-c", NEW_PROCESS, str(tmp_path / "task.keras")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["True", "2.0 good bad yes"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["good"], "got a list"),
        ({"prompts": ["good"]}, r"got \['prompts'\]"),
        ({"prompts": ["good"], "responses": ["yes", "no"]}, "one response for each"),
    ],
)
def test_bad_data(given, message):
    with pytest.raises(ValueError, match=message):
        responses()(given)


def test_labels_are_refused():
    with pytest.raises(ValueError, match="makes labels and weights itself"):
        responses()(PAIRS, np.zeros(2))


def test_other_preprocessors_are_refused():
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=WORDS)
    other = keras_hub.models.BertTextClassifierPreprocessor(tokenizer)
    with pytest.raises(TypeError, match="Pass a CausalLMPreprocessor"):
        kt.data.ResponsePreprocessor(other)
