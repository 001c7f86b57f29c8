"""Processes that run on a backend, and the marks of their tests."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.public import ROOT

MARKS = [
    pytest.mark.slow,
    pytest.mark.jax,
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None,
        reason="needs the extra: pip install keras_transfer[jax]",
    ),
]

# The compiler of JAX takes more time than the small models.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def started(backend, module, *arguments):
    """Start a process that runs a module on a backend."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend, **QUICK},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    said, _ = process.communicate()
    assert process.returncode == 0, said[-3000:]
