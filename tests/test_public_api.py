"""Each public name has a docstring, type hints, a saved name and a contract test."""

import ast
import functools
import inspect
import pathlib
import re
import subprocess
import sys

import keras

from keras_transfer.models.two_domain_model import TwoDomainModel
from keras_transfer.optimizers.discriminative import SUBCLASSES
from tests import public

# The contract for each kind of component. The first match counts, so Model comes
# before Layer.
CONTRACTS = {
    TwoDomainModel: "DomainContract",
    keras.Model: "ModelContract",
    keras.layers.Layer: "LayerContract",
    keras.Optimizer: "OptimizerContract",
    keras.callbacks.Callback: "CallbackContract",
    keras.optimizers.schedules.LearningRateSchedule: "ScheduleContract",
    keras.losses.Loss: "LossContract",
}
KINDS = tuple(CONTRACTS)
COMPONENTS = public.components()
CLASSES = {k: v for k, v in COMPONENTS.items() if inspect.isclass(v)}
# Arguments with the same name and meaning as in `fit` are not counted.
OF_FIT = set(inspect.signature(keras.Model.fit).parameters) - {"x", "y"}
HEAVY = (
    "fairlearn",
    "keras_cv",
    "keras_hub",
    "keras_nlp",
    "matplotlib",
    "safetensors",
    "sklearn",
    "tensorflow_datasets",
)


def signature(component):
    """Return the parameters that a caller can pass, without self."""
    parameters = inspect.signature(component).parameters
    return {k: v for k, v in parameters.items() if k not in ("self", "cls")}


def bodies(component):
    """Return the syntax trees of the code that runs when a component is called."""
    functions = [component]
    if inspect.isclass(component):
        starts = ("__init__", "__post_init__")
        functions = [
            vars(component)[each] for each in starts if each in vars(component)
        ]
    for function in functions:
        # __init__ of a dataclass has no source.
        if pathlib.Path(inspect.getfile(function)).is_file():
            yield ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))


def sections(component):
    """Return a dict from titles to sections of a docstring."""
    doc = inspect.getdoc(component) or ""
    parts = re.split(r"^([A-Z][a-z]+(?: shape)?):$", doc, flags=re.M)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def faults_of_docstring(component):
    """Return the missing parts of a docstring."""
    found = sections(component)
    first, _, rest = found[""].partition("\n")
    faults = []
    if not first.endswith(".") or rest.strip(" ") and not rest.startswith("\n"):
        faults.append("one sentence on the first line")
    if inspect.isclass(component) and issubclass(component, tuple):
        return faults  # a public function returns and documents this named tuple
    wanted = {"Example", "Reference"}
    arguments = signature(component)
    if arguments:
        wanted.add("Args")
    if inspect.isclass(component) and issubclass(component, keras.layers.Layer):
        wanted |= {"Input shape", "Output shape"}
    if inspect.isfunction(component):
        returned = inspect.signature(component).return_annotation
        if returned not in (None, "None"):
            wanted.add("Returns")
    trees = list(bodies(component))
    if any(isinstance(node, ast.Raise) for tree in trees for node in ast.walk(tree)):
        wanted.add("Raises")
    faults += [f"{title}:" for title in sorted(wanted) if not found.get(title)]
    told = re.findall(r"^ {4}\**(\w+):", found.get("Args", ""), flags=re.M)
    faults += [f"Args: {name}" for name in arguments if name not in told]
    faults += [
        f"Args: {name} is not an argument" for name in set(told) - set(arguments)
    ]
    if not public.blocks(found.get("Example", "")):
        faults.append("a ```python block in Example:")
    return faults


def unhinted(function):
    """Return the parameters without a type hint, and "return" if it has none."""
    missing = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation is parameter.empty and name not in ("self", "cls")
    ]
    returned = inspect.signature(function).return_annotation
    if returned is inspect.Signature.empty and function.__name__ != "__init__":
        missing.append("return")
    return missing


