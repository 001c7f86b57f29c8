"""Match regular expressions from untrusted files in bounded time."""

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

# Limit for all expressions of a file together. A usual file takes some thousands.
MOST_STEPS = 2_000_000
# Expressions that `re` itself matches fast, because they need no backtracking.
PLAIN = re.compile(r"(?:[\w\-/]|\\?\.|\\-)*")
REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)
LOOKS = (codes.ASSERT, codes.ASSERT_NOT)
LEAVES = (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN, codes.AT)


class Expressions:
    """Matches names as `re.fullmatch` does, in a limited number of steps.

    `re` tries one way to match after another, which can take exponential time. For
    `(a+)+b` the number of ways doubles with each letter. This class follows all ways
    at once. The bits of one number are the positions in the name that can be reached,
    and each part of the expression maps the positions before it to the positions after
    it. Python's own parser splits the expression into parts.

    Args:
        steps: Largest number of parts to match in all calls together, where repeated
            parts count each time. Defaults to 2,000,000.
    """

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self.left = steps

    def fullmatch(self, expression: str, name: str) -> bool:
        """Return whether the whole of `name` matches.

        Raises:
            ValueError: If all steps are used up, or the expression is invalid or not
                supported.
        """
        try:
            places = self._sequence(parsed(expression), name, 1)
        except RecursionError as problem:
            raise ValueError(f"{short(expression)} is nested too deeply.") from problem
        return bool(places >> len(name) & 1)

    def ends(self, expression: str, name: str) -> bool:
        """Return whether all of `name`, or the part after one of its dots, matches.

        PEFT matches the keys of `rank_pattern` and `alpha_pattern` in this way.
        """
        whole = rf"(.*\.)?({expression})"
        if PLAIN.fullmatch(expression):
            self._count()
            return re.fullmatch(whole, name) is not None
        parsed(expression)  # raises if the expression alone is invalid
        return self.fullmatch(whole, name)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError(
                "The regular expressions of the file take too long to match. Use names "
                "of modules instead."
            )

    def _sequence(self, parts: Sequence, name: str, places: int) -> int:
        for operation, value in parts:
            if not places:
                return 0
            places = self._behind(operation, value, name, places)
        return places

    def _behind(self, operation: object, value: object, name: str, places: int) -> int:
        """Return the positions after one part of the expression."""
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
                break  # another repeat cannot reach other positions
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
    """Return the parts of an expression, in the order in which they match.

    Raises:
        ValueError: If the expression is invalid or not supported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # syntax that Python may change later
            pattern = _parser.parse(expression)
            return _converted(pattern, pattern.state)
    except (re.error, RecursionError, OverflowError) as problem:
        raise ValueError(
            f"{short(expression)} cannot be matched as a regular expression: {problem}."
        ) from problem


def _converted(pattern: _parser.SubPattern, state: _parser.State) -> Sequence:
    """Return the parts as pairs of an operation and its arguments."""
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
            what = "a group with its own flags" if flags else str(operation).lower()
            raise re.error(f"{what} is not supported in a PEFT folder")
    return parts


def _bits(places: int) -> list[int]:
    return [at for at in range(places.bit_length()) if places >> at & 1]


def _places(positions: Iterable[int]) -> int:
    return functools.reduce(lambda all, at: all | 1 << at, positions, 0)
