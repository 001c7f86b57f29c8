"""Map output names to outputs, labels, sample weights and class names."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras


def outputs_by_name(model: keras.Model, outputs: Any) -> dict[str, tuple[str, Any]]:
    """Return a dict from the name of each output to `(key of its mask, output)`.

    The name of a single output is "". For a dict of outputs, the names are its keys.
    For a list, they are the output names of Keras, which `compile` also accepts. If the
    model has no output names, they are `outputs_0`, `outputs_1` and so on.

    Raises:
        ValueError: If an output is a structure of arrays.
    """
    if isinstance(outputs, Mapping):
        # Keras uses this order for losses and labels that are lists.
        keys = sorted(outputs, key=str)
        found = {str(key): (str(key), outputs[key]) for key in keys}
    elif isinstance(outputs, list | tuple):
        names = list_names(model, len(outputs))
        found = {
            name: (str(i), each)
            for i, (name, each) in enumerate(zip(names, outputs, strict=True))
        }
    else:
        found = {"": ("", outputs)}
    for name, (_, each) in found.items():
        if keras.tree.is_nested(each):
            raise ValueError(
                f"The output {name!r} of {model.name!r} is a {type(each).__name__} of "
                "arrays. A report supports one level only. Make the outputs a list or "
                "a dictionary of arrays."
            )
    if len(found) == 1:
        found = {"": next(iter(found.values()))}
    return found


def list_names(model: keras.Model, count: int) -> list[str]:
    """Return the names of the outputs of a model that returns a list."""
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != count or len(set(names)) < count:
        names = [f"outputs_{i}" for i in range(count)]
    return names


def labels_by_name(model: keras.Model, named: Mapping, labels: Any) -> dict[str, Any]:
    """Return a dict from the names of outputs with labels to their labels.

    Raises:
        ValueError: If it is not clear which output the labels belong to.
    """
    return _matched(model, named, labels, "labels")


def weights_by_name(model: keras.Model, named: Mapping, weights: Any) -> dict[str, Any]:
    """Return the sample weights of each output. One array applies to all outputs.

    Raises:
        ValueError: If it is not clear which output the weights belong to.
    """
    if weights is None or not keras.tree.is_nested(weights):
        return dict.fromkeys(named, weights)
    return _matched(model, named, weights, "sample weights")


def names_by_output(
    model: keras.Model, named: Mapping, class_names: Any
) -> dict[str, Sequence[str] | None]:
    """Return the `class_names` argument of `kt.report` for each output.

    Raises:
        ValueError: If it is not clear which output the names belong to.
    """
    plain = isinstance(class_names, Sequence) and not isinstance(class_names, str)
    plain = plain or hasattr(class_names, "tolist")
    if plain and all(isinstance(each, str) for each in class_names):
        if len(named) > 1:
            raise ValueError(
                f"class_names is one list of {len(class_names)} names, but "
                f"{model.name!r} has the outputs {[*named]}. Pass a dictionary of "
                f"names by output, such as {{{next(iter(named))!r}: class_names}}."
            )
        return dict.fromkeys(named, list(class_names))
    if not plain and not isinstance(class_names, Mapping):
        raise ValueError(
            f"class_names is {class_names!r}. Pass the names of the classes in the "
            "order of the outputs. For a model with several outputs, pass a list or "
            "dictionary of lists of names."
        )
    return _matched(model, named, class_names, "class_names")


def _matched(
    model: keras.Model, named: Mapping, values: Any, what: str
) -> dict[str, Any]:
    """Return a dict from output names to `values`, which may be a list or a dict."""
    of_data = "The class_names" if what == "class_names" else f"The {what} of `data`"
    if isinstance(values, Mapping):
        known = set(named) if len(named) > 1 else _names_of_one(model)
        unknown = [key for key in values if str(key) not in known]
        if unknown or not values:
            raise ValueError(
                f"{of_data} are a dict with the unknown keys {unknown}, but "
                f"{model.name!r} has {_shown(named)}. Pass a dict with output names as "
                "keys."
            )
        if len(named) == 1:
            return {"": next(iter(values.values()))}
        return {str(key): each for key, each in values.items()}
    if isinstance(values, list | tuple):
        if len(values) != len(named):
            raise ValueError(
                f"{of_data} are a {type(values).__name__} of {len(values)}, but "
                f"{model.name!r} has {_shown(named)}. Pass {what} for each output, or "
                "a dictionary with output names as keys."
            )
        return dict(zip(named, values, strict=True))
    if len(named) > 1:
        raise ValueError(
            f"The model {model.name!r} has several outputs, {[*named]}, so it is not "
            f"clear which output the {what} belong to. Pass {what} as a list, or as a "
            "dictionary with output names as keys."
        )
    return dict.fromkeys(named, values)


def _names_of_one(model: keras.Model) -> set[str]:
    names = set(getattr(model, "output_names", None) or [])
    output = getattr(model, "output", None)  # a Sequential may have no output
    if isinstance(output, Mapping):
        names |= {str(key) for key in output}
    return names


def _shown(named: Mapping) -> str:
    return f"the outputs {[*named]}" if len(named) > 1 else "one output"
