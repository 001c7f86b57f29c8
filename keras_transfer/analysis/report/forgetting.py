"""The section of a report on what a model forgot, from `kt.analysis.Forgetting`."""

from __future__ import annotations

from keras_transfer.analysis.report.section import Section

MEASURES = ("average_accuracy", "backward_transfer", "forward_transfer")


def forgetting_section(content: dict) -> Section:
    """Return the table of the `to_dict` of a `Forgetting`."""
    table = content["accuracies"]
    names = list(next(iter(table.values())))
    rows = tuple(
        (row, *(f"{values[name]:.3f}" for name in names))
        for row, values in table.items()
    )
    notes = ["The accuracy on each task, after the training on each task."]
    for measure in MEASURES:
        value, sign = content[measure], "" if measure == "average_accuracy" else "+"
        said = "not defined" if value is None else format(value, f"{sign}.3f")
        notes.append(f"{measure.replace('_', ' ').capitalize()}: {said}.")
    return Section("forgetting", "Forgetting", tuple(notes), ("after", *names), rows)
