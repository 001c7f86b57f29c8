"""Errors for old names of arguments and functions, which say what to use instead."""

from __future__ import annotations

import functools
from collections.abc import Callable


def arguments_instead(**advice: str) -> Callable[[Callable], Callable]:
    """Return a decorator that refuses each argument of `advice` with this advice.

    Args:
        **advice: For each argument that the function does not have, a sentence that
            says what to do instead.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def checked(*args: object, **kwargs: object) -> object:
            for name in kwargs:
                if name in advice:
                    raise TypeError(
                        f"{function.__name__}() has no argument {name!r}. "
                        f"{advice[name]}"
                    )
            return function(*args, **kwargs)

        return checked

    return decorate


def attributes_instead(owner: str, **new_names: str) -> Callable[[str], object]:
    """Return a function that raises an error for the name of an unknown attribute.

    Use it as the `__getattr__` of a module, or call it in the `__getattr__` of a class.

    Args:
        owner: Owner for the error, such as `"module 'keras_transfer.analysis'"`.
        **new_names: The new name for each old name.
    """

    def unknown(name: str) -> object:
        text = f"{owner} has no attribute {name!r}"
        if name in new_names:
            text += f". It is called {new_names[name]!r} now."
        raise AttributeError(text)

    return unknown
