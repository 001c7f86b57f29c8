"""Solve small problems with one thread."""

import contextlib


def one_thread() -> contextlib.AbstractContextManager:
    """Let BLAS use one thread in a block.

    Solvers of scikit-learn make many products of small matrices. The threads of BLAS
    wait for each other after each one, which takes many times as long if there is other
    work on the machine.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")
