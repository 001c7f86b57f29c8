"""Keras on JAX: the values of variables while `fit` runs, and new traces."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops
from keras.src import backend


def on_jax() -> bool:
    """Return whether Keras runs on JAX."""
    return keras.backend.backend() == "jax"


def check_tensorflow(what: str, instead: str) -> None:
    """Raise NotImplementedError unless Keras runs on TensorFlow.

    Args:
        what: What needs TensorFlow.
        instead: A sentence that says what to do on another backend.
    """
    name = keras.backend.backend()
    if name != "tensorflow":
        raise NotImplementedError(
            f"{what} needs the TensorFlow backend, but the backend is {name}. {instead}"
        )


def sync(model: keras.Model) -> None:
    """Give the variables of a model their values, to call after a batch of `fit`.

    On JAX they have none while `fit` runs the steps of an epoch. The next step reads
    them again.
    """
    if on_jax():
        model.jax_state_sync()


def value_in_fit(variable: keras.Variable) -> Any:
    """Return the value of a variable of a model, also while JAX traces a step.

    A step gets the values as arguments, and Keras takes them from the variables
    meanwhile. The values are in the `state` of the function of Keras that runs.
    """
    if variable._value is not None:
        return variable._value
    import jax

    frame = sys._getframe(1)
    while frame is not None:
        model, state = frame.f_locals.get("self"), frame.f_locals.get("state")
        if isinstance(model, keras.Model) and isinstance(state, tuple):
            lists = model.trainable_variables, model.non_trainable_variables
            for variables, values in zip(lists, state, strict=False):
                for each, value in zip(variables, values, strict=True):
                    if each is variable and not isinstance(value, jax.core.Tracer):
                        return value
        frame = frame.f_back
    raise RuntimeError(f"The variable {variable.path} has no value here.")


def has_value(variable: keras.Variable) -> bool:
    """Return whether a variable can be read here.

    In a step on JAX, these are the variables whose values the step gets.
    """
    if variable._value is not None:
        return True
    scope = backend.get_stateless_scope() if backend.in_stateless_scope() else None
    return scope is not None and scope.get_current_value(variable) is not None


def assign_copy(variable: keras.Variable, source: keras.Variable) -> None:
    """Assign the value of another variable.

    On JAX, two variables must not hold the same array, which a step gives away.
    """
    variable.assign(ops.copy(source) if on_jax() else source)


@contextlib.contextmanager
def traced_again(model: keras.Model, kind: str) -> Iterator[None]:
    """Within the block, JAX traces the step of a new function again.

    JAX finds a trace by the equality of the function, and a bound method equals itself.
    So a step with other layers of equal shapes would get the trace of the old ones.
    """
    name = f"{kind}_step"
    own = vars(model).get(name)
    step = getattr(model, name)
    model.__dict__[name] = lambda *arguments: step(*arguments)
    try:
        yield
    finally:
        if own is None:
            del model.__dict__[name]
        else:
            model.__dict__[name] = own
