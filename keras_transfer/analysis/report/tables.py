"""Build the sections of a report, which all text formats share."""

from __future__ import annotations

import dataclasses
import unicodedata

from keras_transfer.analysis.energy.energy_section import energy_section
from keras_transfer.analysis.report.forgetting import forgetting_section
from keras_transfer.analysis.report.pilot import finalists
from keras_transfer.analysis.report.pilot import said
from keras_transfer.analysis.report.section import Section

MISSING = "not recorded"
EPOCHS = "Epochs are numbered from 1, as Keras prints them."
PHASES = "Phases are numbered from 0."
WIDEST = 12  # largest number of classes of a confusion matrix in text
MOST = 30  # largest number of classes in the list of recalls


def sections(content: dict) -> list[Section]:
    """Return all sections for the `content` of a report."""
    shown = [Section("title", f"Report of {clean(content['model']['name'])}")]
    shown += [*_findings(content), _model(content), _groups(content)]
    shown += [*_pilot(content), _phases(content), *_energy(content)]
    shown += [*_forgetting(content), *_evaluation(content)]
    reasons = content["not_recorded"]
    if reasons:
        rows = tuple((clean(what), clean(why)) for what, why in reasons.items())
        title = "What was not recorded"
        shown.append(Section("missing", title, (), ("what", "why"), rows, (0, 1)))
    return shown


def clean(text: str) -> str:
    """Return `text` on one line, without control characters."""
    return "".join(
        letter if unicodedata.category(letter)[0] != "C" else " "
        for letter in str(text)
    ).strip()


def number(value: float | None, form: str = ".4g") -> str:
    """Return a number as text, or "not recorded" for None."""
    return MISSING if value is None else format(value, form)


def moved(row: dict) -> str:
    """Return the moved norm of a group as text."""
    if row["moved"] is None:
        return MISSING
    return f"{row['moved']:.3g}" + ("" if row["moved_is_relative"] else " abs.")


def _findings(content: dict) -> list[Section]:
    """Return the findings. Reports of earlier versions have none."""
    items = tuple(map(clean, content.get("findings", ())))
    notes = (EPOCHS,) if content["epochs"] else ()
    notes += (PHASES,) if len(content["phases"] or ()) > 1 else ()
    return [Section("findings", "Findings", notes, items=items)] if items else []


def _model(content: dict) -> Section:
    model, optimizer = content["model"], content["optimizer"]
    notes = [
        f"{model['class']} with {model['parameters']:,} parameters, "
        f"{model['trainable']:,} of them trainable."
    ]
    if optimizer is None:
        notes.append(f"Optimizer: {MISSING}.")
    else:
        notes.append(f"{optimizer['class']} after {optimizer['updates']:,} updates.")
    return Section("model", "Model", tuple(notes))


def _groups(content: dict) -> Section:
    rows, total = content["groups"], content["total"]
    notes = []
    if content["start"] is None:
        notes.append(f"moved: {MISSING}.")
    else:
        notes.append(
            f"moved: ||w - w0|| / ||w0||, where w0 is {clean(content['start'])}."
        )
    if not all(row["moved_is_relative"] in (None, True) for row in rows):
        notes.append("abs.: ||w - w0||, because w0 is zero.")
    statistics = any(row["statistics"] for row in rows)
    header = ("group", "parameters", "trainable", "moved")
    header += ("statistics moved",) * statistics + ("optimizer bytes",)

    def cells(row: dict) -> tuple[str, ...]:
        moves = f"{number(row['statistics_moved'], 'd')} of {row['statistics']}"
        if row["statistics_moved"] is None:
            moves = MISSING
        return (
            clean(row["name"]),
            f"{row['parameters']:,}",
            f"{row['trainable']:,}",
            moved(row),
            *([moves if row["statistics"] else "-"] if statistics else []),
            number(row["optimizer_bytes"], ",d"),
        )

    table = [cells(row) for row in rows]
    if content["optimizer"]:
        shared = number(content["optimizer"]["shared_bytes"], ",d")
        table.append(("shared", *[""] * (len(header) - 2), shared))
    table.append(cells(total))
    if statistics:
        notes.append("statistics: the moving means and variances of BatchNorm.")
    footer = 2 if content["optimizer"] else 1
    title = "Layer groups, stem first"
    return Section("groups", title, tuple(notes), header, tuple(table), (0,), footer)


def _pilot(content: dict) -> list[Section]:
    """Return the pilot. Reports of earlier versions, and most histories, have none."""
    pilot = content.get("pilot")
    if pilot is None:
        return []
    notes = [
        clean(pilot["why"]),
        f"The pilot used {pilot['labels']:,} training labels, a part of them held out, "
        f"and {pilot['steps']:,} steps.",
    ]
    if any(row["steps"] for row in pilot["tried"] if row not in finalists(pilot)):
        notes.append(
            "The choice is between the probe and the candidates with the most steps. "
            "The others ended early."
        )
    metric = pilot["tried"][0]["metric"]
    losses = metric != "loss"  # otherwise the estimate is the loss
    rows = tuple(
        (
            clean(row["candidate"]),
            f"{row['steps']:,}" if row["steps"] else "without steps",
            said(row),
            *(["-" if row["loss"] is None else f"{row['loss']:.4g}"] if losses else []),
            "yes" if row["chosen"] else "",
        )
        for row in pilot["tried"]
    )
    header = ("candidate", "steps", f"held-out {clean(metric)} ± standard error")
    header += ("loss",) * losses + ("chosen",)
    left = (0, len(header) - 1)
    return [Section("pilot", "Pilot", tuple(notes), header, rows, left)]


def _energy(content: dict) -> list[Section]:
    """Return the energy. Most reports have none."""
    return [energy_section(content["energy"])] if content.get("energy") else []


