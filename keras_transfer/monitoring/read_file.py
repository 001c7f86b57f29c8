"""Read examples, or outputs of a model, from a file: a log, JSON lines, CSV or npz."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from keras_transfer.export.request_log import read_request_log
from keras_transfer.export.shift_reference import arrays_of
from keras_transfer.monitoring.read_csv import read_csv
from keras_transfer.monitoring.read_json_lines import read_json_lines

FEATURES = "features"


class Batch(NamedTuple):
    """Arguments of `ShiftMonitor.update`, and the place where they come from.

    Args:
        place: Where the rows are, such as "record 3", for errors.
        arguments: The arguments by name.
    """

    place: str
    arguments: Mapping[str, object]


class Columns(NamedTuple):
    """What a file can have: the output of the model, its classes and its inputs.

    Args:
        output: Name of the output.
        classes: Names of the classes.
        size: Number of outputs of an example.
        inputs: For each input of the model, whether it takes texts. Empty if the model
            is not loaded.
        version: Version of the model, or None.
    """

    output: str
    classes: Sequence[str]
    size: int
    inputs: Mapping[str, bool]
    version: int | None


def read_file(path: pathlib.Path, columns: Columns) -> Iterator[Batch]:
    """Yield the batches of a file. Its suffix decides its format.

    - `.npz`: arrays with the name of the output (`outputs`) and `features`, or with the
      names of the inputs.
    - `.csv`: a header, and a row for each example. The columns are the class names or
      `outputs_0`, `outputs_1`, ..., and also `features_0`, `features_1`, ... if there
      are features. A file of inputs has a column for each input.
    - `.jsonl`: bodies of the REST API of TensorFlow Serving, one in each line: answers
      with `predictions` or requests with `instances`.
    - Any other suffix: the request log of TensorFlow Serving.

    Args:
        path: The file.
        columns: What the file can have.

    Raises:
        ValueError: If the file is empty or damaged, with the number of the line or
            record.
    """
    readers: dict[str, Callable] = {
        ".npz": _npz,
        ".csv": _csv,
        ".jsonl": _json_lines,
    }
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    empty = True
    for batch in readers.get(path.suffix.lower(), _log)(path, columns):
        empty = False
        yield batch
    if empty:
        raise ValueError(f"{str(path)!r} has no examples.")


def chosen(found: Mapping[str, object], columns: Columns, place: str) -> dict:
    """Return named arrays as arguments of `update`.

    Raises:
        ValueError: If neither the output nor all inputs are there.
    """
    if columns.output in found:
        return {"outputs": found[columns.output], FEATURES: found.get(FEATURES)}
    if columns.inputs and set(columns.inputs) <= set(found):
        return {"inputs": {name: found[name] for name in columns.inputs}}
    inputs = f" or the inputs {list(columns.inputs)}" if columns.inputs else ""
    raise ValueError(
        f"{place} has {sorted(found)}, but not the output {columns.output!r}{inputs} "
        "of the model."
    )


def _log(path: pathlib.Path, columns: Columns) -> Iterator[Batch]:
    for call in read_request_log(path):
        place = f"Record {call.number}"
        versions = {call.version, columns.version} - {None}
        if len(versions) > 1:
            raise ValueError(
                f"{place} is of version {call.version} of the model, but the reference "
                f"is that of version {columns.version}. Pass the log of this version."
            )
        found = call.outputs if columns.output in call.outputs else call.inputs
        yield Batch(place, chosen(found, columns, place))


def _json_lines(path: pathlib.Path, columns: Columns) -> Iterator[Batch]:
    inputs = list(columns.inputs)
    for number, found in read_json_lines(path, columns.output, inputs):
        place = f"Line {number}"
        yield Batch(place, chosen(found, columns, place))


def _npz(path: pathlib.Path, columns: Columns) -> Iterator[Batch]:
    try:
        found = arrays_of(path.read_bytes())
    except (ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise ValueError(f"{str(path)!r} cannot be read: {problem}") from problem
    yield Batch(path.name, chosen(found, columns, path.name))


def _csv(path: pathlib.Path, columns: Columns) -> Iterator[Batch]:
    outputs = {columns.output: _outputs(columns)}
    for first, last, found in read_csv(path, outputs, columns.inputs):
        yield Batch(f"Lines {first} to {last}", chosen(found, columns, path.name))


def _outputs(columns: Columns) -> list[list[str]]:
    """Return the headers that the outputs can have in a CSV file."""
    numbered = [f"{columns.output}_{i}" for i in range(columns.size)]
    single = [[columns.output]] if columns.size == 1 else []
    return [*single, numbered, list(columns.classes[-columns.size :])]
