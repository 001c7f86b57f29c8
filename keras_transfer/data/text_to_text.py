"""text_to_text: mix tasks as texts in and texts out for one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_transfer.data.mixed_tasks import TextToText


def text_to_text(
    tasks: Mapping[str, Any],
    *,
    prefixes: Mapping[str, str] | None = None,
    answers: Mapping[str, Any] | None = None,
    temperature: float = 1.0,
    limit: int | None = None,
    seed: int = 0,
) -> TextToText:
    """Mix tasks as texts in and texts out, as T5 learns them.

    A task of classification becomes `"sst2: a joy" -> "positive"`, so one model with
    one loss learns all tasks, and new ones need no new layer. The share of task i in
    the mixture is

        min(n_i, limit)^(1 / temperature) / sum_j min(n_j, limit)^(1 / temperature),

    for tasks of n_i examples. With `temperature=1`, it is in proportion to the sizes. A
    higher temperature gives more to the small tasks, which are then repeated.

    Args:
        tasks: Dict from the name of each task to its data: a pair `(texts, targets)`,
            or what `kt.data.from_tsv` returns. Targets are class numbers or strings.
        prefixes: Dict from task names to what goes before each text. The prefix of
            another task is `"<name>: "`. Defaults to None.
        answers: Dict from task names to the answer of each class: a list of words, or a
            dict from class numbers. `None` for a task means that any text is an answer,
            as in translation. Without an entry, the answers are the names from
            `from_tsv`, or the different strings among the targets; class numbers alone
            need an entry. Defaults to None.
        temperature: Float above 0. Defaults to 1.
        limit: Int, number of examples above which a task counts no more, K in the
            paper. Defaults to None.
        seed: Int of 0 or more, for the order. Defaults to 0.

    Returns:
        A `TextToText` with `batches(task)` for training, `encode(name, texts)`, and
        `score(task, data)`.

    Example:
        ```python
        import keras_transfer as kt

        mixture = kt.data.text_to_text(
            {
                "sst2": (["a joy", "too long"], [1, 0]),
                "topic": (["a novel", "a film", "a poem"], ["books", "films", "books"]),
            },
            prefixes={"sst2": "sst2 sentence: "},
            answers={"sst2": ["negative", "positive"]},
            temperature=2.0,
        )
        assert mixture.encode("sst2", ["a joy"]) == ["sst2 sentence: a joy"]
        assert mixture.answer("topic", "Films ") == "films"
        assert mixture.answer("topic", "no idea") is None
        ```

    Raises:
        TypeError: If texts are not strings, or class numbers have no answers.
        ValueError: If there is no task, texts and targets differ in number, a name is
            unknown, two tasks have one prefix, or an argument is out of range.

    Reference:
        Raffel et al., 2020, "Exploring the Limits of Transfer Learning with a Unified
        Text-to-Text Transformer", arXiv:1910.10683, sections 2.4 and 3.5.2.
    """
    return TextToText(
        tasks,
        prefixes=prefixes,
        answers=answers,
        temperature=temperature,
        limit=limit,
        seed=seed,
    )
