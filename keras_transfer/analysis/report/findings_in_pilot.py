"""Rules that find notable facts in the pilot of fine_tune.

Each rule returns a list of sentences, or None if its data are missing.
"""

from __future__ import annotations

from keras_transfer.analysis.report.pilot import finalists
from keras_transfer.analysis.report.pilot import said

NAMED = 4  # largest number of candidates that a sentence names


def fine_tuning_hurt(facts: dict) -> list[str] | None:
    """Find a pilot that chose the probe, although other candidates were tried.

    The probe must be better than the default candidate on the same held-out examples,
    by more than the standard error of the difference. This is the threshold of the
    pilot itself. The default candidate is the first one with the most steps and finite
    outputs. If there is none, fine-tuning was not compared. If another candidate with
    the most steps is better than the default one, it is named too.
    """
    if facts["pilot"] is None:
        return None
    rows = [row for row in finalists(facts["pilot"]) if row["estimate"] is not None]
    if not rows:
        return None
    (chosen,) = (row for row in facts["pilot"]["tried"] if row["chosen"])
    if chosen["strategy"] != "probe":
        return []
    default = rows[0]
    way = 1 if chosen["estimate"] > default["estimate"] else -1
    best = max(rows, key=lambda row: way * row["estimate"])
    sentence = (
        f"The pilot found that fine-tuning hurt: the held-out {chosen['metric']} of "
        f"the head alone, {said(chosen)}, is better than that of "
        f"{default['candidate']!r} after {default['steps']} steps, {said(default)}, by "
        "more than the standard error of the difference. So only the head trained."
    )
    if best is not default:
        sentence += f" The best other one is {best['candidate']!r}, {said(best)}."
    return [sentence]


def not_finite(facts: dict) -> list[str] | None:
    """Find candidates of a pilot whose outputs were not finite, in any trial."""
    if facts["pilot"] is None:
        return None
    tried = facts["pilot"]["tried"]
    names = [repr(row["candidate"]) for row in tried if row["estimate"] is None]
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [
        f"In the pilot, the outputs of {len(names)} of {len(tried)} candidates were "
        f"not finite: {', '.join(names[:NAMED])}{more}."
    ]
