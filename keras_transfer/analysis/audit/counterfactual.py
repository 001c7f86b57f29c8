"""counterfactual: what a model of texts changes if one word of a text changes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import is_number
from keras_transfer.analysis.audit.counterfactual_audit import CounterfactualAudit
from keras_transfer.analysis.audit.counterfactual_pairs import Comparison
from keras_transfer.analysis.audit.counterfactual_pairs import comparisons
from keras_transfer.analysis.audit.counterfactual_scores import Scores
from keras_transfer.analysis.audit.counterfactual_scores import scores_of
from keras_transfer.analysis.audit.counterfactual_tests import flip_facts
from keras_transfer.analysis.audit.counterfactual_tests import LEVEL
from keras_transfer.analysis.audit.counterfactual_tests import shift_facts
from keras_transfer.analysis.audit.counterfactual_tests import shifts_of
from keras_transfer.analysis.audit.counterfactual_tests import toward_facts
from keras_transfer.data.labels import listed

LARGEST = 10  # number of pairs in the list of the largest shifts
MOST = 20  # largest number of classes that are compared one by one
MOST_VALUES = 100  # largest number of values of another slot


def counterfactual(
    model: keras.Model | Callable,
    texts: Sequence[tuple[str, str]] | Sequence[str] | str,
    *,
    substitutions: Mapping[str, Sequence] | None = None,
    change: str | None = None,
    preprocessor: Any = None,
    positive: int | str | None = None,
) -> CounterfactualAudit:
    """Measure what a model changes if a name, a pronoun or another word changes.

    Both texts of a pair should have the same answer, such as "The nurse said he was
    late." and "... she was late." for a classifier of sentiment. The result has, for
    each two sides:

    - flips: how many pairs get different predicted classes, as a share with its Wilson
      interval, and whether they go to one side: McNemar's exact test of the pairs in
      which only one text has the class,
    - shifts: the score of the second text minus that of the first, as a mean with its
      interval from the t distribution, the paired t-test and Wilcoxon's signed-rank
      test. The score is the probability of the class, or the number that the model
      returns,
    - the pairs with the largest shifts, and, for templates, the mean shift by value of
      the other slots.

    All tests take pairs as independent. Pairs from one template resemble each other, so
    their p-values are too small, and are those of these sentences only. The function
    measures. It does not decide which change is harmful, and texts that were not passed
    are not seen. The model does not change.

    Args:
        model: A Keras model with one output that reads strings: one with a
            preprocessor, such as a Task of keras-hub, or with an input of strings. A
            model of tokens needs `preprocessor`. Or a function from a list of strings
            to an array with a row for each, such as `classifier.predict`. Rows of a
            function that add up to 1 are probabilities, and others logits. One output
            is the probability of class 1 of two, if all are from 0 to 1, and otherwise
            a number.
        texts: List of pairs of strings. Or a template or a list of templates with slots
            in braces, such as `"The {job} said {who} was late."`.
        substitutions: Dict from each slot to a list of its values. A value is a string,
            or a dict of its forms, such as `{"subject": "he", "object": "him"}`, which
            templates name as `{who[subject]}`. All combinations are made. None for
            pairs. Defaults to None.
        change: The slot that makes the difference. Each two of its values, at most
            five, are compared. Defaults to None: the only slot.
        preprocessor: Function or layer from a list of strings to the inputs of the
            model. Defaults to None.
        positive: Number or name of the class whose probability is the score. Defaults
            to None: class 1 of two classes, and otherwise each class.

    Returns:
        A `kt.analysis.CounterfactualAudit`. Print it, or call its `plot` and `save`.

    Raises:
        TypeError: If texts or values are not strings, or `model` or `preprocessor` is
            not a function.
        ValueError: If texts are missing or both the same, slots and substitutions do
            not fit each other, the model does not read strings, or outputs are NaN.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        def classifier(texts):
            return np.array([0.9 if " he " in text else 0.4 for text in texts])

        audit = kt.analysis.counterfactual(
            classifier,
            "The {job} said {who} was late.",
            substitutions={"job": ["nurse", "pilot"], "who": ["he", "she"]},
            change="who",
        )
        print(audit)
        assert audit.flips == [2] and audit.shifts == [-0.5]
        ```

    Reference:
        Kiritchenko and Mohammad 2018, Examining Gender and Race Bias in Two Hundred
        Sentiment Analysis Systems, arXiv:1805.04508. Rudinger, Naradowsky, Leonard and
        Van Durme 2018, Gender Bias in Coreference Resolution, arXiv:1804.09301
        (Winogender). Garg et al. 2019, Counterfactual Fairness in Text Classification
        through Robustness, arXiv:1809.10610.
    """
    found = comparisons(texts, substitutions, change)
    flat = [text for each in found for pair in each.pairs for text in pair]
    unique = list(dict.fromkeys(flat))
    scores = scores_of(model, unique, preprocessor)
    places = {text: place for place, text in enumerate(unique)}
    chosen = _classes(positive, scores)
    facts = []
    for each in found:
        index = np.array([[places[text] for text in pair] for pair in each.pairs])
        facts.append(_facts(each, scores.values[index], scores, chosen))
    content = {
        "model": getattr(model, "name", None) or getattr(model, "__name__", "model"),
        "read_as": scores.read_as,
        "classes": [*scores.classes],
        "positive": chosen if scores.classes else [],
        "texts": len(unique),
        "level": LEVEL,
        "comparisons": facts,
    }
    return CounterfactualAudit(content)


def _classes(positive: Any, scores: Scores) -> list[int]:
    """Return the columns of the scores that are compared."""
    names = scores.classes
    if positive is None:
        if len(names) > MOST:
            raise ValueError(
                f"There are {len(names)} classes, too many to compare one by one. "
                f"Choose one: positive={names[0]!r}."
            )
        return [1] if len(names) == 2 else [*range(max(1, len(names)))]
    if not names:
        raise ValueError(
            f"positive={positive!r} names a class, but the outputs are numbers, which "
            "have no classes. Leave out `positive`."
        )
    if isinstance(positive, str) and positive in names:
        return [names.index(positive)]
    whole = is_number(positive) and not isinstance(positive, float)
    if whole and 0 <= positive < len(names):
        return [int(positive)]
    raise ValueError(
        f"positive={positive!r} is not a class. Pass the name or the number of one of "
        f"the {len(names)} classes: {listed(names)}."
    )


def _facts(
    comparison: Comparison, values: np.ndarray, scores: Scores, chosen: list[int]
) -> dict:
    """Return the facts of one comparison from values `(pairs, 2, columns)`."""
    first, second = values[:, 0], values[:, 1]
    rows = []
    for column in chosen:
        row = {"class": column if scores.classes else None}
        row |= shift_facts(first[:, column], second[:, column])
        row["toward"] = None
        if scores.classes:
            sides = (side.argmax(1) == column for side in (first, second))
            row["toward"] = toward_facts(*sides)
        rows.append(row)
    flips = None
    if scores.classes:
        flips = flip_facts(first.argmax(1), second.argmax(1))
    shifts = shifts_of(first, second)[:, chosen]
    widest = np.abs(shifts).argmax(1)
    sizes = np.abs(shifts).max(1)
    largest = []
    for pair in np.argsort(-sizes, kind="stable")[:LARGEST]:
        if not sizes[pair]:
            break
        column = chosen[widest[pair]]
        largest.append(
            {
                "texts": list(comparison.pairs[pair]),
                "class": column if scores.classes else None,
                "scores": [float(first[pair, column]), float(second[pair, column])],
            }
        )
    return {
        "names": list(comparison.names),
        "pairs": len(comparison.pairs),
        "flips": flips,
        "scores": rows,
        "largest": largest,
        "by_slot": _by_slot(comparison, shifts[:, 0]),
    }


def _by_slot(comparison: Comparison, shifts: np.ndarray) -> list[dict]:
    """Return the mean shift of the first class for each value of the other slots."""
    found = []
    for slot in sorted({key for each in comparison.slots for key in each}):
        named = np.array([each.get(slot, "") for each in comparison.slots], object)
        values = sorted({name for name in named if name})
        if not 1 < len(values) <= MOST_VALUES:
            continue
        rows = [
            {
                "value": value,
                "pairs": int((named == value).sum()),
                "shift": float(shifts[named == value].mean()),
            }
            for value in values
        ]
        rows.sort(key=lambda row: row["shift"])
        found.append({"slot": slot, "values": rows})
    return found
