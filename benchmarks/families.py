"""A table of backbone families and strategies, and which combinations work.

Claim: each strategy works with each family, or raises an error that says why not. Each
strategy trains a tiny model without pretrained weights, eagerly, on one batch of 4. A
cell is "ok", "refused" (a clear error of this package), "Keras cannot" (it fails
without this package too) or "fault". The notes below the table give the reasons.

    PYTHONPATH=. python benchmarks/families.py [family ...]
"""

import gc
import re
import sys

import keras

from tests.backbones import family_table

MOST = 220  # the largest number of characters in a reason


def row_of(family, notes):
    """Return the cells of a family, and add the reasons to `notes`."""
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
    """Return a reason without the details that differ between similar models."""
    reason = re.sub(r"_\d+(?=['/])", "", reason)
    if len(reason) > MOST:
        reason = reason[: MOST - 3].rstrip() + "..."
    return reason.replace("|", "\\|")


def line(cells):
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(names):
    """Print the table, family by family, and then the notes."""
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
