"""Keras's private side of traced functions: those a layer keeps, made anew."""

import functools
from collections.abc import Iterator
from typing import Any

import keras

# What Keras makes for a model by `make_<kind>_function`.
KINDS = ("train", "test", "predict")


def remake_functions(model: keras.Model, *kinds: str) -> None:
    """Make functions of a `model` anew, those of `kinds`, untraced.

    TensorFlow warns of code that is traced too often, and counts all functions of one
    code together, those of other models too. One that is made here is meant to be
    traced once more, so it is counted by itself.
    """
    for kind in kinds:
        getattr(model, f"make_{kind}_function")(force=True)
        _count_alone(getattr(model, f"{kind}_function"))


def counted_makers(kind: type) -> dict[str, Any]:
    """Return methods for a subclass of `kind` that make each function as one by itself.

    For a class of models that are traced anew time and again: `compile` leaves it to
    `fit`, and that of keras-hub to `generate`, to make the functions.
    """
    names = [f"make_{each}_function" for each in (*KINDS, "generate")]
    return {x: _counted(getattr(kind, x)) for x in names if hasattr(kind, x)}


def forget_traces(layer: keras.Layer) -> None:
    """Make anew what `layer` itself keeps of traced functions, and nothing below it.

    Those of Keras; what is a `tf.function` in an attribute, such as the one that
    `generate` of a keras-hub model runs; and methods that a class has as one. All are
    there again at once, not set to None: a callback may be in the midst of `fit`.
    """
    if isinstance(layer, keras.Model):
        made = [x for x in KINDS if getattr(layer, f"{x}_function", None) is not None]
        remake_functions(layer, *made)
    if keras.backend.backend() != "tensorflow":
        # keras-hub makes it in the next `generate`.
        if vars(layer).get("generate_function") is not None:
            layer.generate_function = None
        return
    of_keras = {f"{kind}_function" for kind in KINDS}
    for name, function in list(vars(layer).items()):
        if _is_traced(function) and name not in of_keras:
            new = function._clone(None)
            _count_alone(new)
            setattr(layer, name, new)
    for kind in type(layer).__mro__:
        for function in list(vars(kind).values()):
            # TensorFlow has one for each instance that a method was called on.
            own = _is_traced(function) and function._descriptor_cache
            if own and own.pop(layer, None) is not None:
                _count_alone(function.__get__(layer, type(layer)))


def _counted(maker: Any) -> Any:
    @functools.wraps(maker)
    def make(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
        attribute = maker.__name__.removeprefix("make_")
        before = getattr(self, attribute, None)
        made = maker(self, *args, **kwargs)
        function = getattr(self, attribute, None)
        if function is not before:
            _count_alone(function)
        return made

    return make


class _Key:
    """What TensorFlow counts the traces of one function by."""


def _count_alone(function: Any) -> None:
    for each in _traced_in(function):
        each._key_for_call_stats = _Key()


def _traced_in(function: Any) -> Iterator[Any]:
    """Yield the tf.functions that a function of Keras is made of."""
    cells = getattr(function, "__closure__", None) or ()
    for each in (function, *(cell.cell_contents for cell in cells)):
        for candidate in (each, getattr(each, "__wrapped__", None)):
            if _is_traced(candidate):
                yield candidate


def _is_traced(thing: Any) -> bool:
    # No subclass: what was loaded from a SavedModel has no code to trace again.
    return type(thing) is _traced_class()


@functools.cache
def _traced_class() -> type | None:
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return type(tf.function(lambda: None))
