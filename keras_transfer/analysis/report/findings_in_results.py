"""Rules that find notable facts in the evaluation and in the layer groups of a model.

Each rule returns a list of sentences, or None if its data are missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from keras_transfer.backbones.groups import UNUSED

FEWEST = 20  # smallest number of examples or positions for a finding about all of them
OF_CLASS = 5  # smallest number of examples for a finding about a class
NEARLY_ALL = 0.95  # share of the predictions
CONFUSED = 0.05  # smallest share of the examples of two classes that are confused
NAMED = 5  # largest number of names in a sentence
LONGEST = 40  # largest number of characters of a name


def not_finite(facts: dict) -> list[str] | None:
    """Find outputs that are NaN or infinite, which cannot be evaluated."""
    if facts["evaluation"] is None and not facts["broken"]:
        return None
    return [
        f"{_start(output)}The model cannot be evaluated, because {error}."
        for output, error in facts["broken"].items()
    ]


def one_class(facts: dict) -> list[str] | None:
    """Find predictions that are no better than one class for all examples.

    A class that gets 95% of the predictions is found if its share of the true labels is
    smaller by more than 0.05 and by more than two standard errors. Otherwise, an
    accuracy is found if it is at most two standard errors above the share of the most
    frequent class. Both need 20 examples of at least two classes, and outputs that are
    one class for each example.
    """
    results = [_one_class(*each) for each in _evaluations(facts, "classes")]
    results = [each for each in results if each is not None]
    return [sentence for each in results for sentence in each] if results else None


def never_predicted(facts: dict) -> list[str] | None:
    """Find classes with five or more examples that are never predicted.

    By chance, a class that is found in half of its examples is missed in five examples
    with a probability of 3%. Outputs for which `one_class` finds that one class is
    predicted for nearly all examples are left out.
    """
    found, checked = [], False
    for output, evaluation in _evaluations(facts, "classes", "labels"):
        classes = evaluation["classes"]
        checked = True
        if evaluation["kind"] == "classes" and _dominant(evaluation):
            continue
        never = [
            each
            for each in classes
            if not each["predicted"] and each["examples"] >= OF_CLASS
        ]
        if not never:
            continue
        names = [_name(each["name"]) for each in never]
        count = sum(each["examples"] for each in never)
        kind = "examples" if "positions" not in evaluation else "tokens or pixels"
        if len(names) == 1:
            said = f"Class {names[0]} is never predicted, but {count:,} {kind} have it."
        else:
            more = f" and {len(names) - NAMED} more" * (len(names) > NAMED)
            said = (
                f"{len(names)} of {len(classes)} classes are never predicted: "
                f"{', '.join(names[:NAMED])}{more}. {count:,} {kind} have these "
                "classes."
            )
        found.append(_start(output) + said)
    return found if checked else None


def confused(facts: dict) -> list[str] | None:
    """Find the two classes that are confused most often.

    At least five examples of the two classes must be confused with each other, which
    must be 5% of their examples. This share must also be three standard errors above
    the mean share of all pairs of classes, because it is the largest of many. The rule
    needs three classes and a confusion matrix, so at most 50 classes.
    """
    found, checked = [], False
    for output, evaluation in _evaluations(facts, "classes"):
        matrix = evaluation["confusion_matrix"]
        if matrix is None or len(matrix) < 3:
            continue
        checked = True
        if not _dominant(evaluation):
            found += [_start(output) + each for each in _pair(evaluation, matrix)]
    return found if checked else None


def did_not_move(facts: dict) -> list[str] | None:
    """Find layer groups that trained and whose weights are equal to their start.

    The rule needs a start for all weights of the group, an optimizer that made updates
    and, as a sign that the start is from before these updates, another group that
    moved. With a History that names the groups of its phases, all groups of these
    phases count. Otherwise the groups that are trainable now count, if the optimizer
    keeps state for them or for no group.
    """
    rows, optimizer = facts["groups"], facts["optimizer"]
    moved = [row for row in rows if row["moved"]]
    if facts["start"] is None or not optimizer or not optimizer["updates"] or not moved:
        return None
    phases = [phase["groups"] for phase in facts["phases"] or []]
    slots = any(row["optimizer_bytes"] for row in rows)
    still = []
    for row in rows:
        trained = row["trainable"] and (row["optimizer_bytes"] or not slots)
        if phases and None not in phases:
            trained = any(row["name"] in groups for groups in phases)
        unknown = f"groups.{row['name']}.moved" in facts["not_recorded"]
        if row["moved"] == 0 and trained and not unknown and row["name"] != UNUSED:
            still.append(_name(row["name"], quoted=True))
    if not still:
        return []
    if len(still) == 1:
        return [f"The group {still[0]} was trainable, but its weights did not move."]
    more = f" and {len(still) - NAMED} more" * (len(still) > NAMED)
    return [
        f"{len(still)} groups were trainable, but their weights did not move: "
        f"{', '.join(still[:NAMED])}{more}."
    ]


def _one_class(output: str, evaluation: dict) -> list[str] | None:
    classes = evaluation["classes"]
    count = _count(evaluation)
    if count < FEWEST or sum(each["examples"] > 0 for each in classes) < 2:
        return None
    kind = "examples" if "positions" not in evaluation else "tokens or pixels"
    dominant = _dominant(evaluation)
    if dominant:
        return [
            f"{_start(output)}The model predicts class {_name(dominant['name'])} for "
            f"{dominant['predicted']:,} of {count:,} {kind}, but "
            f"{dominant['examples']:,} have this class."
        ]
    accuracy = evaluation["accuracy"]
    largest = max(classes, key=lambda each: each["examples"])
    share = largest["examples"] / count
    error = _standard_error(accuracy, evaluation)
    if accuracy > share + 2 * error:
        return []
    sentence = (
        f"{_start(output)}The accuracy of {accuracy:.4g} is not clearly above "
        f"{share:.4g}, the accuracy of always predicting class "
        f"{_name(largest['name'])}"
    )
    return [f"{sentence} (the standard error is {error:.2g})."]


def _dominant(evaluation: dict) -> dict | None:
    """Return the class that gets nearly all predictions, if it should not."""
    count = _count(evaluation)
    most = max(evaluation["classes"], key=lambda each: each["predicted"])
    share = most["examples"] / count
    gap = max(1 - NEARLY_ALL, 2 * _standard_error(share, evaluation))
    predicted = most["predicted"] / count
    if count < FEWEST or predicted < NEARLY_ALL or predicted - share <= gap:
        return None
    return most


def _pair(evaluation: dict, matrix: list[list[int]]) -> list[str]:
    """Return a sentence about the two most confused classes, or nothing."""
    size = len(matrix)
    counts = [each["examples"] for each in evaluation["classes"]]
    pairs = [(i, j) for i in range(size) for j in range(i) if counts[i] + counts[j]]
    wrong = {(i, j): matrix[i][j] + matrix[j][i] for i, j in pairs}
    of = {(i, j): counts[i] + counts[j] for i, j in pairs}
    pair = max(pairs, key=lambda each: (wrong[each], [-k for k in each]))
    share = wrong[pair] / of[pair]
    mean = sum(wrong.values()) / sum(of.values())
    examples = of[pair] * evaluation["examples"] / _count(evaluation)
    noise = 3 * math.sqrt(mean * (1 - mean) / examples)
    if wrong[pair] < OF_CLASS or share < CONFUSED or share - mean <= noise:
        return []
    first, second = sorted(pair, key=lambda k: -matrix[k][sum(pair) - k])
    names = [_name(evaluation["classes"][k]["name"]) for k in (first, second)]
    return [
        f"The most confused classes are {names[0]} and {names[1]}: "
        f"{matrix[first][second]:,} of {counts[first]:,} examples of {names[0]} are "
        f"predicted as {names[1]}, and {matrix[second][first]:,} of "
        f"{counts[second]:,} examples of {names[1]} as {names[0]}."
    ]


def _evaluations(facts: dict, *kinds: str) -> Iterator[tuple[str, dict]]:
    """Yield the name and evaluation of each output of some kinds."""
    evaluation = facts["evaluation"] or {}
    parts = {"": evaluation} if "by_output" not in evaluation else {}
    for name, each in (parts or evaluation["by_output"]).items():
        if each and each["kind"] in kinds:
            yield name, each


def _count(evaluation: dict) -> int:
    """Return the number of predictions: examples, tokens or pixels."""
    return evaluation.get("positions", evaluation["examples"])


def _standard_error(share: float, evaluation: dict) -> float:
    """Return the standard error of a share.

    The tokens or pixels of one example depend on each other, so examples count.
    """
    return math.sqrt(share * (1 - share) / evaluation["examples"])


def _start(output: str) -> str:
    return f"Output {_name(output, quoted=True)}: " if output else ""


def _name(name: str, quoted: bool = False) -> str:
    """Return the name of a class, output or group, in quotes if it is not a number."""
    name = name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
    return name if name.isdecimal() and not quoted else f"'{name}'"
