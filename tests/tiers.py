"""Mark the slow tests: processes, replicas, real weights, and tests known as slow.

The file slow_tests.txt names single tests and cases that took 1.5 seconds or more on a
slow processor, although nothing in them shows it. Add such a test, and remove a name
when its test is faster or gone.
"""

import inspect
import pathlib
import types

import pytest

# Modules that start a process, and fixtures for real weights and several replicas.
PROCESSES = {
    "multiprocessing",
    "subprocess",
    "tests.contracts.fresh",
    "tests.export.plain_tensorflow",
    "tests.forked",
    "tests.serving.exported",
}
WEIGHTS, REPLICAS = {"minilm_folder", "whisper_folder"}, {"strategy"}
NAMES = pathlib.Path(__file__).with_name("slow_tests.txt")
KNOWN = NAMES.read_text(encoding="utf-8").splitlines()


def mark(item):
    """Mark a test as slow by the modules and fixtures it uses, or by its contract.

    A contract test that is marked as costly, or that uses several replicas, is slow,
    except for components whose test class sets `representative`.
    """
    fixtures = set(item.fixturenames)
    costly = item.get_closest_marker("costly") or REPLICAS & fixtures
    shown = getattr(item.cls, "representative", False)
    known = item.nodeid in KNOWN or WEIGHTS & fixtures
    if known or (costly and not shown) or reaches(item.function):
        item.add_marker(pytest.mark.slow)


def reaches(function, seen=None):
    """Return whether a function starts a process, directly or with module helpers.

    Fixtures and methods are not followed. Mark a test by hand if they start a process.
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
    """Return the names in a function and in the functions that it defines."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= named(constant)
    return names
