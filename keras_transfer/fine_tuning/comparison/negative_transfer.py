"""Whether pretraining helped, from the scores of all ways to train."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.fine_tuning.comparison.differences import difference
from keras_transfer.fine_tuning.comparison.differences import LEVEL
from keras_transfer.fine_tuning.pilot.scores import Score

SCRATCH, ZERO_SHOT = "scratch", "zero-shot"
YES, NO, UNDECIDED = "yes", "no", "undecided"


class NegativeTransfer(NamedTuple):
    """An answer, and the sentence that explains it."""

    answer: str
    why: str


def negative_transfer(
    scores: Mapping[str, Sequence[Score]],
) -> NegativeTransfer | None:
    """Return whether the best pretrained way is worse than doing without.

    The references are training from scratch and the model without training, as far as
    `scores` has them. The best way was chosen by its score, so the interval of its
    difference has a level that holds for all ways together (Bonferroni).

    Returns:
        The answer; None without a reference or without a pretrained way.
    """
    ways = [name for name in scores if name not in (SCRATCH, ZERO_SHOT)]
    references = [name for name in (SCRATCH, ZERO_SHOT) if name in scores]
    if not ways or not references:
        return None
    best = max(ways, key=lambda name: np.mean([each.mean for each in scores[name]]))
    if len(scores[best]) < 2:
        return NegativeTransfer(
            UNDECIDED,
            "One seed does not show how much the results vary from run to run. Use "
            "seeds=3 or more.",
        )
    level = 1 - (1 - LEVEL) / len(ways)
    answers, said = [], []
    for name in references:
        found = difference(scores[best], scores[name], level)
        if found.low is None:
            return NegativeTransfer(
                UNDECIDED,
                "One test example does not show how much the results vary from example "
                "to example. Pass more test data.",
            )
        answer = UNDECIDED
        if found.low > 0 or found.high < 0:
            answer = NO if found.low > 0 else YES
        words = {YES: "below", NO: "above", UNDECIDED: "not clearly different from"}
        answers.append(answer)
        said.append(
            f"{best} is {words[answer]} {name} by {found.mean:+.3f} "
            f"({found.low:+.3f} to {found.high:+.3f})"
        )
    answer = next((each for each in (YES, UNDECIDED) if each in answers), NO)
    return NegativeTransfer(answer, "; ".join(said) + ".")