@functools.cache
def contract_tests():
    """Return a dict from contracts to the names used in modules that inherit them."""
    used = {contract: set() for contract in CONTRACTS.values()}
    for path in (public.ROOT / "tests").rglob("test_*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                if ast.unparse(base) in used:
                    used[ast.unparse(base)] |= names
    return used


def test_all_packages_are_walked():
    folders = {path.parent.name for path in public.ROOT.glob("keras_transfer/*/*.py")}
    walked = {name.split(".")[1] for name in COMPONENTS if name.count(".") > 1}
    assert walked == folders - {"__pycache__", "_keras"}
    assert COMPONENTS["keras_transfer.layer_groups"]
    assert inspect.isclass(CLASSES["keras_transfer.backbones.FrozenBackbone"])


def faults(rule, components=COMPONENTS):
    """Return a dict from names of components that break `rule` to their faults."""
    found = {name: rule(component) for name, component in components.items()}
    return {name: broken for name, broken in found.items() if broken}


def faults_of_hints(component):
    """Return a dict from function names to parameters without a type hint."""
    functions = [component]
    if inspect.isclass(component):
        functions = list(public.methods(component).values())
        if inspect.isfunction(vars(component).get("__init__")):
            functions.append(component.__init__)
    missing = {each.__name__: unhinted(each) for each in functions}
    return {key: names for key, names in missing.items() if names}


def faults_of_length(component):
    """Return the arguments of a component that has too many."""
    arguments = signature(component).values()
    named = [each.name for each in arguments if each.kind != each.VAR_KEYWORD]
    named = [name for name in named if name not in OF_FIT]
    # The start of LoRA needs one more argument, and the content of a SavedModel two.
    larger = {"export_serving": 9, "LoRA": 8, "RsLoRA": 8, "DoRA": 8}
    most = larger.get(component.__name__, 7)
    return named if len(named) > most else []


def faults_of_name(kind):
    """Return faults in the registration of a class with Keras."""
    name = f"keras_transfer>{kind.__name__}"
    registered = keras.saving.get_registered_name(kind)
    if registered != name or keras.saving.get_registered_object(name) is not kind:
        return [f"registered as {registered}"]
    return [] if "get_config" in dir(kind) else ["no get_config"]


def faults_of_contract(kind):
    """Return the contract of a class if no test of the class inherits it."""
    contract = next(v for base, v in CONTRACTS.items() if issubclass(kind, base))
    return [] if kind.__name__ in contract_tests()[contract] else [contract]


def saved_classes():
    """Return all classes of this package that a saved file can contain."""
    found = set(SUBCLASSES.values()) | set(CLASSES.values())
    for module in public.modules():
        own = [v for v in vars(module).values() if inspect.isclass(v)]
        # Keras does not save callbacks, so only exported callbacks have a name.
        found |= {
            kind
            for kind in own
            if kind.__module__ == module.__name__
            and not issubclass(kind, keras.callbacks.Callback)
        }
    return sorted(
        # Another layer creates a private layer. It is never created from a config.
        (k for k in found if issubclass(k, KINDS) and not k.__name__.startswith("_")),
        key=lambda kind: kind.__name__,
    )


def test_docstrings_have_all_sections():
    assert faults(faults_of_docstring) == {}


def test_signatures_have_type_hints():
    assert faults(faults_of_hints) == {}


def test_at_most_seven_arguments():
    assert faults(faults_of_length) == {}


def test_classes_have_a_serialization_name():
    kinds = {f"{kind.__module__}.{kind.__name__}": kind for kind in saved_classes()}
    assert len(kinds) > 50
    assert faults(faults_of_name, kinds) == {}


def test_classes_have_a_contract_test():
    kinds = {k: v for k, v in CLASSES.items() if issubclass(v, KINDS)}
    assert len(kinds) > 30
    assert faults(faults_of_contract, kinds) == {}


def test_the_optimizer_factory_has_a_contract_test():
    assert {"discriminative", "SUBCLASSES"} <= contract_tests()["OptimizerContract"]


def test_import_loads_nothing_heavy():
    # Keras itself loads scikit-learn and matplotlib if they are installed.
    code = (
        "import sys, keras; before = set(sys.modules); import keras_transfer; "
        "print(*(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=public.ROOT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "keras_transfer.optimizers.discriminative" in loaded
    assert [name for name in HEAVY if name in loaded] == []


# Tests of the rules above.


def good(rate: float) -> float:
    """Return the rate.

    Args:
        rate: A rate.

    Returns:
        The rate.

    Example:
        ```python
        1 + 1
        ```

    Reference:
        Somebody, 2018.
    """
    return rate


def bad(rate, other=1):
    """Return the rate
    or not.

    Args:
        rat: A rate.
    """
    if rate:
        raise ValueError


def eight(a, b, c, d, e, f, g, h): ...


class Unknown(keras.losses.Loss): ...


def test_faults_are_found():
    assert faults_of_docstring(good) == unhinted(good) == []
    assert faults_of_docstring(bad) == [
        "one sentence on the first line",
        "Example:",
        "Raises:",
        "Reference:",
        "Returns:",
        "Args: rate",
        "Args: other",
        "Args: rat is not an argument",
        "a ```python block in Example:",
    ]
    assert unhinted(bad) == ["rate", "other", "return"]
    assert faults_of_hints(bad) == {"bad": ["rate", "other", "return"]}
    assert faults_of_length(eight) == list("abcdefgh")
    assert faults_of_name(Unknown) == ["registered as Unknown"]
    assert faults_of_contract(Unknown) == ["LossContract"]
    both = {"good": good, "eight": eight}
    assert faults(faults_of_length, both) == {"eight": list("abcdefgh")}
