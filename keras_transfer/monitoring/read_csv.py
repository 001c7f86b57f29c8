"""Read outputs and features, or inputs, from a CSV file."""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

ROWS = 1_000  # rows that become one batch
EXACT = 2**53  # whole numbers of float64 are exact below it
FEATURES = "features"


def read_csv(
    path: pathlib.Path,
    outputs: Mapping[str, Sequence[Sequence[str]]],
    inputs: Mapping[str, bool],
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Yield the first and the last line of up to 1,000 rows, and their arrays by name.

    Empty lines are left out. Columns of whole numbers become int64.

    Args:
        path: The file, in UTF-8, with a header.
        outputs: For the name of each output, the headers that its columns can have.
        inputs: For the name of each input, whether it is text.

    Raises:
        ValueError: If the header has other names, or a line is broken.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            header = next(rows, None)
            if header is None:
                return
            split = _split(header, outputs, inputs)
            texts = {name for name, text in inputs.items() if text}
            found: dict[str, list] = {name: [] for name in split}
            first = rows.line_num + 1
            for row in rows:
                if not row:  # an empty line
                    continue
                _add(found, row, header, split, texts, f"Line {rows.line_num}")
                if len(next(iter(found.values()))) == ROWS:
                    yield first, rows.line_num, _arrays(found)
                    found, first = {name: [] for name in split}, rows.line_num + 1
            if next(iter(found.values())):
                yield first, rows.line_num, _arrays(found)
    except (csv.Error, UnicodeDecodeError) as problem:
        raise ValueError(f"{str(path)!r} is not CSV in UTF-8: {problem}") from problem


def _split(
    header: Sequence[str],
    outputs: Mapping[str, Sequence[Sequence[str]]],
    inputs: Mapping[str, bool],
) -> dict[str, list[int]]:
    """Return the places of the columns of each array.

    Raises:
        ValueError: If the header fits neither the outputs nor the inputs.
    """
    at = {name: place for place, name in enumerate(header)}
    if len(at) < len(header):
        raise ValueError(f"The header has a name twice: {list(header)[:20]}.")
    found = {}
    for output, choices in outputs.items():
        for names in choices:
            if set(names) <= set(at):
                found[output] = [at[name] for name in names]
    if found:
        features = []
        while f"{FEATURES}_{len(features)}" in at:
            features.append(at[f"{FEATURES}_{len(features)}"])
        found |= {FEATURES: features} if features else {}
    elif inputs and set(inputs) <= set(at):
        found = {name: [at[name]] for name in inputs}
    wanted = [list(names)[:9] for each in outputs.values() for names in each]
    wanted += [list(inputs)] if inputs else []
    used = {place for places in found.values() for place in places}
    unused = [name for name, place in at.items() if place not in used]
    if unused:
        raise ValueError(
            f"The header has the columns {unused[:20]}, which are not of the model. "
            f"It must have one of {wanted}, and after outputs also {FEATURES}_0, ..."
        )
    return found


def _add(
    found: dict[str, list],
    row: Sequence[str],
    header: Sequence[str],
    split: Mapping[str, list[int]],
    texts: set[str],
    line: str,
) -> None:
    if len(row) != len(header):
        raise ValueError(
            f"{line} has {len(row)} cells, but the header has {len(header)}."
        )
    for name, places in split.items():
        cells = [row[place] for place in places]
        if name in texts:
            found[name] += cells
        else:
            found[name].append([_number(cell, line) for cell in cells])


def _number(cell: str, line: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{line} has {cell[:80]!r}, which is not a finite number.")
    return value


def _arrays(found: Mapping[str, list]) -> dict[str, np.ndarray]:
    return {name: _array(rows) for name, rows in found.items()}


def _array(rows: list) -> np.ndarray:
    array = np.array(rows)
    if array.dtype.kind == "f" and np.abs(array).max() < EXACT:
        whole = array.astype("int64")
        # An input can take whole numbers only, such as the ids of tokens.
        return whole if np.array_equal(whole, array) else array
    return array
