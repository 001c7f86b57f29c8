"""Read bodies of TensorFlow Serving's REST API, one in each line of a file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from keras_transfer.saving.strict_json import parse_json

LONGEST = 1 << 28  # bytes of the longest line that is read


def read_json_lines(
    path: pathlib.Path, output: str, inputs: Sequence[str]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield the number of each line and its arrays by name.

    A line is a body with `predictions` or `outputs` (answers), or with `instances` or
    `inputs` (requests). In the row format (`predictions`, `instances`), a row is an
    object by name or the value of the only tensor. Empty lines are left out.

    Args:
        path: The file.
        output: Name of the output, for rows without names.
        inputs: Names of the inputs, for rows without names.

    Raises:
        ValueError: If a line is not such a body.
    """
    single = inputs[0] if len(inputs) == 1 else "inputs"
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST):
            number += 1
            if not line.strip():
                continue
            try:
                found = _body(parse_json(line), output, single)
            except (ValueError, TypeError, OverflowError) as problem:
                raise ValueError(
                    f"Line {number} of {str(path)!r} is broken: {problem}"
                ) from problem
            yield number, found


def _body(body: object, output: str, single: str) -> dict[str, np.ndarray]:
    names = {"predictions": output, "outputs": output}
    names |= {"instances": single, "inputs": single}
    keys = [key for key in names if isinstance(body, dict) and key in body]
    if len(keys) != 1:
        raise ValueError(
            f"it must be an object with one of {list(names)}, as a body of the REST "
            "API of TensorFlow Serving."
        )
    (key,) = keys
    value, name = body[key], names[key]
    if key in ("outputs", "inputs") and isinstance(value, dict):
        columns = value
    elif not isinstance(value, list) or not value:
        raise ValueError(f"{key!r} has no rows.")
    elif key in ("predictions", "instances") and isinstance(value[0], dict):
        wanted = set(value[0])
        for place, row in enumerate(value):
            if not isinstance(row, dict) or set(row) != wanted:
                raise ValueError(f"row {place} has other names than row 0.")
        columns = {each: [row[each] for row in value] for each in value[0]}
    else:
        columns = {name: value}
    return {each: _array(each, rows) for each, rows in columns.items()}


def _array(name: str, rows: object) -> np.ndarray:
    try:
        array = np.array(rows)
    except ValueError as problem:
        raise ValueError(f"the rows of {name!r} differ in shape.") from problem
    if array.dtype.kind not in "biufU":
        raise ValueError(f"{name!r} is not an array of numbers or texts.")
    return array
