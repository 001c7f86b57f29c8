"""Regular expressions from a stranger's file, matched in bounded time."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterable
from collections.abc import Sequence
from re import _compiler
from re import _constants as codes
from re import _parser

from keras_transfer.saving.strict_json import short

# Steps for all expressions of a file together; an honest file takes some thousands.
MOST_STEPS = 2_000_000
# What `re` itself matches fast: there is nothing in it to go back to.
PLAIN = re.compile(r"(?:[\w\-/]|\\?\.|\\-)*")
REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)
LOOKS = (codes.ASSERT, codes.ASSERT_NOT)
LEAVES = (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN, codes.AT)


class Expressions:
    """Tells whether names match, as `re.fullmatch` does, in steps that are counted.

    `re` tries one way after another, and can take longer than anybody waits: for
    `(a+)+b` the ways double with each letter. Here all ways are gone at once: the
    places that can be reached in the name are the bits of one number, and each part of
    the expression makes the places behind it of those before it. The parts are those
    that Python's own parser finds.

    Args:
        steps: How many parts may be passed, repeats counted, in all matches.
    """

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self.left = steps

    def fullmatch(self, expression: str, name: str) -> bool:
        """Return whether the whole of `name` matches.

        Raises:
            ValueError: If the steps have been used up, or it is not an expression that
                can be matched here.
        """
        try:
            places = self._sequence(parsed(expression), name, 1)
        except RecursionError as problem:
            raise ValueError(f"{short(expression)} is nested too deep.") from problem
        return bool(places >> len(name) & 1)

    def ends(self, expression: str, name: str) -> bool:
        """Return whether a whole part of `name` between dots up to its end matches.

        It is PEFT's rule for the keys of `rank_pattern` and `alpha_pattern`.
        """
        whole = rf"(.*\.)?({expression})"
        if PLAIN.fullmatch(expression):
            self._count()
            return re.fullmatch(whole, name) is not None
        parsed(expression)  # it must be one by itself
        return self.fullmatch(whole, name)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError(
                "The expressions of the file take too long to match. Give the names "
                "of modules in place of expressions."
            )

    def _sequence(self, parts: Sequence, name: str, places: int) -> int:
        for operation, value in parts:
            if not places:
                return 0
            places = self._behind(operation, value, name, places)
        return places

    def _behind(self, operation: object, value: object, name: str, places: int) -> int:
        """Return the places behind one part of the expression."""
        self._count()
        if operation in LEAVES:
            found = (value.match(name, at) for at in _bits(places))
            return _places(match.end() for match in found if match)
        if operation is codes.BRANCH:
            ends = 0
            for each in value:
                ends |= self._sequence(each, name, places)
            return ends
        if operation in REPEATS:
            return self._repeated(*value, name, places)
        seen = _places(at for at in _bits(places) if self._seen(*value, name, at))
        return seen if operation is codes.ASSERT else places & ~seen

    def _repeated(
        self, least: int, most: int, parts: Sequence, name: str, places: int
    ) -> int:
        for _ in range(least):
            before, places = places, self._sequence(parts, name, places)
            if places in (0, before):
                break  # nor would another time lead anywhere else
        new, total = places, places
        while new and most > least:
            new = self._sequence(parts, name, new) & ~total
            total |= new
            most -= 1
        return total

    def _seen(self, width: int | None, parts: Sequence, name: str, at: int) -> bool:
        if width is None:
            return bool(self._sequence(parts, name, 1 << at))
        start = at - width
        return start >= 0 and bool(self._sequence(parts, name, 1 << start) >> at & 1)


@functools.lru_cache(maxsize=1024)
def parsed(expression: str) -> Sequence:
    """Return the parts of an expression, in the order that they match.

    Raises:
        ValueError: If it is none, or has something that cannot be matched here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what later versions may read otherwise
            pattern = _parser.parse(expression)
            return _converted(pattern, pattern.state)
    except (re.error, RecursionError, OverflowError) as problem:
        raise ValueError(
            f"{short(expression)} cannot be matched as a regular expression: {problem}."
        ) from problem


def _converted(pattern: _parser.SubPattern, state: _parser.State) -> Sequence:
    """Return the parts as pairs of an operation and what it needs to be matched."""
    parts = []
    for operation, value in pattern:
        if operation in LEAVES:
            one = _parser.SubPattern(state, [(operation, value)])
            parts.append((operation, _compiler.compile(one)))
        elif operation is codes.BRANCH:
            parts.append((operation, [_converted(x, state) for x in value[1]]))
        elif operation in REPEATS:
            least, most, inner = value
            parts.append((operation, (least, most, _converted(inner, state))))
        elif operation in LOOKS:
            direction, inner = value
            least, most = inner.getwidth()
            if direction < 0 and least != most:
                raise re.error("look-behind requires fixed-width pattern")
            width = least if direction < 0 else None
            parts.append((operation, (width, _converted(inner, state))))
        elif operation is codes.SUBPATTERN and not (value[1] or value[2]):
            parts += _converted(value[3], state)
        else:
            flags = operation is codes.SUBPATTERN
            what = "a group with flags of its own" if flags else str(operation).lower()
            raise re.error(f"{what} is not supported in a PEFT folder")
    return parts


def _bits(places: int) -> list[int]:
    return [at for at in range(places.bit_length()) if places >> at & 1]


def _places(positions: Iterable[int]) -> int:
    return functools.reduce(lambda all, at: all | 1 << at, positions, 0)
