"""Private APIs of Keras for traced functions: make the functions of a layer again."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras

from keras_transfer._keras.backends import on_jax
from keras_transfer._keras.jax_fit import is_made_by_fit
from keras_transfer._keras.jax_fit import renew_step
from keras_transfer._keras.jax_fit import traced_again
from keras_transfer._keras.replicas import scope

# The functions that Keras makes for a model with `make_<kind>_function`.
KINDS = ("train", "test", "predict")


def remake_functions(model: keras.Model, *kinds: str) -> None:
    """Replace the functions `kinds` of a `model` with new ones that are not traced.

    TensorFlow warns if code is traced too often, and counts all functions with the same
    code together, also of other models. The new functions are traced again on purpose,
    so each one is counted separately. Where only `fit` can make a function, the model
    has none until then.
    """
    for kind in kinds:
        if is_made_by_fit(model):
            renew_step(model, kind)
            setattr(model, f"{kind}_function", None)
            continue
        again = traced_again(model, kind) if on_jax() else contextlib.nullcontext()
        with again:
            getattr(model, f"make_{kind}_function")(force=True)
        _count_alone(getattr(model, f"{kind}_function"))


def trace_once(model: keras.Model, dataset: Any) -> None:
    """Create the variables of metrics, loss and optimizer before `fit` on a dataset.

    Otherwise the training step creates them, and TensorFlow traces such a step twice.
    Keras itself creates them first on JAX and for several replicas.
    """
    spec = getattr(dataset, "element_spec", None)
    if on_jax() or spec is None or model.run_eagerly:
        return

    def symbol(each: Any) -> keras.KerasTensor:
        return keras.KerasTensor(tuple(each.shape), each.dtype.name)

    try:
        with scope(model):
            model._symbolic_build(data_batch=keras.tree.map_structure(symbol, spec))
    except Exception:  # `fit` has the same error, at a better place
        return


def counted_makers(kind: type) -> dict[str, Any]:
    """Return methods for a subclass of `kind` whose functions are counted separately.

    For a class of models that are retraced many times. `compile` does not make the
    functions: `fit` makes them, and in keras-hub `generate`.
    """
    names = [f"make_{function}_function" for function in (*KINDS, "generate")]
    return {x: _counted(getattr(kind, x)) for x in names if hasattr(kind, x)}


def forget_traces(layer: keras.Layer) -> None:
    """Replace all traced functions of `layer`, without the layers below it.

    These are the functions of Keras, every `tf.function` in an attribute, such as the
    function of `generate` in keras-hub, and the methods that are a `tf.function`. All
    are replaced at once and not set to None, because `fit` may be running.
    """
    if isinstance(layer, keras.Model):
        made = [x for x in KINDS if getattr(layer, f"{x}_function", None) is not None]
        remake_functions(layer, *made)
    if keras.backend.backend() != "tensorflow":
        # keras-hub makes the function in the next `generate`.
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
            # TensorFlow keeps one function for each instance of a method.
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
    """Key by which TensorFlow counts the traces of one function."""


def _count_alone(function: Any) -> None:
    for traced in _traced_in(function):
        traced._key_for_call_stats = _Key()


def _traced_in(function: Any) -> Iterator[Any]:
    """Yield the tf.functions inside a function of Keras."""
    cells = getattr(function, "__closure__", None) or ()
    for part in (function, *(cell.cell_contents for cell in cells)):
        for candidate in (part, getattr(part, "__wrapped__", None)):
            if _is_traced(candidate):
                yield candidate


def _is_traced(thing: Any) -> bool:
    # Subclasses are excluded: a function from a SavedModel has no code to retrace.
    return type(thing) is _traced_class()


@functools.cache
def _traced_class() -> type | None:
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return type(tf.function(lambda: None))
