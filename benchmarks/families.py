"""What works on which backbone family: a table of families and strategies.

Claim: whatever can be done with one family can be done with each, or is refused with an
error that says why. Each strategy trains a tiny model without pretrained weights,
eagerly, on one batch of 4. A cell is "ok", "refused" (a clear error of this package),
"Keras cannot" (without this package either) or "fault"; notes below give the reasons.

    PYTHONPATH=. python benchmarks/families.py [family ...]
"""

import gc
import re
import sys

import keras

from tests.backbones import family_table

MOST = 220  # characters of a reason


def row_of(family, notes):
    """Return the cells of a family; put the reasons into `notes`."""
    try:
        trial = family_table.Trial(family)
    except ImportError as error:
        return [f"not installed: {error.name}"] + [""] * (
            len(family_table.STRATEGIES) - 1
        )
    cells = []
    for strategy in family_table.STRATEGIES:
        said, reason = family_table.tried(trial, strategy)
        if reason:
            number = notes.setdefault(shortened(reason), len(notes) + 1)
            said = f"{said} ({number})"
        cells.append(said)
        keras.backend.clear_session()
        gc.collect()
    return cells


def shortened(reason):
    """Return a reason without what differs between models of one kind."""
    reason = re.sub(r"_\d+(?=['/])", "", reason)
    if len(reason) > MOST:
        reason = reason[: MOST - 3].rstrip() + "..."
    return reason.replace("|", "\\|")


def line(cells):
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(names):
    """Print the table, a family at a time, and then the notes."""
    unknown = sorted(set(names) - set(family_table.NAMES))
    if unknown:
        sys.exit(f"unknown: {unknown}. The families are {family_table.NAMES}.")
    notes = {}
    print(line(["family", *family_table.STRATEGIES]))
    print(line(["---"] * (1 + len(family_table.STRATEGIES))), flush=True)
    for family in names or family_table.NAMES:
        print(line([family, *row_of(family, notes)]), flush=True)
    print()
    for reason, number in notes.items():
        print(f"{number}. {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
