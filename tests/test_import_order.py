"""Each file of keras_transfer imports only the packages and names that it may use."""

import ast
import re

import pytest

from tests.public import ROOT

ORDER = [
    "_version",
    "_arguments",
    "_instead",
    "_whole_file",
    "_keras",
    "losses",
    "layers",
    "distribute",
    "backbones",
    "data",
    "optimizers",
    "quantization",
    "adapters",
    "regularizers",
    "analysis",
    "saving",
    "callbacks",
    "models",
    "fine_tuning",
    "export",
    "monitoring",
    "retuning",
    "__init__",
]
INSIDE_FUNCTIONS = re.compile(
    r"(keras_hub|keras_nlp|keras_cv|tensorflow_datasets|safetensors|sklearn|fairlearn"
    r"|matplotlib|codecarbon|pynvml)\b"
)
MAY_USE_TENSORFLOW = re.compile(
    r"keras_transfer\.(_keras|data|export|distribute|backbones\.feature_cache)\b"
)
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text()
    for path in sorted((ROOT / "keras_transfer").rglob("*.py"))
}


def imports(tree, files):
    """Yield each imported module, its line, and whether a function imports it."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, functions)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                target = alias.name
                if isinstance(node, ast.ImportFrom):
                    target = node.module or "."
                    inits = f"{target}.{alias.name}.__init__", f"{target}.__init__"
                    full = (f"{target}.{alias.name}", *inits)
                    target = next((each for each in full if each in files), target)
                yield target, node, id(node) in inside


def faults(module, source, files=FILES):
    """Return the violations of the rules in one file."""
    tree = ast.parse(source)
    package = module.split(".")[1]
    found = []
    for target, node, inside in imports(tree, files):
        line = f"line {node.lineno}: "
        if len(node.names) > 1 or node.names[0].name == "*":
            found.append(line + "one import per line, no star")
        if getattr(node, "level", 0):
            found.append(line + "full paths only")
        root, *rest = target.split(".")
        if root == "keras_transfer":
            other = rest[0] if rest else "__init__"
            if ORDER.index(other) > ORDER.index(package):
                found.append(line + f"{package} is left of {other}")
            if other == package != "__init__" and rest[-1] == "__init__":
                found.append(line + "the package's own __init__")
        if INSIDE_FUNCTIONS.match(target) and not inside:
            found.append(line + f"{root} only inside functions")
        if root == "tensorflow" and not MAY_USE_TENSORFLOW.match(module):
            found.append(line + "no TensorFlow here")
        if target.startswith("keras.src") and package != "_keras":
            found.append(line + "keras.src only in _keras/")
    return found if package == "_keras" else found + private(tree)


def defined(tree):
    """Return the names that a file defines, including attributes."""
    nodes = list(ast.walk(tree))
    names = {getattr(node, "name", None) for node in nodes}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    return names | {a.attr for a in attributes if isinstance(a.ctx, ast.Store)}


DEFINED = set.union(*(defined(ast.parse(source)) for source in FILES.values()))


def private(tree):
    """Return the uses of names that are private in Keras or in another file."""
    here = defined(tree) | {"_replace", "_asdict", "_fields"}  # of a NamedTuple
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        holder = ast.unparse(node.value)
        # An inherited attribute may be defined in another file.
        known = DEFINED if holder in ("self", "cls") else here
        if f"{holder}.{node.attr}" == "keras.src":
            found.append(f"line {node.lineno}: keras.src only in _keras/")
        elif re.match(r"_[^_]", node.attr) and node.attr not in known:
            found.append(f"line {node.lineno}: {holder}.{node.attr} is private")
    return found


def cycles(files):
    """Return the modules that import themselves through other modules."""
    graph = {
        name: {target for target, _, _ in imports(ast.parse(text), files)} & set(files)
        for name, text in files.items()
        if not name.endswith("__init__")
    }
    while True:  # remove the modules that import no remaining module
        free = {name for name, needs in graph.items() if not needs & set(graph)}
        if not free:
            return sorted(graph)
        graph = {name: needs for name, needs in graph.items() if name not in free}


def test_imports_keep_the_rules():
    found = {module: faults(module, source) for module, source in FILES.items()}
    assert len(found) > 100
    assert {module: each for module, each in found.items() if each} == {}


def test_no_module_imports_itself_through_other_modules():
    assert cycles(FILES) == []


@pytest.mark.parametrize(
    "line, fault",
    [
        ("from keras_transfer.callbacks.phases import Phase", "saving is left of"),
        ("import keras_transfer as kt", "saving is left of __init__"),
        ("from keras_transfer.models import X", "saving is left of models"),
        ("from keras_transfer import models", "saving is left of models"),
        ("from keras_transfer.saving import resume_of", "own __init__"),
        ("from .resume import resume", "full paths"),
        ("import os, sys", "one import per line"),
        ("from keras.layers import *", "no star"),
        ("import sklearn.datasets", "only inside functions"),
        ("from keras_hub.models import Backbone", "only inside functions"),
        ("import tensorflow as tf", "no TensorFlow"),
        ("def f():\n    import tensorflow.data", "no TensorFlow"),
        ("from keras.src import ops", "keras.src"),
        ("keras.src.ops.add(1, 1)", "keras.src"),
        ("def f(layer):\n    return layer._layers", "layer._layers is private"),
        ("super()._setattr_hook(1)", "is private"),
        ("def f(self):\n    return self._flatten_layers()", "is private"),
    ],
)
def test_each_rule_finds_its_violation(line, fault):
    assert any(fault in each for each in faults("keras_transfer.saving.bad", line))


def test_correct_imports_have_no_faults():
    source = """
import keras
from keras_transfer import _keras
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.saving.resume import resume
def f(other):
    import keras_hub
    return self._groups, other._ours
def _ours(): ...
"""
    assert faults("keras_transfer.saving.good", source) == []
    assert faults("keras_transfer.data.good", "import tensorflow as tf") == []


def test_a_cycle_is_found():
    names = ("a", "b", "c")
    files = {
        f"keras_transfer.data.{name}": f"from keras_transfer.data.{other} import x"
        for name, other in zip(names, "baa", strict=True)
    }
    assert cycles(files) == sorted(files)
    del files["keras_transfer.data.b"]
    assert cycles(files) == []


def test_the_files_that_know_the_backend_are_listed():
    rows = re.findall(r"(?m)^  \| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text())
    listed = set()
    for row in rows:
        first, *others = re.findall(r"`([\w/]+)`", row)
        folder = first.partition("/")[0]
        listed |= {first, *(f"{folder}/{other}" for other in others)}
    asks = re.compile(r"on_jax|check_backend|backend\.backend\(\)")
    found = {
        name.removeprefix("keras_transfer.").replace(".", "/")
        for name, text in FILES.items()
        if asks.search(text) and not name.startswith("keras_transfer._keras")
    }
    assert found == listed
