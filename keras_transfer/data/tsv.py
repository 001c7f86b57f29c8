"""from_tsv, which reads labeled texts from a file of tab-separated values."""

import csv
import os
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import unique_names

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
SHOWN = 10  # number of class names in an error message


class Texts(NamedTuple):
    """Labeled texts. `labels` are indices into `classes`."""

    texts: np.ndarray | tuple[np.ndarray, ...]
    labels: np.ndarray
    classes: tuple[str, ...]


def from_tsv(
    path: str | os.PathLike,
    *,
    columns: Sequence[str] = ("label", "text"),
    header: bool = False,
    classes: Sequence[str] | None = None,
) -> Texts:
    """Read labeled texts from a TSV file, with one example in each line.

    Columns are separated by tabs. Quotation marks are plain characters
    (`csv.QUOTE_NONE`), as in most text datasets. So a text cannot span several lines
    and keeps its quotation marks. The file is UTF-8, with or without a byte order mark,
    and has Unix or Windows line ends. No line is skipped. The first line that cannot be
    read raises an error with its line number.

    Labels become indices into the sorted class names. If all names are numbers, they
    are sorted by value, so labels 0, 1, ... do not change. For a test file, pass the
    `classes` of the training file. The test file can lack a class, but must not have
    an unknown class.

    Args:
        path: String or path of the file.
        columns: Names of the columns from left to right: "label" for the label, and
            another name for each text. Defaults to `("label", "text")`.
        header: Bool, whether the first line has column names and is skipped. Defaults
            to `False`.
        classes: Names of the classes in the order of their numbers. Defaults to `None`,
            the sorted names in the file.

    Returns:
        A named tuple `(texts, labels, classes)`. `texts` is an array of str with the
        dtype object, which Keras needs. For two or more text columns, it is a tuple of
        arrays, which preprocessors of keras-hub accept. `labels` are int64 of shape
        `(count,)`. `classes` is a tuple of str, without surrounding spaces.

    Example:
        ```python
        import pathlib
        import keras_transfer as kt

        pathlib.Path("train.tsv").write_text("good\\tA joy.\\nbad\\tToo long.\\n")
        texts, labels, classes = kt.data.from_tsv("train.tsv")
        assert texts.tolist() == ["A joy.", "Too long."]
        assert labels.tolist() == [1, 0] and classes == ("bad", "good")
        labeled, unlabeled = kt.data.few_labels((texts, labels), 1)
        ```

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If `columns` or `classes` is not valid, the file is empty, or a line
            has missing or additional columns, no label, an unknown label, a NUL
            character, or bytes that are not UTF-8. The message contains the file and
            the line number.

    Reference:
        Python, "csv: CSV File Reading and Writing", docs.python.org (`QUOTE_NONE`).
    """
    columns = _checked_columns(columns)
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"The file {str(path)!r} does not exist. The current folder is "
            f"{pathlib.Path.cwd()}."
        )
    rows = list(_rows(path, columns, header))
    if not rows:
        raise ValueError(f"{path} is empty. Pass a file with at least one example.")
    place = columns.index("label")
    names = [row.pop(place).strip() for row in rows]
    first = 2 if header else 1
    lines = {}  # the first line of each name
    for line, name in enumerate(names, start=first):
        lines.setdefault(name, line)
    if "" in lines:
        raise ValueError(
            f"{path}, line {lines['']}: the label is empty. Remove examples without a "
            "label."
        )
    if classes is None:
        classes = _sorted(lines, path)
    else:
        classes = unique_names("classes", classes, "the classes of the training file")
        for name, line in lines.items():
            if name not in classes:
                raise ValueError(
                    f"{path}, line {line}: the label {name!r} is not in `classes`, "
                    f"which has {len(classes)} names: {shown(classes)}. Correct the "
                    "label, or add it to `classes`."
                )
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for name in names], "int64")
    # With the dtype object, texts are not padded. Keras does not accept "<U".
    texts = tuple(np.array(column, object) for column in zip(*rows, strict=True))
    return Texts(texts[0] if len(texts) == 1 else texts, labels, classes)


def _rows(path: pathlib.Path, columns: list[str], header: bool) -> Iterator[list[str]]:
    """Check each line and yield its columns."""
    for line, text in enumerate(read_lines(path), start=1):
        where = f"{path}, line {line}"
        try:
            found = next(csv.reader([text], delimiter="\t", quoting=csv.QUOTE_NONE))
        except csv.Error as error:
            raise ValueError(
                f"{where}: {error}. Remove line breaks from texts. For longer texts, "
                "call csv.field_size_limit(characters) first."
            ) from error
        if len(found) != len(columns):
            what = f"has {len(found)} column(s)" if found else "is blank"
            raise ValueError(
                f"{where} {what}, but must have {len(columns)}, {columns}, separated "
                "by tabs. Fix the line, or pass the names of the file's columns from "
                "left to right as `columns`."
            )
        if line == 1 and found == columns and not header:
            raise ValueError(
                f"{where} contains column names, {found}. Pass header=True."
            )
        if line > 1 or not header:
            yield found


def read_lines(path: pathlib.Path) -> Iterator[str]:
    """Yield lines without line ends. Only "\\n" and "\\r\\n" end a line."""
    with path.open("rb") as file:
        for line, data in enumerate(file, start=1):
            try:
                text = data.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {line}: byte {error.start + 1} of the line, "
                    f"0x{data[error.start]:02x}, is not UTF-8. Save the file as UTF-8, "
                    "such as by `iconv -f latin1 -t utf-8`."
                ) from error
            if "\0" in text:
                raise ValueError(
                    f"{path}, line {line} has a NUL character, so the file is damaged, "
                    "not a text file, or UTF-16. Save the file as UTF-8."
                )
            yield text.removesuffix("\n").removesuffix("\r")


def _sorted(names: dict[str, int], path: pathlib.Path) -> tuple[str, ...]:
    if not all(NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names))
    by_value = {}
    for name, line in names.items():
        other = by_value.setdefault(float(name), name)
        if other != name:
            raise ValueError(
                f"{path}, line {line}: the label {name!r} is the same number as "
                f"{other!r} in line {names[other]}. Write both in the same way."
            )
    return tuple(by_value[value] for value in sorted(by_value))


def _checked_columns(columns: Sequence[str]) -> list[str]:
    names = [columns] if isinstance(columns, str) else list(columns)
    if names.count("label") != 1 or len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"columns={columns!r} must name each column of the file from left to "
            'right: "label" once, and one or more texts by other names, such as '
            '("label", "text") or ("text", "text_pair", "label").'
        )
    return names


def shown(names: Sequence[str]) -> str:
    """Return the first names for an error message, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
