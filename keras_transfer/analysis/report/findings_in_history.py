"""Rules that find notable events in the History of `fit`.

Each rule returns a list of sentences, or None if its data are missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras_transfer.analysis.report.costs import is_setting
from keras_transfer.analysis.report.curves import Curve

FLAT = 0.005  # a loss that falls by a smaller share did not fall
GAP = 0.1  # smallest gap of overfitting for values from 0 to 1
RATIO = 2.0  # smallest ratio of overfitting for values where a smaller one is better
STILL = 0.01  # smallest improvement of one epoch for values from 0 to 1
FALLS = 3  # largest number of phases in the findings
NAMED = 4  # largest number of groups that a sentence names


def not_finite(facts: dict) -> list[str] | None:
    """Find a training or validation loss that is NaN or infinite in any epoch."""
    if not {"loss", "val_loss"} & (facts["curves"] or {}).keys():
        return None
    for name, kind in (("loss", "training"), ("val_loss", "validation")):
        if name in facts["not_finite"]:
            epoch = facts["not_finite"][name] + 1
            return [f"The {kind} loss became NaN or infinite in epoch {epoch}."]
    return []


def loss_did_not_fall(facts: dict) -> list[str] | None:
    """Find a training loss that is never more than 0.5% below its first value.

    The rule needs two epochs. It does not apply to domain-adversarial training, whose
    losses work against each other.
    """
    loss = _curve(facts, "loss")
    if loss is None or len(loss.values) < 2 or "domain_loss" in facts["curves"]:
        return None
    if None in loss.values:
        return None
    lowest = min(range(1, len(loss.values)), key=loss.values.__getitem__)
    if loss.gain(0, lowest) > FLAT * abs(loss.values[0]):
        return []
    return [
        f"The training loss did not fall: it was {loss.at(0)}, and its lowest value "
        f"after that is {loss.at(lowest)}."
    ]


def fell_at_a_phase(facts: dict) -> list[str] | None:
    """Find a validation metric or loss that gets worse in the first epoch of a phase.

    The change from the last epoch of the previous phase must be notable (see
    `Curve.tolerance`), and larger than each change for the worse between two earlier
    epochs of one phase. For each phase, the first such value counts: metrics in the
    order of `compile`, then the loss. The three largest changes are shown.
    """
    phases, curves = facts["phases"] or [], _validation(facts)
    if len(phases) < 2 or not curves:
        return None
    starts = [facts["epochs"].index(phase["first_epoch"]) for phase in phases]
    found = []
    for number, start in enumerate(starts[1:], 1):
        for curve in curves:
            steps = set(range(1, start)) - set(starts)
            falls = (curve.gain(i, i - 1) for i in steps)
            noise = max((each for each in falls if each > 0), default=0.0)
            fall = curve.gain(start, start - 1)
            if not curve.is_worse(start - 1, start) or fall <= noise:
                continue
            size = fall / curve.tolerance(start - 1, start)
            found.append((size, -start, _fall(curve, start, phases, number)))
            break
    found.sort(reverse=True)
    return [sentence for *_, sentence in found[:FALLS]]


def last_is_not_best(facts: dict) -> list[str] | None:
    """Find a last epoch that is notably worse than the best (see `Curve.tolerance`).

    The rule compares the first validation metric whose better direction is known, or
    else the validation loss.
    """
    curve = _main(facts)
    if curve is None or curve.values[-1] is None or len(curve.values) < 2:
        return None
    best, last = curve.best, len(curve.values) - 1
    if not curve.is_worse(best, last):
        return []
    way = "lower" if curve.larger_is_better else "higher"
    change = abs(curve.gain(best, last))
    return [
        f"The last epoch is worse than the best epoch: the {curve.said} is "
        f"{curve.at(last)} and was {curve.at(best)}. It is {change:.3g} {way}."
    ]


def overfitting(facts: dict) -> list[str] | None:
    """Find a training value that is far better than the validation value at the end.

    For values from 0 to 1 where larger is better, the gap must be 0.1. It must also be
    twice the standard error of the validation value, if this is an accuracy with a
    known number of examples. For values where smaller is better, the validation value
    must be twice the training value, and the gap 2% of the largest validation value.
    The rule compares the first validation metric whose better direction is known, or
    else the loss.
    """
    held_out = _main(facts)
    train = held_out and _curve(facts, held_out.name.removeprefix("val_"))
    if train is None or None in (train.values[-1], held_out.values[-1]):
        return None
    last = len(train.values) - 1
    a, b = train.values[-1], held_out.values[-1]
    if held_out.is_proportion and train.is_proportion:
        far = a - b >= max(GAP, held_out.tolerance(last))
    elif not held_out.larger_is_better and min(a, b) >= 0:
        far = b >= RATIO * a and b - a >= held_out.tolerance()
    else:
        return None
    if not far:
        return []
    way = "above" if held_out.larger_is_better else "below"
    return [
        f"In the last epoch ({train.epochs[-1] + 1}), the {train.said} of "
        f"{train.number(last)} is far {way} the {held_out.said} of "
        f"{held_out.number(last)}. This is a sign of overfitting."
    ]


def overconfidence(facts: dict) -> list[str] | None:
    """Find a validation loss that rises while the validation accuracy holds.

    The loss of the last epoch must be notably higher than the lowest loss, and the
    accuracy must not be notably worse than in the epoch of the lowest loss (see
    `Curve.tolerance`).
    """
    loss, accuracy = _curve(facts, "val_loss"), _main(facts)
    if loss is None or accuracy is None or not accuracy.is_accuracy:
        return None
    if None in (loss.values[-1], accuracy.values[-1]) or len(loss.values) < 2:
        return None
    best, last = loss.best, len(loss.values) - 1
    if accuracy.values[best] is None:
        return None
    if not loss.is_worse(best, last) or accuracy.is_worse(best, last):
        return []
    return [
        f"The validation loss rose from {loss.at(best)} to {loss.at(last)}, but the "
        f"{accuracy.said} did not get clearly worse: {accuracy.number(best)} and "
        f"{accuracy.number(last)}. This is a sign of overconfident predictions."
    ]


def head_was_improving(facts: dict) -> list[str] | None:
    """Find a head that was still improving when its phase ended.

    The first phase must train the head alone, for two epochs or more. Its last epoch
    must be the best of the phase, and better than the epoch before by 0.01 for values
    from 0 to 1 where larger is better, and by half of `Curve.tolerance` otherwise. If
    the number of examples is known, the improvement must also be one standard error of
    the difference. The rule uses the first validation metric whose better direction is
    known, or else the validation loss.
    """
    phases, curve = facts["phases"] or [], _main(facts)
    if len(phases) < 2 or curve is None or not _is_head(facts, phases[0]):
        return None
    last = phases[0]["num_epochs"] - 1
    if last < 1 or None in curve.values[: last + 1]:
        return None
    least = curve.tolerance(last - 1, last) / 2
    if curve.is_proportion and not (curve.is_accuracy and curve.examples):
        least = STILL
    gains = [curve.gain(i, last) for i in range(last)]
    if min(gains) <= 0 or gains[-1] < least:
        return []
    return [
        f"The head was still improving when its phase ended: in the last two epochs of "
        f"the phase, the {curve.said} went from {curve.at(last - 1)} to "
        f"{curve.at(last)}."
    ]


def _fall(curve: Curve, start: int, phases: Sequence[dict], number: int) -> str:
    """Return the sentences about the start of a phase."""
    before, phase = phases[number - 1], phases[number]
    verb = "fell" if curve.larger_is_better else "rose"
    said = (
        f"The {curve.said} {verb} from {curve.at(start - 1)} to {curve.at(start)} "
        f"when phase {phase['phase']} began{_thawed(before, phase)}."
    )
    later = range(start + 1, len(curve.values))
    back = next((i for i in later if curve.gain(start - 1, i) >= 0), None)
    if back is not None:
        return f"{said} It was back at {curve.at(back)}."
    later = [i for i in later if curve.values[i] is not None]
    if not later:
        return said
    best = min(later, key=lambda i: curve.gain(i, start))
    return f"{said} It did not recover: the best value after that is {curve.at(best)}."


def _thawed(before: dict, phase: dict) -> str:
    """Return which groups thawed, as the end of a sentence."""
    if phase["groups"] is None or before["groups"] is None:
        counts = before["trainable_parameters"], phase["trainable_parameters"]
        if None in counts or counts[0] >= counts[1]:
            return ""
        return f" and {counts[1]:,} instead of {counts[0]:,} parameters were trainable"
    names = [name for name in phase["groups"] if name not in before["groups"]]
    if not names:
        return ""
    if len(names) > NAMED:
        return f" and {len(names)} groups thawed, from {names[0]!r} to {names[-1]!r}"
    many = "groups" if len(names) > 1 else "group"
    return f" and the {many} {', '.join(map(repr, names))} thawed"


def _is_head(facts: dict, phase: dict) -> bool:
    """Return whether a phase trained the last layer group alone."""
    head = facts["groups"][-1]
    if phase["groups"] is not None:
        return phase["groups"] == [head["name"]]
    return phase["trainable_parameters"] == head["parameters"]


def _main(facts: dict) -> Curve | None:
    return next(iter(_validation(facts)), None)


def _validation(facts: dict) -> list[Curve]:
    """Return the validation curves with a known direction, the loss last.

    The accuracy of a domain classifier is left out, because 0.5 is its goal. So are the
    losses of single outputs, which are parts of the loss.
    """
    names = [
        name
        for name in facts["curves"] or {}
        if name.startswith("val_")
        and not name.endswith("_loss")
        and "domain" not in name
        and not is_setting(name)
    ]
    curves = (_curve(facts, name) for name in [*names, "val_loss"])
    return [curve for curve in curves if curve is not None]


def _curve(facts: dict, name: str) -> Curve | None:
    """Return a curve, or None if it or its better direction is not known."""
    values = (facts["curves"] or {}).get(name)
    larger = facts["directions"].get(name)
    if values is None or larger is None or any(isinstance(v, str) for v in values):
        return None
    epochs = tuple(facts["epochs"])
    curve = Curve(name, tuple(values), epochs, larger)
    if not name.startswith("val_") or not curve.is_accuracy:
        return curve
    return Curve(name, curve.values, epochs, larger, _examples(facts, curve))


def _examples(facts: dict, curve: Curve) -> int | None:
    """Return the number of validation examples, if `data` is the validation data.

    This is so if the accuracy on `data` is the one of the last or of the best epoch.
    """
    evaluation = facts["evaluation"] or {}
    if evaluation.get("kind") != "classes" or curve.best is None:
        return None
    ends = (curve.values[-1], curve.values[curve.best])
    same = (
        each is not None and abs(each - evaluation["accuracy"]) < 1e-5 for each in ends
    )
    return evaluation["examples"] if any(same) else None