def _forgetting(content: dict) -> list[Section]:
    """Return what was forgotten. Most reports have nothing about it."""
    found = content.get("forgetting")
    if not found:
        return []
    section = forgetting_section(found)
    rows = tuple(tuple(map(clean, row)) for row in section.rows)
    header = tuple(map(clean, section.header))
    return [dataclasses.replace(section, header=header, rows=rows)]


def _phases(content: dict) -> Section:
    title = "Cost by phase"
    if content["phases"] is None:
        return Section("phases", title, (f"History: {MISSING}.",))
    rows = []
    for phase in content["phases"]:
        first, last = phase["first_epoch"] + 1, phase["last_epoch"] + 1
        ends = phase["at_its_end"].items()
        rows.append(
            (
                MISSING if phase["phase"] is None else clean(phase["phase"]),
                str(first) if first == last else f"{first}-{last}",
                number(phase["seconds"], ".1f"),
                number(phase["trainable_parameters"], ",d"),
                ", ".join(f"{clean(k)} {number(v)}" for k, v in ends) or MISSING,
            )
        )
    header = ("phase", "epochs", "seconds", "trainable", "metrics at the end")
    return Section("phases", title, (), header, tuple(rows), (4,))


def _evaluation(content: dict) -> list[Section]:
    evaluation = content["evaluation"]
    if evaluation is None:
        return [Section("evaluation", "Evaluation", (f"Data: {MISSING}.",))]
    if evaluation["kind"] != "several":
        return _of_output(evaluation)
    found = []
    for name, each in evaluation["by_output"].items():
        said = f": output {clean(name)}"
        if each is None:
            note = (f"Data: {MISSING}.",)
            found.append(Section("evaluation", f"Evaluation{said}", note, output=name))
            continue
        found += [
            dataclasses.replace(part, title=part.title + said, output=name)
            for part in _of_output(each)
        ]
    return found


def _of_output(evaluation: dict) -> list[Section]:
    title = "Evaluation"
    notes = [
        f"{evaluation['examples']:,} examples. The outputs are read as "
        f"{evaluation['outputs']}."
    ]
    if "positions" in evaluation:
        notes.append(
            f"{evaluation['positions']:,} tokens or pixels of these examples are "
            "evaluated one by one."
        )
    if evaluation["kind"] == "numbers":
        notes.append(
            f"Mean absolute error {evaluation['mean_absolute_error']:.4g}, root mean "
            f"squared error {evaluation['root_mean_squared_error']:.4g}."
        )
        return [Section("evaluation", title, tuple(notes)), _worst(evaluation)]
    if evaluation["kind"] == "labels":
        of = "tokens or pixels" if "positions" in evaluation else "examples"
        notes.append(
            f"All labels correct: {evaluation['accuracy']:.4f} of the {of}. Single "
            f"labels correct: {evaluation['label_accuracy']:.4f}."
        )
    else:
        notes.append(f"Accuracy {evaluation['accuracy']:.4f}.")
    classes = evaluation["classes"]
    if len(classes) > MOST:
        seen = [each for each in classes if each["recall"] is not None]
        classes = sorted(seen, key=lambda each: each["recall"])[:MOST]
        notes.append(f"The {MOST} classes with the lowest recall:")
    rows = tuple(
        (
            clean(each["name"]),
            f"{each['examples']:,}",
            "-" if each["recall"] is None else f"{each['recall']:.4f}",
        )
        for each in classes
    )
    of = "positions" if "positions" in evaluation else "examples"
    header = ("class", of, "recall")
    result = [Section("evaluation", title, tuple(notes), header, rows)]
    if evaluation["kind"] == "classes":
        result.append(_confusion(evaluation))
    return [*result, _worst(evaluation)]


def _confusion(evaluation: dict) -> Section:
    matrix = evaluation["confusion_matrix"]
    names = [clean(each["name"]) for each in evaluation["classes"]]
    if matrix is not None and len(names) <= WIDEST:
        rows = tuple(
            (name, *(f"{count:,}" for count in row))
            for name, row in zip(names, matrix, strict=True)
        )
        notes = ("Rows: the true class. Columns: the predicted class.",)
        title = "Confusion matrix"
        return Section("confusion", title, notes, ("true", *names), rows)
    rows = tuple(
        (clean(each["true"]), clean(each["predicted"]), f"{each['examples']:,}")
        for each in evaluation["most_confused"]
    )
    of = "positions" if "positions" in evaluation else "examples"
    header = ("true", "predicted", of)
    return Section("confusion", "Most confused classes", (), header, rows, (0, 1))


def _worst(evaluation: dict) -> Section:
    title = "Worst predictions"
    if not evaluation["worst"]:
        return Section("worst", title, ("All predictions are correct.",))
    sure = "probability" in evaluation["worst"][0]
    dense = "position" in evaluation["worst"][0]
    header = ("index", *(["position"] if dense else []), "true", "predicted")
    header += ("p",) * sure
    header += ("error" if evaluation["kind"] == "numbers" else "loss", "example")
    rows = tuple(
        (
            str(example["index"]),
            *([", ".join(map(str, example["position"]))] if dense else []),
            clean(example["true"]),
            clean(example["predicted"]),
            *([f"{example['probability']:.3f}"] if sure else []),
            f"{example['loss']:.4g}",
            clean(example["example"]),
        )
        for example in evaluation["worst"]
    )
    left = (1 + dense, 2 + dense, len(header) - 1)
    notes = ("p: the probability of the predicted class.",) if sure else ()
    if dense:
        notes = ("`position`: the worst token or pixel of the example.", *notes)
    return Section("worst", title, notes, header, rows, left)
