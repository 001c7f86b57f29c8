"""Keras on JAX: the values of variables while `fit` runs, and new traces."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops
from keras.src import backend

from keras_transfer._keras.backends import on_jax


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


def renew_step(model: keras.Model, kind: str) -> None:
    """Hide the step of a model by a new function that does the same."""
    step = getattr(model, f"{kind}_step")
    step = getattr(step, "of_model", step)

    def renewed(*arguments: Any) -> Any:
        return step(*arguments)

    renewed.of_model = step
    model.__dict__[f"{kind}_step"] = renewed  # Keras does not track this


@contextlib.contextmanager
def traced_again(model: keras.Model, kind: str) -> Iterator[None]:
    """Within the block, JAX traces the step of a new function again.

    JAX finds a trace by the equality of the function, and a bound method equals itself.
    So a step with other layers of equal shapes would get the trace of the old ones.
    """
    name = f"{kind}_step"
    own = vars(model).get(name)
    renew_step(model, kind)
    try:
        yield
    finally:
        if own is None:
            del model.__dict__[name]
        else:
            model.__dict__[name] = own


def set_layout(
    variable: keras.Variable, layout: keras.distribution.TensorLayout
) -> None:
    """Move the value of a variable to the devices of a layout, and keep it there."""
    variable._layout = layout
    variable.assign(variable.value)


def is_made_by_fit(model: keras.Model) -> bool:
    """Return whether a function of a model cannot be made before `fit` or `evaluate`.

    With a distribution, Keras fixes the devices of all results when it makes a
    function, so the optimizer, the losses and the metrics must be built by then.
    """
    if not on_jax() or keras.distribution.distribution() is None:
        return False
    names = "optimizer", "_compile_loss", "_compile_metrics"
    parts = [getattr(model, name, None) for name in names]
    return not all(part is None or part.built for part in parts)


def on_other_devices(variables: list[keras.Variable]) -> list[keras.Variable]:
    """Return the variables that are not on all devices of `keras.distribution`."""
    distribution = keras.distribution.distribution()
    if distribution is None or not on_jax():
        return []
    count = distribution.device_mesh.devices.size
    variables = [x for x in variables if has_value(x)]  # a failed step leaves none
    return [x for x in variables if len(x.value.sharding.device_set) != count]


def replicate_short_batches() -> None:
    """Let `fit` take batches that the devices of a distribution cannot share equally.

    Keras fails at the last batch of an epoch if it is short. Such a batch is copied to
    each device instead.
    """
    from keras.src.backend.jax import trainer

    original = trainer._distribute_data
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def distribute(data: Any, layouts: Any = None) -> Any:
        distribution = keras.distribution.distribution()
        sizes = {len(x) for x in keras.tree.flatten(data) if x is not None}
        if distribution is None or backend.distribution_lib.num_processes() > 1:
            return original(data, layouts)
        if all(size % distribution.num_model_replicas == 0 for size in sizes):
            return original(data, layouts)
        whole = keras.tree.map_structure(
            lambda x: None if x is None else _whole_layout(x, distribution), data
        )
        return original(data, whole)

    trainer._distribute_data = distribute


def _whole_layout(x: Any, distribution: Any) -> Any:
    axes = [None] * x.ndim
    layout = keras.distribution.TensorLayout(axes, distribution.device_mesh)
    return layout.backend_layout
