"""Private APIs of Keras for optimizers: slots, settings and wrappers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


def inner_optimizer(optimizer: keras.Optimizer | None) -> keras.Optimizer | None:
    """Return the optimizer inside a LossScaleOptimizer, or `optimizer` itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def steps_taken(optimizer: keras.Optimizer) -> keras.Variable:
    """Return the count of steps, with each one of those that an update accumulates."""
    return inner_optimizer(optimizer)._iterations


def replace_optimizer(model: keras.Model, optimizer: keras.Optimizer) -> None:
    """Replace the optimizer of a compiled `model`, also in its saved config."""
    wrapper = model.optimizer
    if isinstance(wrapper, keras.optimizers.LossScaleOptimizer):
        settings = wrapper.get_config() | {"inner_optimizer": optimizer}
        model.optimizer = type(wrapper)(**settings)
    else:
        model.optimizer = optimizer
    compiled = model._compile_config.config
    # Keras keeps the optimizer that was passed to compile(), without its own wrapper.
    wrapped = isinstance(compiled["optimizer"], keras.optimizers.LossScaleOptimizer)
    compiled["optimizer"] = model.optimizer if wrapped else optimizer


class CompiledOptimizer:
    """The optimizer of a compiled model, to restore it later."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.optimizer = model.optimizer
        self.passed = model._compile_config.config["optimizer"]

    def restore(self) -> None:
        """Give the model this optimizer again."""
        self.model.optimizer = self.optimizer
        self.model._compile_config.config["optimizer"] = self.passed


def made_in_scope(optimizer: keras.Optimizer, model: keras.Model) -> bool:
    """Return whether `optimizer` was made under the strategy of `model`."""
    strategy = getattr(model, "distribute_strategy", None)
    return getattr(optimizer, "_distribution_strategy", strategy) is strategy


def settings(optimizer: keras.Optimizer) -> dict:
    """Return the config of `optimizer` with its learning rate schedule object.

    A user-defined schedule may have no config or may not be registered.
    """
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        return optimizer.get_config()
    optimizer.__dict__["_learning_rate"] = 1.0
    try:
        return optimizer.get_config() | {"learning_rate": rate}
    finally:
        optimizer.__dict__["_learning_rate"] = rate


def decays(optimizer: keras.Optimizer, variable: keras.Variable) -> bool:
    """Return whether `optimizer` applies weight decay to `variable`."""
    return optimizer._use_weight_decay(variable)


def trained_by(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that a built `optimizer` has slots for, in order."""
    return list(optimizer._trainable_variables)


def variable_index(optimizer: keras.Optimizer, variable: keras.Variable) -> int:
    """Return the index of `variable` among the variables of `optimizer`."""
    return optimizer._get_variable_index(variable)


def moving_averages(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the averages (use_ema=True) of the variables of a built `optimizer`."""
    return optimizer._model_variables_moving_average


@contextlib.contextmanager
def momentum_product(nadam: keras.optimizers.Nadam, product: Any) -> Iterator[None]:
    """Within the block, `nadam` corrects its bias by `product`, not its own product."""
    shared = nadam._u_product
    nadam.__dict__["_u_product"] = product
    try:
        yield
    finally:
        nadam.__dict__["_u_product"] = shared


def slots(
    optimizer: keras.Optimizer,
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """Yield (model variable, optimizer variable) for each slot of one variable.

    Variables that serve all model variables, such as the step count, are left out.
    """
    kept = {id(variable) for variable in optimizer.variables}
    inner = [inner_optimizer(optimizer)]
    for part in [*inner, *getattr(optimizer, "optimizers", ())]:
        trained = trained_by(part) if part.built else []
        for name, values in vars(part).items():
            if name in ("_variables", "_trainable_variables"):
                continue
            # Keras keeps slots in lists with the same order as the variables.
            if not isinstance(values, list) or len(values) != len(trained):
                continue
            for variable, slot in zip(trained, values, strict=True):
                if id(slot) in kept:
                    kept.remove(id(slot))
                    yield variable, slot
