"""The repository uses American spelling and plain words."""

import re

from tests.public import ROOT

FOLDERS = ("benchmarks", "examples", "keras_transfer", "tests")
KINDS = (".py", ".md", ".cfg", ".cff", ".ipynb")
# Files whose words are given: golden files, old names in a test, and this list.
LEFT_OUT = ("tests/golden/saved/", "tests/test_instead.py", "tests/test_words.py")
# Titles of papers and old public names.
GIVEN = re.compile(
    r"towards (?:accurate model|efficient multi|reliable model)|"
    r"(?:choose\s+)?amongst models and datasets|information_maximisation|"
    r"soft_neighbourhood_density|unlabelled="
)
# Words such as "noise", "raise" and "otherwise" are American too.
SAME = r"wis|rais|nois|cis|vis|pris|promis|premis|expertis|disguis|\baris|\bris|_ris"
NOT_SAME = "".join(rf"(?<!{end})" for end in SAME.split("|"))
NOT_THERE = r"(?<!there )(?<!there\n)(?<!there\n# )(?<!there\\n)"
# A pattern in lower case -> what to write instead.
WORDS = {
    rf"(?<=\w\w)is{NOT_SAME}(?:e|es|ed|ing)\b": "-ize, as in initialize",
    r"(?:isation|[aeiklmnrt]iser)s?\b(?<!riser)": "-iz-, as in tokenizer",
    r"(?:behavi|col|endeav|fav|flav|hon|lab|neighb|rum|vap)our": "-or, as in color",
    r"(?:cance|labe|leve|mode|signa|tota|trave)ll(?:ed|ing)": "one l, as in labeled",
    r"\b(?:burnt|dreamt|learnt|leant|spelt)\b": "-ed, as in learned",
    r"\banalys(?:ed?|ing)\b": "-yze, as in analyze",
    r"grey": "gray",
    r"\b(?:after|for|out|to|up)wards\b": "-ward, as in toward",
    r"\b(?:amongst|whilst)\b": "among, while",
    r"\b(?:cent|fib|lit|met)re\b": "-er, as in center",
    r"\b(?:artefact|catalogue|defence|fulfil|licence|maths)\b": "American spelling",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"reckon": "compute or count",
    r"\balike\b": "equally, both or the same",
    r"hinder": "prevent",
    r"\btold (?:apart|from)\b": "distinguished from",
    r"\bas ever\b": "as usual",
    r"\b(?:here|there|where)?upon\b": "on or then",
    r"\b(?:thereof|whence|whereof)\b": "of it or from which",
    r"\banew\b": "again",
    r"\bbeside\s(?!=)": "next to or in addition to",
    rf"{NOT_THERE}\b(?:is|are|was|were) no (?!better|longer|more)\w+": "is not a",
}
PATTERNS = {re.compile(word): use for word, use in WORDS.items()}


def found(text):
    """Yield the line number, the word and its replacement for each word of the list."""
    text = GIVEN.sub("", re.sub(r"\n +", "\n", text.lower()))
    for pattern, use in PATTERNS.items():
        for match in pattern.finditer(text):
            start = re.search(r"\w*$", text[: match.start()][-30:])[0]
            line = text.count("\n", 0, match.start()) + 1
            yield line, start + match[0].strip(), use


def test_words_of_the_list_are_not_used():
    paths = [path for name in FOLDERS for path in (ROOT / name).rglob("*")]
    faults = []
    for path in sorted([*paths, *ROOT.iterdir()]):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in KINDS and not name.startswith(LEFT_OUT):
            for line, word, use in found(path.read_text(encoding="utf-8")):
                faults.append(f"{name}:{line}: {word!r}; write {use}")
    assert not faults, "\n".join(faults)


def test_words_are_found():
    text = "Initialise\nthe colours\nof a labelled array. It is no array.\nMend it."
    assert [(line, word) for line, word, _ in found(text)] == [
        (1, "initialise"),
        (2, "colour"),
        (3, "labelled"),
        (4, "mend"),
        (3, "is no array"),
    ]
    plain = "Otherwise noise rises. It was raised: there\n    is no precise advice."
    assert list(found(plain)) == []
