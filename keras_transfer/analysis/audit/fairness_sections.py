"""The sections of an audit by group, which all text formats share."""

from __future__ import annotations

from collections.abc import Sequence

from keras_transfer.analysis.audit.fairness_measures import HEADINGS
from keras_transfer.analysis.report.tables import clean
from keras_transfer.analysis.report.tables import Section

UNDEFINED = "not defined"
SMALL = " *"
KINDS = ("model", "baseline")
FINDINGS = 10  # largest number of sentences at the beginning
ENDS = ("highest", "lowest")


def sections(content: dict) -> list[Section]:
    """Return all sections for the `content` of an audit by group."""
    found = [_title(content)]
    for attribute in content["attributes"]:
        for place, positive in enumerate(content["positive"] or [None]):
            found.append(_groups(content, attribute, positive, place == 0))
        found.append(_differences(content, attribute))
        if attribute["shares"] is not None:
            found.append(_shares(content, attribute))
    return found


def ranged(value: Sequence[float | None] | None, form: str = ".3f") -> str:
    """Return `[value, low, high]` as text, with the interval in parentheses."""
    if value is None:
        return ""
    if value[0] is None:
        return UNDEFINED
    shown = format(value[0], form)
    if value[1] is None:
        return shown
    return f"{shown} ({format(value[1], form)} to {format(value[2], form)})"


def class_name(content: dict, number: int | None) -> str:
    """Return the name of a class for a heading."""
    return "" if number is None else clean(content["classes"][number])


def of_class(attribute: dict, positive: int | None) -> list[dict]:
    """Return the measures of one class, with the accuracy of all classes."""
    names = [*HEADINGS]
    found = [
        each
        for each in attribute["measures"]
        if each["class"] == positive or each["measure"] == "accuracy"
    ]
    return sorted(found, key=lambda each: names.index(each["measure"]))


def shown_group(group: dict) -> str:
    """Return the name of a group, with a mark if it is small."""
    return clean(group["name"]) + SMALL * group["small"]


def _title(content: dict) -> Section:
    boot = content["bootstrap"]
    notes = [f"{content['examples']:,} examples."]
    if content["positive"]:
        names = ", ".join(class_name(content, each) for each in content["positive"])
        several = len(content["positive"]) > 1
        notes.append(f"{'Each class' if several else 'Positive'}: {names}.")
    if content["baseline"] is not None:
        notes.append(f"Baseline: {clean(content['baseline'])}.")
    notes += [
        f"Intervals: {100 * boot['level']:.0f} % percentile bootstrap, "
        f"{boot['draws']:,} draws within each group, seed {boot['seed']}. ±: half of "
        "the interval's width.",
        "The audit measures. It does not decide whether a difference is justified or "
        "harmful. Groups that were not passed are not seen.",
    ]
    if any(g["small"] for each in content["attributes"] for g in each["groups"]):
        notes.append(
            f"*: fewer than {content['smallest']} examples; left out of the largest "
            "differences. Intervals of small groups are too narrow."
        )
    title = f"Audit of {clean(content['model'])} by group"
    found = [
        each
        for attribute in content["attributes"]
        for each in _findings(content, attribute)
    ]
    if len(found) > FINDINGS:
        notes.append(f"The {FINDINGS} largest of {len(found)} differences are listed.")
        least = sorted((size for size, _ in found), reverse=True)[FINDINGS - 1]
        found = [each for each in found if each[0] >= least][:FINDINGS]
    items = tuple(text for _, text in found)
    return Section("title", title, tuple(notes), items=items)


def _findings(content: dict, attribute: dict) -> list[tuple[float, str]]:
    """Return the largest difference of the predictions by class, and a sentence."""
    found = []
    for each in attribute["measures"]:
        if each["measure"] not in ("positive_rate", "mean_prediction"):
            continue
        what = HEADINGS[each["measure"]]
        if each["class"] is not None:
            what = f"predicted as {class_name(content, each['class'])!r}"
        name, largest = clean(attribute["name"]), each["model"]["largest"]
        if largest is None:
            found.append((0.0, f"{name}: fewer than two groups are large enough."))
            continue
        values = {
            group["name"]: value[0]
            for group, value in zip(
                attribute["groups"], each["model"]["values"], strict=True
            )
        }
        sides = [
            f"{values[largest[side]]:.3f} of {clean(largest[side])}" for side in ENDS
        ]
        text = f"{name}: {what}: {sides[0]}, {sides[1]}, a difference of "
        text += f"{ranged(largest['difference'])}"
        found.append((largest["difference"][0], f"{text}{_changed(each)}."))
    return found


def _changed(measure: dict) -> str:
    change = measure["change"]
    if change is None:
        return ""
    before = measure["baseline"]["largest"]["difference"][0]
    text = f"; baseline {before:.3f}, change {ranged(change, '+.3f')}, which is "
    if change[1] is None or change[1] <= 0 <= change[2]:
        return text + "not clear of 0"
    return text + ("a wider difference" if change[0] > 0 else "a narrower difference")


