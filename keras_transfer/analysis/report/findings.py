"""The findings of a report: plain sentences, the most important one first."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping

from keras_transfer.analysis.report import findings_in_history as history
from keras_transfer.analysis.report import findings_in_pilot as pilot
from keras_transfer.analysis.report import findings_in_results as results

MOST = 8  # largest number of findings

# What is checked, the words for it, and the rule. The most important rule comes first.
RULES: tuple[tuple[str, Callable], ...] = (
    ("whether the loss is finite", history.not_finite),
    ("whether the outputs are finite", results.not_finite),
    ("whether the training loss fell", history.loss_did_not_fall),
    ("whether the predictions are better than one class for all", results.one_class),
    ("whether the pilot found that fine-tuning hurt", pilot.fine_tuning_hurt),
    ("whether the outputs in the pilot are finite", pilot.not_finite),
    ("the validation values at the start of each phase", history.fell_at_a_phase),
    ("whether each trainable group moved", results.did_not_move),
    ("whether each class is predicted", results.never_predicted),
    ("the last epoch against the best epoch", history.last_is_not_best),
    ("training values against validation values", history.overfitting),
    ("the validation loss against the accuracy", history.overconfidence),
    ("whether the head was still improving", history.head_was_improving),
    ("the most confused classes", results.confused),
)


def findings(
    content: dict, directions: Mapping[str, bool | None], broken: Mapping[str, str]
) -> list[str]:
    """Return at most 8 sentences about what is notable in a report.

    Each rule states its threshold in its docstring. A rule whose data are missing finds
    nothing. Epochs are numbered from 1, as Keras prints them.

    Args:
        content: The content of the report.
        directions: Dict from the names of curves to whether a larger value is better,
            or None if this is not known. These curves are left out.
        broken: Dict from the names of outputs that are NaN or infinite to an error.

    Returns:
        The findings, or one sentence that nothing is notable and what was checked.
    """
    facts = content | {"directions": directions, "broken": broken}
    found, checked = [], []
    for what, rule in RULES:
        sentences = rule(facts)
        if sentences is not None:
            checked.append(what)
            found += sentences
    if found:
        return found[:MOST]
    if not checked:
        return ["Nothing was checked: pass `history`, `data` or `reference`."]
    return [f"Nothing notable was found. Checked: {'; '.join(checked)}."]
