"""The example in each public docstring runs on its own."""

import inspect

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import public


def examples():
    """Return the python blocks of public docstrings, including methods."""
    found = {}
    seen = set()
    for name, component in public.components().items():
        if id(component) in seen:
            continue  # exported under two names, such as layer_groups
        seen.add(id(component))
        parts = {name: component}
        if inspect.isclass(component):
            own = public.methods(component).items()
            parts |= {f"{name}.{method}": function for method, function in own}
        for part, value in parts.items():
            for number, block in enumerate(public.blocks(value.__doc__ or "")):
                found[f"{part}-{number}"] = block
    return found


EXAMPLES = examples()


def run(name, code):
    """Run a block with keras, kt and np already imported."""
    namespace = {"keras": keras, "kt": kt, "np": np, "__name__": "example"}
    exec(compile(code, f"<example of {name}>", "exec"), namespace)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(name, EXAMPLES[name])


def test_blocks_are_found_and_run_separately():
    text = """One sentence.

    ```python
    for i in range(2):
        x = i
    ```

        ```python
        assert x == 1
        ```
    """
    first, second = public.blocks(text)
    assert first == "for i in range(2):\n    x = i"
    run("first", first)
    with pytest.raises(NameError):
        run("second", second)  # each block has a new namespace
