"""entity_scores: precision, recall and F1 of named entities."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Sequence

TAG = re.compile(r"O|[BIES]-.+")


@dataclasses.dataclass(frozen=True)
class EntityScores:
    """Scores of entities, of all types together and of each type. Prints as a table.

    Args:
        precision: Share of the predicted entities that are right, from 0 to 1.
        recall: Share of the true entities that are found, from 0 to 1.
        f1: Their harmonic mean, over all entities ("micro").
        support: Number of true entities.
        by_type: The same four numbers for each type, as a dict of dicts.

    Example:
        ```python
        import keras_transfer as kt

        scores = kt.analysis.entity_scores([["B-PER", "O"]], [["B-PER", "B-PER"]])
        assert scores.precision == 0.5 and scores.recall == 1.0
        ```

    Reference:
        Tjong Kim Sang and De Meulder, 2003, "Introduction to the CoNLL-2003 Shared
        Task: Language-Independent Named Entity Recognition", cs/0306050.
    """

    precision: float
    recall: float
    f1: float
    support: int
    by_type: dict[str, dict[str, float]]

    def __str__(self) -> str:
        rows = {**self.by_type, "all": dataclasses.asdict(self)}
        width = max(len("entity"), *map(len, rows))
        lines = [f"{'entity':{width}}  precision  recall     F1  number"]
        lines += [
            f"{name:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  "
            f"{row['f1']:5.3f}  {row['support']:6d}"
            for name, row in rows.items()
        ]
        return "\n".join(lines)


def entity_scores(
    tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> EntityScores:
    """Return precision, recall and F1 of entities, computed by seqeval.

    An entity counts as found only if its type and all its words are right, as in the
    CoNLL shared tasks. So a model that predicts `"O"` everywhere has a high accuracy of
    words, and an F1 of 0. As in their script, an `I-` tag after another type begins an
    entity.

    Args:
        tags: True tags of the words of each sentence, in the form `"O"`, `"B-PER"`,
            `"I-PER"`; `"E-"` (end) and `"S-"` (single) are possible too.
        predicted: Predicted tags, such as from `TokenClassifier.tag`.

    Returns:
        An `EntityScores`.

    Example:
        ```python
        import keras_transfer as kt

        true = [["B-PER", "I-PER", "O"], ["B-LOC"]]
        scores = kt.analysis.entity_scores(true, [["B-PER", "O", "O"], ["B-LOC"]])
        assert scores.f1 == 0.5 and scores.by_type["LOC"]["f1"] == 1.0
        ```

    Raises:
        ImportError: If seqeval is not installed.
        ValueError: If the numbers of sentences or words differ, there is no sentence,
            or a tag has another form.

    Reference:
        Tjong Kim Sang and De Meulder, 2003, "Introduction to the CoNLL-2003 Shared
        Task: Language-Independent Named Entity Recognition", cs/0306050; seqeval,
        github.com/chakki-works/seqeval.
    """
    try:
        from seqeval.metrics import classification_report
    except ImportError as error:
        raise ImportError(
            "entity_scores needs seqeval: pip install seqeval, or the extra `tagging`."
        ) from error
    _check(tags, predicted)
    true, found = ([list(map(str, row)) for row in rows] for rows in (tags, predicted))
    if not any(tag != "O" for row in [*true, *found] for tag in row):
        return EntityScores(0.0, 0.0, 0.0, 0, {})
    report = classification_report(true, found, output_dict=True, zero_division=0)
    rows = {
        name: {
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1-score"]),
            "support": int(row["support"]),
        }
        for name, row in report.items()
    }
    total = rows["micro avg"]
    averages = ("micro avg", "macro avg", "weighted avg")
    types = {name: row for name, row in rows.items() if name not in averages}
    return EntityScores(**total, by_type=types)


def _check(tags: Sequence, predicted: Sequence) -> None:
    if not len(tags) or len(tags) != len(predicted):
        raise ValueError(
            f"There are tags of {len(tags)} sentences, and predicted tags of "
            f"{len(predicted)}. Pass the same number, at least one."
        )
    for number, (row, found) in enumerate(zip(tags, predicted)):
        if len(row) != len(found):
            raise ValueError(
                f"Sentence {number} has {len(row)} tags, but {len(found)} predicted "
                "tags. Pass one for each word."
            )
    counts = collections.Counter(
        str(tag) for rows in (tags, predicted) for row in rows for tag in row
    )
    wrong = sorted(tag for tag in counts if not TAG.fullmatch(tag))
    if wrong:
        raise ValueError(
            f"The tags {wrong[:5]} are not in the form 'O', 'B-PER', 'I-PER', so it is "
            "unknown where an entity begins. For other tags, such as parts of speech, "
            "compute the accuracy of words."
        )
