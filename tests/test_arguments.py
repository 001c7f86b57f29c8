"""Checks of arguments: accepted values, and the text of the errors."""

import math

import numpy as np
import pytest

from keras_transfer._arguments import different_names
from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import fraction
from keras_transfer._arguments import is_number
from keras_transfer._arguments import number
from keras_transfer._arguments import one_of
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number

NO_NUMBERS = ["1", None, True, False, [1], 1j, np.array([1]), np.bool_(True)]


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_is_returned_as_an_int(value):
    result = whole_number("steps", value)
    assert result == 3 and type(result) is int


@pytest.mark.parametrize("value", [*NO_NUMBERS, 2.0, 2.5, 0, -1, math.nan, math.inf])
def test_values_that_are_not_whole_numbers_raise(value):
    with pytest.raises(ValueError, match="^steps=.* must be a whole number above 0"):
        whole_number("steps", value)


@pytest.mark.parametrize(
    "settings, good, bad, text",
    [
        (dict(least=0), 0, -1, "a whole number of 0 or more."),
        (dict(least=None), -7, "x", "a whole number."),
        (dict(least=0, most=9), 9, 10, "a whole number from 0 to 9."),
        (dict(least=None, most=9), -1, 10, "a whole number of 9 or less."),
        (dict(floats=True), 100.0, 2.5, "a whole number above 0."),
        (dict(floats=True), np.float32(3), math.nan, "a whole number above 0."),
        (dict(floats=True), 1, math.inf, "a whole number above 0."),
        (dict(floats=True), 1, True, "a whole number above 0."),
        (dict(why="0 trains nothing"), 1, 0, "above 0: 0 trains nothing."),
    ],
)
def test_the_range_of_a_whole_number(settings, good, bad, text):
    result = whole_number("size", good, **settings)
    assert result == good and type(result) is int
    with pytest.raises(ValueError) as error:
        whole_number("size", bad, **settings)
    assert str(error.value).startswith(f"size={bad!r} must be ")
    assert str(error.value).endswith(text)


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), np.array(3.0)])
def test_a_number_is_returned_as_a_float(value):
    result = number("rate", value)
    assert result == 3 and type(result) is float


@pytest.mark.parametrize("value", [*NO_NUMBERS, math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_numbers_raise(value):
    with pytest.raises(ValueError, match="^rate=.* must be a finite number"):
        number("rate", value)


@pytest.mark.parametrize(
    "settings, good, bad, text",
    [
        (dict(least=1), 1, 0.5, "a finite number of 1 or more."),
        (dict(above=0), 0.1, 0, "a finite number above 0."),
        (dict(least=0, below=1), 0, 1, "a finite number of 0 or more and below 1."),
        (dict(above=0, most=1), 1, 0, "a finite number above 0 and of 1 or less."),
        (dict(least=0, most=1), 0, 1.1, "a finite number from 0 to 1."),
        (dict(why="it divides"), 1, "x", "a finite number: it divides."),
    ],
)
def test_the_range_of_a_number(settings, good, bad, text):
    assert number("rate", good, **settings) == good
    with pytest.raises(ValueError) as error:
        number("rate", bad, **settings)
    assert str(error.value) == f"rate={bad!r} must be {text}"


@pytest.mark.parametrize("check", [whole_number, number])
def test_only_a_value_that_is_not_a_number_can_be_a_type_error(check):
    with pytest.raises(TypeError, match="version='1' must be"):
        check("version", "1", 0, kind=TypeError)
    with pytest.raises(ValueError, match="version=-1 must be"):
        check("version", -1, 0, kind=TypeError)


@pytest.mark.parametrize(
    "check, good, bad, text",
    [
        (positive, 1e-9, 0, "scale=0 must be a finite number above 0."),
        (fraction, 1, 1.5, "scale=1.5 must be a finite number from 0 to 1."),
        (
            dropout_rate,
            0,
            1,
            "scale=1 must be a finite number of 0 or more and below 1",
        ),
    ],
)
def test_the_named_ranges(check, good, bad, text):
    assert check("scale", good) == good
    with pytest.raises(ValueError) as error:
        check("scale", bad)
    assert str(error.value).startswith(text)


def test_a_name_can_be_a_description():
    with pytest.raises(ValueError) as error:
        positive("The rate of 'head'", 0, "x")
    expected = "The rate of 'head' is 0, but must be a finite number above 0: x."
    assert str(error.value) == expected


def test_one_of_several():
    assert one_of("mode", "min", ("min", "max")) == "min"
    assert one_of("mode", None, ["min", None]) is None
    with pytest.raises(ValueError) as error:
        one_of("mode", "mean", {"min": 0, "max": 1}, why="it compares two values")
    expected = "mode='mean' must be one of ['min', 'max']: it compares two values."
    assert str(error.value) == expected


@pytest.mark.parametrize("value", [1, 1.5, math.nan, np.float16(1), np.int8(1)])
def test_numbers_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_other_values_are_not_numbers(value):
    assert not is_number(value)


def test_different_names_come_from_a_name_or_a_sequence():
    assert different_names("rows", "a", "abc") == ("a",)
    assert different_names("rows", ["c", "a"], "abc") == ("c", "a")


@pytest.mark.parametrize("value", [(), ["a", "d"], ["a", "a"], None, 5, [1], "d"])
def test_other_names_raise(value):
    with pytest.raises(ValueError, match="^rows=.* must be different names of .*'c'"):
        different_names("rows", value, ["a", "b", "c"])
