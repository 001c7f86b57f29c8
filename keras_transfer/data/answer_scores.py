"""AnswerScores: how many generated answers are right, wrong, or none of the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from keras_transfer.data.answers import plain

SHOWN = 30  # characters of a text that is not an answer


@dataclasses.dataclass(frozen=True)
class AnswerScores:
    """Scores of generated answers by task. Prints as a table.

    Args:
        accuracy: Dict from each task to the share of right answers, from 0 to 1. A text
            that is not an answer is wrong.
        unparseable: Dict from each task to the number of texts that are not an answer.
        examples: Dict from each task to the number of examples.
        predicted: Dict from each task to the answers, None for no answer.
        written: Dict from each task to the texts that were generated.

    Example:
        ```python
        import keras_transfer as kt

        scores = kt.data.AnswerScores(
            accuracy={"sst2": 0.5},
            unparseable={"sst2": 1},
            examples={"sst2": 2},
            predicted={"sst2": ["positive", None]},
            written={"sst2": ["positive", "poem"]},
        )
        assert "poem" in str(scores)
        ```

    Reference:
        Raffel et al., 2020, "Exploring the Limits of Transfer Learning with a Unified
        Text-to-Text Transformer", arXiv:1910.10683, section 2.4.
    """

    accuracy: Mapping[str, float]
    unparseable: Mapping[str, int]
    examples: Mapping[str, int]
    predicted: Mapping[str, list[str | None]]
    written: Mapping[str, list[str]]

    def __str__(self) -> str:
        width = max(len("task"), *map(len, self.accuracy))
        lines = [f"{'task':{width}}  accuracy  examples  no answer"]
        for name, accuracy in self.accuracy.items():
            row = (
                f"{name:{width}}  {accuracy:8.3f}  {self.examples[name]:8d}  "
                f"{self.unparseable[name]:9d}"
            )
            first = next(
                (
                    text
                    for text, answer in zip(
                        self.written[name], self.predicted[name], strict=True
                    )
                    if answer is None
                ),
                None,
            )
            lines.append(row if first is None else f"{row}, such as {first[:SHOWN]!r}")
        return "\n".join(lines)


def score_answers(tasks: Mapping[str, tuple]) -> AnswerScores:
    """Return the scores of `(written, targets, Answers)` by task."""
    predicted, right = {}, {}
    for name, (written, targets, answers) in tasks.items():
        predicted[name] = [answers.read(text) for text in written]
        right[name] = sum(
            found is not None and plain(found) == plain(target)
            for found, target in zip(predicted[name], targets, strict=True)
        )
    return AnswerScores(
        accuracy={name: right[name] / len(rows) for name, rows in predicted.items()},
        unparseable={name: rows.count(None) for name, rows in predicted.items()},
        examples={name: len(rows) for name, rows in predicted.items()},
        predicted=predicted,
        written={name: list(each[0]) for name, each in tasks.items()},
    )
