"""from_tsv: labeled texts out of a file of tab-separated values."""

import csv
import os
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
SHOWN = 10  # class names that an error message names


class Texts(NamedTuple):
    """Labeled texts: `labels` are places in `classes`."""

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
    """Read labeled texts from a TSV file: one example a line, a tab between columns.

    Quotation marks are plain characters, as most data sets of texts have it
    (`csv.QUOTE_NONE`), so that no text runs over a line or loses its marks. The file
    is UTF-8, with or without a byte order mark; lines end as on Unix or Windows.
    Nothing is skipped: the first line that does not fit is an error with its number.

    Labels become places in the sorted names of the classes; names that are all
    numbers are sorted as such, so labels 0, 1, ... stay what they are. Give a test
    file the `classes` of its training file: it may lack a class, and must have no
    other.

    Args:
        path: The file.
        columns: What the file has from left to right: "label" in the place of the
            label, and another name for each text. Defaults to `("label", "text")`.
        header: Whether the first line holds names, which are left out. Defaults to
            `False`.
        classes: Names of the classes in the order of their numbers. Defaults to
            `None`: those of the file, sorted.

    Returns:
        A named tuple `(texts, labels, classes)`. `texts` is an array of str (of dtype
        object, as Keras takes it), or, of two columns and more, a tuple of arrays, as
        preprocessors of keras-hub take a pair. `labels` are int64 of shape
        `(count,)`. `classes` is a tuple of str, without spaces around them.

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
        FileNotFoundError: If there is no such file.
        ValueError: If `columns` or `classes` cannot be used, the file is empty, or
            a line has missing or additional columns, no label, an unknown label, NUL
            or what is not UTF-8. The message names the file and the line.

    Reference:
        Python, "csv: CSV File Reading and Writing", docs.python.org (`QUOTE_NONE`).
    """
    columns = _checked_columns(columns)
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {str(path)!r}, looked for in {pathlib.Path.cwd()}."
        )
    rows = list(_rows(path, columns, header))
    if not rows:
        raise ValueError(f"{path} is empty: it has no line with an example.")
    place = columns.index("label")
    names = [row.pop(place).strip() for row in rows]
    first = 2 if header else 1
    lines = {}  # the first line of each name
    for line, name in enumerate(names, start=first):
        lines.setdefault(name, line)
    if "" in lines:
        raise ValueError(
            f"{path}, line {lines['']}: the label is empty. Each example needs one; "
            "take out those that have none."
        )
    if classes is None:
        classes = _sorted(lines, path)
    else:
        classes = _checked_classes(classes)
        for name, line in lines.items():
            if name not in classes:
                raise ValueError(
                    f"{path}, line {line}: the label {name!r} is none of the "
                    f"{len(classes)} classes given: {_shown(classes)}."
                )
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for name in names], "int64")
    # Of dtype object: each text takes its own length, and Keras refuses "<U".
    texts = tuple(np.array(column, object) for column in zip(*rows, strict=True))
    return Texts(texts[0] if len(texts) == 1 else texts, labels, classes)


def _rows(path: pathlib.Path, columns: list[str], header: bool) -> Iterator[list[str]]:
    """Yield the columns of each line, checked."""
    for line, text in enumerate(_lines(path), start=1):
        where = f"{path}, line {line}"
        try:
            found = next(csv.reader([text], delimiter="\t", quoting=csv.QUOTE_NONE))
        except csv.Error as error:
            raise ValueError(
                f"{where}: {error}. A text must have no line break in it; for longer "
                "texts call csv.field_size_limit(characters) first."
            ) from error
        if len(found) != len(columns):
            what = f"has {len(found)} column(s)" if found else "is blank"
            raise ValueError(
                f"{where} {what}, but there must be {len(columns)}, {columns}, with a "
                "tab between them. Mend the line, or name the columns of the file "
                "from left to right in `columns`."
            )
        if line == 1 and found == columns and not header:
            raise ValueError(
                f"{where} holds names, {found}, and no example. Pass header=True."
            )
        if line > 1 or not header:
            yield found


def _lines(path: pathlib.Path) -> Iterator[str]:
    """Yield the lines without their ends; only "\\n" and "\\r\\n" end a line."""
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
                    f"{path}, line {line} has a NUL character. The file is damaged, no "
                    "text, or UTF-16: save it as UTF-8."
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
                f"{other!r} in line {names[other]}. Write it in one way."
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


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(classes, str) else tuple(classes)
    wrong = [name for name in names if not isinstance(name, str)]
    if not names or wrong or len(set(names)) < len(names):
        raise ValueError(
            f"classes={classes!r} must be the names of the classes, each a str and "
            "given once: such as the `classes` of the training file."
        )
    return names


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