def _groups(
    content: dict, attribute: dict, positive: int | None, alone: bool
) -> Section:
    measures = of_class(attribute, positive)
    kinds = [kind for kind in KINDS if kind == "model" or content["baseline"]]
    rows = []
    for place, group in enumerate(attribute["groups"]):
        for kind in kinds:
            first = kind == "model"
            cells = []
            for each in measures:
                known = each[kind] or (each["model"] if first else None)
                cells.append(_half(known["values"][place]) if known else "")
            start = [shown_group(group), f"{group['examples']:,}"]
            start = start if first else ["", ""]
            rows.append((*start, *([kind] if len(kinds) > 1 else []), *cells))
    header = ["group", "examples", *(["of"] if len(kinds) > 1 else [])]
    header += [HEADINGS[each["measure"]] for each in measures]
    title = f"By {clean(attribute['name'])}"
    if len(content["positive"]) > 1:
        title += f", class {class_name(content, positive)}"
    left = (0, 2) if len(kinds) > 1 else (0,)
    name = f"groups of {attribute['name']}" if alone else "more groups"
    return Section(name, title, (), tuple(header), tuple(rows), left)


def _half(value: Sequence[float | None]) -> str:
    """Return a value with half of the width of its interval."""
    if value[0] is None:
        return UNDEFINED
    if value[1] is None:
        return f"{value[0]:.3f}"
    return f"{value[0]:.3f} ± {(value[2] - value[1]) / 2:.3f}"


def _differences(content: dict, attribute: dict) -> Section:
    rows, both = [], content["baseline"] is not None
    for each in attribute["measures"]:
        what = HEADINGS[each["measure"]]
        if each["class"] is not None and len(content["positive"]) > 1:
            what += f", {class_name(content, each['class'])}"
        cells = [what]
        largest = each["model"]["largest"]
        if largest is None:
            cells += [UNDEFINED, "", "", ""]
        else:
            cells += [clean(largest["highest"]), clean(largest["lowest"])]
            cells += [ranged(largest["difference"]), ranged(largest["ratio"])]
        if both:
            other = each["baseline"] and each["baseline"]["largest"]
            cells.append(_of_baseline(other, largest) if other else "")
            cells.append(ranged(each["change"], "+.3f"))
        rows.append(tuple(cells))
    header = ("measure", "highest", "lowest", "difference", "ratio")
    header += ("baseline's", "change") if both else ()
    title = f"Largest differences by {clean(attribute['name'])}"
    notes = ("Ratio: the lowest value divided by the highest.",)
    if both:
        notes += (
            "Baseline's: the largest difference of the baseline, with its highest and "
            "lowest group if they are others. Change: the size of the model's "
            "difference minus that of the baseline's, paired.",
        )
    return Section("differences", title, notes, header, tuple(rows), (0, 1, 2))


def _of_baseline(largest: dict, models: dict | None) -> str:
    shown = ranged(largest["difference"])
    sides = [(each or {}).get(key) for each in (largest, models) for key in ENDS]
    if sides[:2] != sides[2:]:
        shown += f", {clean(largest['highest'])} / {clean(largest['lowest'])}"
    return shown


def _shares(content: dict, attribute: dict) -> Section:
    rows, first = [], attribute["shares"][0]
    columns = {"training": "training labels", "labels": "labels", "model": "predicted"}
    columns |= {"baseline": "predicted by the baseline"}
    columns = {key: name for key, name in columns.items() if first[key] is not None}
    for each in attribute["shares"]:
        for place, group in enumerate(attribute["groups"]):
            cells = [class_name(content, each["class"]), shown_group(group)]
            for key in columns:
                value = each[key][place]
                value = [value, None, None] if key == "training" else value
                cells.append(ranged(value))
            rows.append(tuple(cells))
    notes = ["The share of each group among the examples of a class."]
    notes += [
        _amplified(reference, found)
        for reference, found in attribute["amplification"].items()
        if found is not None
    ]
    title = f"Shares of each class by {clean(attribute['name'])}"
    header = ("class", "group", *columns.values())
    return Section("shares", title, tuple(notes), header, tuple(rows), (0, 1))


def _amplified(reference: str, found: dict) -> str:
    names = {"training": "training labels", "labels": "labels of the data"}
    text = "Bias amplification (Zhao et al. 2017), against the "
    text += f"{names[reference]}: model {ranged(found['model'], '+.3f')}"
    if found["baseline"] is not None:
        text += f", baseline {ranged(found['baseline'], '+.3f')}"
    if found["change"] is not None:
        text += f", change {ranged(found['change'], '+.3f')}"
    return f"{text}."
