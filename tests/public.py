"""Find the public names of keras_transfer, which its packages export."""

import ast
import importlib
import inspect
import pathlib
import pkgutil

import keras_transfer

ROOT = pathlib.Path(keras_transfer.__file__).parents[1]


def components(package="keras_transfer"):
    """Return a dict from the names that a user writes to public classes and functions.

    A package exports the names in `from x import Y as Y` of its __init__.py. A module
    that is not a package exports all its definitions without an underscore.
    """
    module = importlib.import_module(package)
    if not hasattr(module, "__path__"):
        return {
            f"{package}.{name}": value
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == package and name[0] != "_"
        }
    found = {}
    for node in ast.parse(pathlib.Path(module.__file__).read_text()).body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            value = getattr(module, alias.asname)
            if inspect.ismodule(value):
                found |= components(value.__name__)
            elif not alias.asname.startswith("_"):
                found[f"{package}.{alias.asname}"] = value
    return found


def modules():
    """Import all modules of the package, and return them."""
    names = pkgutil.walk_packages(keras_transfer.__path__, "keras_transfer.")
    return [keras_transfer, *(importlib.import_module(each.name) for each in names)]


def methods(kind):
    """Return a dict from names to the public functions that a class itself defines."""
    found = {}
    for name, value in vars(kind).items():
        value = getattr(value, "__func__", None) or getattr(value, "fget", value)
        if inspect.isfunction(value) and name[0] != "_":
            found[name] = value
    return found


def blocks(text):
    """Return the fenced python blocks of a text, without their indentation."""
    found, block = [], None
    for line in inspect.cleandoc(text).splitlines():
        if line.strip() == "```python":
            block = []
        elif line.strip() == "```" and block is not None:
            found.append(inspect.cleandoc("\n".join(["", *block])))
            block = None
        elif block is not None:
            block.append(line)
    if block is not None:
        raise AssertionError(f"A ```python block is not closed:\n{text}")
    return found
