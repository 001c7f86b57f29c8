"""text_to_text: prefixes, answers, mixtures, and scores of what a Task writes."""

import collections

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests.data.seq2seq import TEXTS
from tests.data.seq2seq import tiny_t5

TASKS = {
    "review": (TEXTS, [1, 0, 1, 0]),
    "topic": (TEXTS, ["films", "films", "books", "books"]),
}
ANSWERS = {"review": ["negative", "positive"]}


@pytest.fixture(scope="module")
def task():
    """A T5 that has learned to write "films", whatever it reads."""
    model = tiny_t5()
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    films = kt.data.text_to_text({"topic": (TEXTS, ["films"] * 4)})
    batches = films.batches(model, 8, examples=400)
    model.fit(batches, epochs=1, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def untrained():
    """A T5 with random weights, which no test changes."""
    return tiny_t5()


def rows(dataset):
    return [
        (x.decode(), y.decode())
        for batch in dataset.as_numpy_iterator()
        for x, y in zip(batch["encoder_text"], batch["decoder_text"], strict=True)
    ]


def test_an_epoch_has_each_example_once_with_prefix_and_answer(untrained):
    mixture = kt.data.text_to_text(TASKS, answers=ANSWERS, prefixes={"topic": "t: "})
    batches = mixture.batches(untrained, 3)
    found = rows(batches)
    assert len(batches) == 3
    assert sorted(found) == sorted(
        [
            ("review: a good film", "positive"),
            ("review: a bad film", "negative"),
            ("review: a good book", "positive"),
            ("review: a bad book", "negative"),
            ("t: a good film", "films"),
            ("t: a bad film", "films"),
            ("t: a good book", "books"),
            ("t: a bad book", "books"),
        ]
    )
    assert rows(batches) != found and sorted(rows(batches)) == sorted(found)


def test_temperature_repeats_the_small_task(untrained):
    tasks = {"review": (TEXTS * 9, [1, 0, 1, 0] * 9), "topic": TASKS["topic"]}
    mixture = kt.data.text_to_text(tasks, answers=ANSWERS, temperature=2.0)
    assert mixture.rates == pytest.approx({"review": 0.75, "topic": 0.25})
    found = rows(mixture.batches(untrained, 8))
    counts = collections.Counter(x.partition(":")[0] for x, _ in found)
    assert counts == {"review": 30, "topic": 10}


def test_generated_answers_are_scored(task):
    mixture = kt.data.text_to_text(TASKS, answers=ANSWERS)
    sampler = task.sampler
    scores = mixture.score(task, TASKS, batch_size=3)
    assert scores.written == {"review": ["films"] * 4, "topic": ["films"] * 4}
    assert scores.predicted == {"review": [None] * 4, "topic": ["films"] * 4}
    assert scores.accuracy == {"review": 0.0, "topic": 0.5}
    assert scores.unparseable == {"review": 4, "topic": 0}
    assert task.sampler is sampler
    assert "review     0.000         4          4, such as 'films'" in str(scores)


def test_texts_that_are_cut_before_they_are_scored_are_told(task):
    mixture = kt.data.text_to_text(TASKS, answers=ANSWERS)
    with pytest.warns(UserWarning) as told:
        mixture.score(task, {"topic": (["a good film " * 9], ["films"])})
    assert any("1 of 1 texts of task 'topic'" in str(x.message) for x in told)


def test_free_texts_are_compared_as_texts(task):
    mixture = kt.data.text_to_text(TASKS, answers={**ANSWERS, "topic": None})
    scores = mixture.score(task, {"topic": (TEXTS, ["Films", "books", "books", "x"])})
    assert scores.accuracy["topic"] == 0.25
    assert scores.unparseable["topic"] == 0


@pytest.mark.slow
def test_fine_tune_takes_the_mixture():
    model = tiny_t5()
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    mixture = kt.data.text_to_text(TASKS, answers=ANSWERS)
    run = kt.fine_tune(
        model, mixture.batches(model, 4), epochs=1, strategy="full", verbose=0
    )
    assert np.isfinite(run.history["loss"]).all()


def test_class_names_of_a_file(tmp_path, task):
    path = tmp_path / "topic.tsv"
    path.write_text(
        "".join(f"{y}\t{x}\n" for x, y in zip(*TASKS["topic"], strict=True))
    )
    texts = kt.data.from_tsv(path)
    mixture = kt.data.text_to_text({"topic": texts})
    assert mixture.score(task, {"topic": texts}).accuracy["topic"] == 0.5
    # Another file, in which "films" has the number 0.
    path.write_text("films\ta good film\n")
    other = kt.data.from_tsv(path)
    assert mixture.score(task, {"topic": other}).accuracy["topic"] == 1.0


def test_answers_are_read_without_guessing():
    mixture = kt.data.text_to_text(TASKS, answers=ANSWERS)
    assert mixture.answer("review", "  Positive ") == "positive"
    for text in ("posit", "positive positive", "films", ""):
        assert mixture.answer("review", text) is None


def test_texts_and_answers_that_are_cut_are_told(untrained):
    texts = (["a good film " * 20, "a bad film"], ["a good film " * 9, "films"])
    mixture = kt.data.text_to_text({"topic": texts}, answers={"topic": None})
    with pytest.warns(UserWarning) as told:
        mixture.batches(untrained, 2)
    messages = [str(each.message) for each in told if "are cut" in str(each.message)]
    assert "1 of 2 texts of task 'topic' have more than 7 tokens" in messages[0]
    assert "Raise `encoder_sequence_length`" in messages[0]
    assert "1 of 2 answers" in messages[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tasks": {}}, ValueError, "has no task"),
        ({"tasks": {"a": (TEXTS, [0, 1, 0, 1])}}, TypeError, "no answers in words"),
        ({"tasks": {"a": (TEXTS, ["x"])}}, ValueError, "4 texts, but 1 targets"),
        ({"tasks": {"a": TEXTS}}, ValueError, "Pass a pair"),
        ({"tasks": TASKS, "answers": {"b": []}}, ValueError, "the tasks are"),
        (
            {"tasks": TASKS, "answers": {"review": ["yes"]}},
            ValueError,
            "go from 0 to 1, but there are 1 answers",
        ),
        (
            {"tasks": TASKS, "answers": {"review": ["yes", "Yes "]}},
            ValueError,
            "differ in more than case",
        ),
        (
            {"tasks": TASKS, "answers": ANSWERS, "prefixes": {"topic": "review: "}},
            ValueError,
            "cannot tell the tasks apart",
        ),
        (
            {"tasks": TASKS, "answers": ANSWERS, "temperature": 0},
            ValueError,
            "temperature",
        ),
        (
            {"tasks": {"a": (TEXTS, [0, 1, 2, 0])}, "answers": {"a": {1: "x", 2: "y"}}},
            ValueError,
            "one for each class from 0 to 1",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        kt.data.text_to_text(**arguments)


def test_bad_tasks_of_keras_hub(untrained, monkeypatch):
    mixture = kt.data.text_to_text(TASKS, answers=ANSWERS)
    with pytest.raises(TypeError, match="need a Seq2SeqLM"):
        mixture.batches(keras.Sequential())
    with pytest.raises(ValueError, match="has none of"):
        kt.data.text_to_text(TASKS, answers=ANSWERS).batches(untrained, examples=1)
    with pytest.raises(ValueError, match="the tasks are"):
        mixture.score(untrained, {"other": TASKS["topic"]})
    strange = kt.data.text_to_text({"a": (TEXTS, [0] * 4)}, answers={"a": ["Ünder"]})
    with pytest.raises(ValueError, match="no generated text can be this answer"):
        strange.batches(untrained)
    long = kt.data.text_to_text({"a": (TEXTS, [0] * 4)}, answers={"a": ["a bad " * 9]})
    with pytest.raises(ValueError, match="but at most 3 fit"):
        long.batches(untrained)
    monkeypatch.setattr(untrained, "preprocessor", None)
    with pytest.raises(ValueError, match="has no preprocessor"):
        mixture.score(untrained, TASKS)
