"""Read files of word vectors: word2vec (text and binary), GloVe and fastText's .vec.

gensim reads these files too, but its errors have no line number, it keeps NaN, and a
word that is there twice leaves a row without a word (4.4). These parsers are short.
"""

from __future__ import annotations

import codecs
import gzip
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from typing import IO
from typing import NoReturn

import numpy as np

GZIP, ZIP, NUMPY = b"\x1f\x8b", b"PK\x03\x04", b"\x93NUMPY"
FASTTEXT_BIN = (793712314).to_bytes(4, "little")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # in vectors of bytes, but not in text
CHUNK = 2**20
LONGEST = 10_000  # bytes of a word
Row = tuple[str, str, np.ndarray]  # the place, for errors, a word, and its vector


def read_rows(path: str | os.PathLike) -> Iterator[Row]:
    """Yield the place in the file, the word and the vector of each row.

    Args:
        path: The path of the file. A file that gzip has compressed is read too.

    Raises:
        ValueError: If the file is empty, of another format, or has a row that cannot
            be read. The message has the line number, or the number of the word.
    """
    with open(path, "rb") as plain:
        opened = gzip.open if plain.read(2) == GZIP else open
    place = "its start"
    try:
        with opened(path, "rb") as file:
            for row in _rows(path, file):
                place = row[0]
                yield row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be decompressed after {place}: {error}. Download it again."
        ) from error


def _rows(path: str | os.PathLike, file: IO) -> Iterator[Row]:
    _check_start(path, _peek(file, 6))
    first = file.readline().removeprefix(codecs.BOM_UTF8)
    header = _header(first)
    if header and CONTROL.search(_peek(file, 1000)):
        yield from _binary_rows(path, file, *header)
    elif CONTROL.search(first[:1000]):
        raise ValueError(
            f"{path} is neither a text file nor word2vec's binary format. Load it with "
            "the package that wrote it, for example gensim.models.KeyedVectors.load, "
            "and pass (vectors.index_to_key, vectors.vectors)."
        )
    else:
        lines = file if header else itertools.chain([first], file)
        yield from _text_rows(path, lines, header)


def _check_start(path: str | os.PathLike, start: bytes) -> None:
    if not start:
        raise ValueError(f"{path} is empty. Download the file again.")
    if start[:4] == FASTTEXT_BIN:
        raise ValueError(
            f"{path} is a model of fastText (.bin), which has subwords and no table of "
            "words. Pass the .vec file of the same model. Or load the model with "
            "gensim.models.fasttext.load_facebook_vectors(path), and pass "
            "(vectors.index_to_key, vectors.vectors)."
        )
    if start[:4] == ZIP or start == NUMPY:
        raise ValueError(
            f"{path} is a zip file or a file of NumPy. Unzip a zip file, and pass one "
            "file in it. Load a file of NumPy, and pass (words, vectors)."
        )


def _header(line: bytes) -> tuple[int, int] | None:
    """Return the count and the width from the first line of word2vec and fastText."""
    fields = line.split()
    if len(fields) == 2 and all(each.isdigit() for each in fields):
        return int(fields[0]), int(fields[1])
    return None


def _peek(file: IO, size: int) -> bytes:
    place = file.tell()
    start = file.read(size)
    file.seek(place)
    return start


def _text_rows(
    path: str | os.PathLike, lines: Iterator[bytes], header: tuple[int, int] | None
) -> Iterator[Row]:
    count, width = header or (None, None)
    origin = "the header"
    rows, blank = 0, None
    for number, line in enumerate(lines, 2 if header else 1):
        place = f"line {number}"
        # Only spaces and tabs separate: a word can contain other white space.
        fields = line.replace(b"\t", b" ").rstrip(b" \r\n").split(b" ")
        if fields == [b""]:
            blank = blank or place
            continue
        if blank:
            _fail(path, blank, "is empty. Remove it")
        if width is None:
            width, origin = len(fields) - 1, "line 1"
            if not width:
                _fail(path, place, "has no numbers. Pass a file of word vectors")
        word, numbers = fields[:-width], fields[-width:]
        more = len(fields) - 1 - width
        # Some words of GloVe contain spaces, such as ". . .", but no numbers.
        if width < 1 or more < 0 or any(_is_number(each) for each in word[1:]):
            _fail(
                path,
                place,
                f"has {len(fields) - 1} numbers after the word, but {origin} has "
                f"{width}. The line is cut off or is not a line of vectors",
            )
        yield (
            place,
            _decoded(path, place, b" ".join(word)),
            _parsed(path, place, numbers),
        )
        rows += 1
    if count is not None and rows != count:
        raise ValueError(
            f"The header of {path} says {count} words, but the file has {rows}. It is "
            "cut off or was changed. Download it again, correct the first line, or "
            f"pass max_words={min(rows, count)} or less, which does not read the end."
        )
    if not rows:
        raise ValueError(f"{path} has no vectors. Download the file again.")


def _parsed(path: str | os.PathLike, place: str, numbers: list[bytes]) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # the caller refuses infinite numbers
            return np.array(numbers, dtype="float32")
    except ValueError:
        wrong = next(i for i, each in enumerate(numbers) if not _is_number(each))
        shown = numbers[wrong].decode("utf-8", "replace")
        _fail(path, place, f"has {shown!r} as number {wrong + 1} of its vector")


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _decoded(path: str | os.PathLike, place: str, word: bytes) -> str:
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        _fail(
            path,
            place,
            f"has the word {word!r}, which is not UTF-8. Convert the file, for example "
            "with `iconv -f latin1 -t utf-8`",
        )


def _binary_rows(
    path: str | os.PathLike, file: IO, count: int, width: int
) -> Iterator[Row]:
    size = 4 * width
    buffer, start = b"", 0
    for number in range(1, count + 1):
        place = f"word {number}"
        while (end := buffer.find(b" ", start)) < 0 or len(buffer) <= end + size:
            new = file.read(CHUNK)
            if not new or (end < 0 and len(buffer) - start > LONGEST):
                raise ValueError(
                    f"{path} ends or is damaged in {place}, but its header says "
                    f"{count} words with {width} numbers. Download it again, or pass "
                    f"max_words={max(1, number - 1)} or less."
                )
            buffer, start = buffer[start:] + new, 0
        # The C program of word2vec ends each vector with a line break, gensim does not.
        word = buffer[start:end].lstrip(b"\n")
        start = end + 1 + size
        vector = np.frombuffer(buffer, "<f4", width, end + 1).astype("float32")
        yield place, _decoded(path, place, word), vector
    if (buffer[start:] + file.read(CHUNK)).strip():
        raise ValueError(
            f"{path} goes on after the {count} words of its header. The header does "
            f"not belong to this file. Download it again, or pass max_words={count}."
        )


def _fail(path: str | os.PathLike, place: str, what: str) -> NoReturn:
    raise ValueError(f"{path}, {place} {what}.")
