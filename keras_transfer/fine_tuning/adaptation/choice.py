"""Choose a candidate by scores that need no label of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.domains.agreement import agreements
from keras_transfer.analysis.domains.agreement import reverse_right
from keras_transfer.fine_tuning.adaptation.candidates import SOURCE_ONLY
from keras_transfer.fine_tuning.adaptation.candidates import Trial

CLEAR = 2.0  # standard errors
# With fewer, the more certain candidate alone decides what they together predict.
LEAST_ENSEMBLE = 3
# A candidate may lose this accuracy on the held-out source, or two standard errors.
SOURCE_LOSS = 0.02
# A class that is in the source, and that source only predicts on the target, must keep
# a fifth of its predictions or of its share in the source. Rare classes may go.
RARE_SHARE, RARE_COUNT, KEPT = 0.02, 10, 0.2


class Scores(NamedTuple):
    """The scores of a candidate; None if its training diverged.

    `refused` is why the candidate cannot be chosen, or "".
    """

    name: str
    agreement: float | None
    reverse: float | None
    source: float | None
    refused: str


class Choice(NamedTuple):
    """The scores of all candidates, the name of the chosen one, and why."""

    scores: list[Scores]
    chosen: str
    why: str


def choose(
    trials: Sequence[Trial],
    features: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
) -> Choice:
    """Return the choice among the trials, of which the first is source only.

    Args:
        trials: The candidates.
        features: Features of the held-out source and of the target, of the model before
            the adaptation.
        labels: Class numbers of the held-out source.
    """
    reference = trials[0]
    refused = {each.name: _refused(each, reference, labels) for each in trials}
    # Refused candidates have a vote too, because they err in other ways.
    finite = [trial for trial in trials if trial.finite]
    source, target = features
    rows = {
        trial.name: [reverse_right(source, labels, target, trial.on_target)]
        for trial in finite
    }
    if len(finite) >= LEAST_ENSEMBLE:
        votes = agreements([trial.on_target for trial in finite])
        for trial, row in zip(finite, votes, strict=True):
            rows[trial.name].append(row)
    scores = []
    for trial in trials:
        found = [float(row.mean()) for row in rows.get(trial.name, ())]
        reverse, agreement = (found + [None, None])[:2]
        right = None
        if trial.finite:
            right = float(np.mean(trial.on_source.argmax(1) == labels))
        why = refused[trial.name]
        scores.append(Scores(trial.name, agreement, reverse, right, why))
    return Choice(scores, *_decide(scores, rows))


def guesses(reference: Trial, labels: np.ndarray) -> str:
    """Return that the model only guesses on the source, or ""."""
    share = np.bincount(labels).max() / len(labels)
    error = np.sqrt(share * (1 - share) / len(labels))
    right = np.mean(reference.on_source.argmax(1) == labels)
    if right > share + CLEAR * error:
        return ""
    return (
        f"The model is right on {right:.1%} of the held-out source, not clearly more "
        f"than the {share:.1%} of the most frequent class, so no candidate was "
        "trained. Train the model on the source first."
    )


def _refused(trial: Trial, reference: Trial, labels: np.ndarray) -> str:
    """Return why a candidate must not be chosen, or ""."""
    if trial is reference:
        return ""
    if not trial.finite:
        return "its training diverged"
    before, now = (each.on_source.argmax(1) == labels for each in (reference, trial))
    lost = before.astype(float) - now
    error = lost.std() / np.sqrt(len(lost))
    if lost.mean() > max(SOURCE_LOSS, CLEAR * error):
        return f"it lost {100 * lost.mean():.1f} points on held-out source"
    classes = reference.on_target.shape[1]
    before, now = (
        np.bincount(each.on_target.argmax(1), minlength=classes)
        for each in (reference, trial)
    )
    prior = np.bincount(labels, minlength=classes) / len(labels) * before.sum()
    expected = np.minimum(before, prior)
    least = max(RARE_COUNT, RARE_SHARE * before.sum())
    gone = np.flatnonzero((expected > least) & (now < KEPT * expected))
    if len(gone):
        return f"it hardly predicts class {', '.join(map(str, gone))} any more"
    return ""


def _decide(scores: Sequence[Scores], rows: dict[str, tuple]) -> tuple[str, str]:
    """Return the name of the chosen candidate, and why."""
    reference = scores[0]
    others = [each for each in scores[1:] if not each.refused]
    if not others:
        return SOURCE_ONLY, "No candidate passed the guards."
    best = max(others, key=lambda each: sum(row.mean() for row in rows[each.name]))
    gains = [
        after.astype(float) - before
        for after, before in zip(rows[best.name], rows[SOURCE_ONLY], strict=True)
    ]
    gain = sum(each.mean() for each in gains)
    error = np.sqrt(sum(each.var() / len(each) for each in gains))
    why = (
        f"its reverse accuracy is {best.reverse:.3f} instead of {reference.reverse:.3f}"
    )
    if best.agreement is not None:
        why += (
            f", and its agreement {best.agreement:.3f} instead of "
            f"{reference.agreement:.3f}"
        )
    why += f": {gain:+.3f} ± {error:.3f} in all."
    if gain > CLEAR * error:
        return best.name, f"{best.name} is better than source only: {why}"
    return (
        SOURCE_ONLY,
        f"No candidate is clearly better. Of the best, {best.name}, {why}",
    )
