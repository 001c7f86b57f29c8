"""from_conll, which reads sentences whose words have tags."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from keras_transfer._arguments import unique_names
from keras_transfer.data.tsv import read_lines
from keras_transfer.data.tsv import shown

DOCUMENT = "-DOCSTART-"  # begins a document in the files of CoNLL-2003


class TaggedSentences(NamedTuple):
    """Words and tags of each sentence, and the names of all tags."""

    sentences: list[list[str]]
    tags: list[list[str]]
    names: tuple[str, ...]


def from_conll(
    path: str | os.PathLike,
    *,
    separator: str | None = "\t",
    names: Sequence[str] | None = None,
) -> TaggedSentences:
    """Read sentences from a file with one word and its tag in each line.

    The first column is the word, and the last one is the tag. An empty line ends a
    sentence. Lines of CoNLL-2003 that begin a document, `-DOCSTART-`, are left out. The
    file is UTF-8, with Unix or Windows line ends. The first line that cannot be read
    raises an error with its line number.

    Args:
        path: String or path of the file.
        separator: String between columns, or None for spaces and tabs of any number.
            Defaults to a tab.
        names: Names of the tags in the order of their numbers, such as the `names` of
            the training file. Another tag is an error. Defaults to None, the tags of
            the file: `"O"` first, and the others sorted.

    Returns:
        A named tuple `(sentences, tags, names)`. `sentences` and `tags` are lists of
        lists of strings of equal lengths. `names` is a tuple of strings.

    Example:
        ```python
        import pathlib
        import keras_transfer as kt

        pathlib.Path("train.tsv").write_text("Ada\\tB-PER\\nsings\\tO\\n\\nHi\\tO\\n")
        sentences, tags, names = kt.data.from_conll("train.tsv")
        assert sentences == [["Ada", "sings"], ["Hi"]]
        assert tags == [["B-PER", "O"], ["O"]] and names == ("O", "B-PER")
        ```

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has no sentence, or a line has only one column, an empty
            word or tag, an unknown tag, or bytes that are not UTF-8. The message
            contains the file and the line number.

    Reference:
        Tjong Kim Sang and De Meulder, 2003, "Introduction to the CoNLL-2003 Shared
        Task: Language-Independent Named Entity Recognition", cs/0306050.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"The file {str(path)!r} does not exist. The current folder is "
            f"{pathlib.Path.cwd()}."
        )
    known = None if names is None else unique_names("names", names)
    sentences: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for row in _rows(path, separator, known):
        if row is None:
            sentences.append([])
            tags.append([])
        else:
            sentences[-1].append(row[0])
            tags[-1].append(row[1])
    sentences, tags = ([each for each in rows if each] for rows in (sentences, tags))
    if not sentences:
        raise ValueError(f"{path} has no sentence. Pass a file with words and tags.")
    if known is None:
        found = {tag for each in tags for tag in each}
        known = (*(found & {"O"}), *sorted(found - {"O"}))
    return TaggedSentences(sentences, tags, tuple(known))


def _rows(
    path: pathlib.Path, separator: str | None, known: Sequence[str] | None
) -> Iterator[tuple[str, str] | None]:
    """Yield the word and the tag of each line, and None for an empty line."""
    for line, text in enumerate(read_lines(path), start=1):
        columns = text.split(separator)
        if not text.strip():
            yield None
            continue
        where = f"{path}, line {line}"
        if columns[0] == DOCUMENT:
            yield None
            continue
        if len(columns) < 2:
            between = "spaces" if separator is None else repr(separator)
            raise ValueError(
                f"{where} has one column, {shown([text])}, but must have a word and "
                f"its tag, separated by {between}. Fix the line, or pass the "
                "`separator` of the file."
            )
        word, tag = columns[0].strip(), columns[-1].strip()
        if not word or not tag:
            missing = "tag" if word else "word"
            raise ValueError(f"{where}: the {missing} is empty. Fix the line.")
        if known is not None and tag not in known:
            raise ValueError(
                f"{where}: the tag {tag!r} is not in `names`, which has {len(known)} "
                f"names: {shown(known)}. Correct the tag, or add it to `names`."
            )
        yield word, tag
