"""Untrusted expressions match as in `re`, in a limited number of steps."""

import random
import re

import pytest

from keras_transfer.saving.peft import expressions
from keras_transfer.saving.peft.expressions import Expressions

NAME = "bert.encoder.layer.0.attention.self.query"
LEAVES = ("a", "b", ".", "[ab]", "[^a]", r"\.", r"\d", r"\w", "0", "^", "$", r"\b")
REPEATS = ("*", "+", "?", "{2}", "{1,3}", "*?", "+?")


def made_up(rng, depth):
    """Return a random expression with all kinds of parts."""
    kind = rng.random()
    if depth == 0 or kind < 0.3:
        return rng.choice(LEAVES)
    one, two = made_up(rng, depth - 1), made_up(rng, depth - 1)
    if kind < 0.6:
        return one + two
    if kind < 0.7:
        return f"(?:{one}|{two})"
    if kind < 0.85:
        return f"({one}){rng.choice(REPEATS)}"
    return rng.choice((f"(?={one})", f"(?!{one})", "(?<=a)", "(?<!b)")) + two


def test_expressions_match_as_re_does():
    rng, found = random.Random(0), 0
    for _ in range(2000):
        text = made_up(rng, 4)
        for name in ("", "ab", "aab.b0", "a.b.a", "0a.b"):
            wanted = re.fullmatch(text, name) is not None
            assert Expressions().fullmatch(text, name) == wanted, (text, name)
            found += wanted
    assert found > 100


@pytest.mark.parametrize(
    "text",
    [
        "([a-z0-9.]+)+!",
        "(.*)*" * 10 + "!",
        "((((.*)*)*)*)*!",
        "(a|[a-z]|.)*!",
        "((.?){1,60000}){1,60000}!",
        "(?=(.*)*!)" * 20,
    ],
)
def test_expressions_that_are_slow_in_re_take_few_steps(text):
    matcher = Expressions()
    assert not matcher.fullmatch(text, 2 * NAME)
    assert expressions.MOST_STEPS - matcher.left < 3000


def test_all_expressions_of_a_file_share_the_steps():
    matcher = Expressions(steps=99)
    with pytest.raises(ValueError, match="take too long"):
        for _ in range(100):
            matcher.ends("query", NAME)
    with pytest.raises(ValueError, match="take too long"):
        Expressions(steps=30).fullmatch("(.*)*" * 10 + "!", NAME)


def test_the_end_of_a_name_begins_at_a_dot():
    for text in ("query", "self.query", r"self\.query", NAME, "(key|query)", ".*query"):
        assert Expressions().ends(text, NAME), text
        assert re.match(rf"(.*\.)?({text})$", NAME)
    for text in ("uery", "self", "elf.query", "(key|value)"):
        assert not Expressions().ends(text, NAME), text


@pytest.mark.parametrize(
    "text",
    [
        "(",
        "*",
        "[",
        r"(a)\1",
        "(?>a)",
        "(?i:a)",
        "a{99999999999}",
        "(" * 5000,
        "(?<=a|bc)d",
    ],
)
def test_unsupported_expressions_are_refused(text):
    with pytest.raises(ValueError, match="cannot be matched as a regular"):
        Expressions().ends(text, NAME)


def test_flags_of_a_group_are_named_in_the_error():
    with pytest.raises(ValueError, match="its own flags is not supported"):
        Expressions().ends("(?i:a)", NAME)


def test_an_expression_that_is_nested_too_deeply_is_refused():
    depth = 250  # Python's parser usually accepts this depth
    with pytest.raises(ValueError, match="too deep|recursion"):
        Expressions().fullmatch(
            "(?=" * depth + "b" + ")" * depth + "b" * 600, "b" * 600
        )
