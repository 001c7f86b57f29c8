"""Which tests are slow: processes, replicas, real weights, and what is marked so."""

import inspect
import types

import pytest

# Modules that start a process, and fixtures of real weights and of several replicas.
PROCESSES = {
    "multiprocessing",
    "subprocess",
    "tests.contracts.fresh",
    "tests.export.plain_tensorflow",
    "tests.serving.exported",
}
WEIGHTS, REPLICAS = {"minilm_folder"}, {"strategy"}


def mark(item):
    """Mark a test as slow by what it reaches for, or as its contract says.

    A promise that a contract marks as dear, or that takes several replicas, is fast for
    the components whose test class sets `representative`, and slow for all others.
    """
    fixtures = set(item.fixturenames)
    dear = item.get_closest_marker("dear") or REPLICAS & fixtures
    shown = getattr(item.cls, "representative", False)
    if (dear and not shown) or reaches(item.function) or WEIGHTS & fixtures:
        item.add_marker(pytest.mark.slow)


def reaches(function, seen=None):
    """Return whether a function names what starts a process, by helpers of its module.

    Fixtures and methods are not followed: a test that starts one by them is marked by
    hand.
    """
    seen = set() if seen is None else seen
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if function in seen or not inspect.isfunction(function):
        return False
    seen.add(function)
    for name in named(function.__code__):
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType) and value.__name__ in PROCESSES:
            return True
        home = getattr(value, "__module__", None)
        if home in PROCESSES:
            return True
        own = home == function.__module__
        if inspect.isfunction(value) and own and reaches(value, seen):
            return True
    return False


def named(code):
    """Return the names in a function and in those that are defined in it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= named(constant)
    return found
