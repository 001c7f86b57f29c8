"""Discriminative learning rates: one optimizer with a factor for each layer group."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer._arguments import number
from keras_transfer._instead import arguments_instead
from keras_transfer._keras import replicas_here
from keras_transfer._keras import settings
from keras_transfer._keras import value
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.distribute.check import check_settings
from keras_transfer.optimizers.rate_table import check_rate
from keras_transfer.optimizers.rate_table import nearest
from keras_transfer.optimizers.rate_table import RateKey
from keras_transfer.optimizers.rate_table import RateTable
from keras_transfer.optimizers.variable_rates import AdafactorRates
from keras_transfer.optimizers.variable_rates import NadamRates
from keras_transfer.optimizers.variable_rates import VariableRates


@arguments_instead(
    decay="Use layer_decay=.",
    no_decay="Use no_weight_decay=.",
)
def discriminative(
    optimizer: keras.Optimizer,
    model_or_groups: keras.Model | LayerGroups,
    *,
    layer_decay: float | None = None,
    rates: Mapping[RateKey, float] | None = None,
    no_weight_decay: bool | Iterable[str] = False,
) -> keras.Optimizer:
    """Return an optimizer of the same kind with one rate factor for each layer group.

    The head trains at the optimizer's learning rate. Each group below it trains at
    `layer_decay` times the rate of the group above, because layers near the input have
    general features that need less change. The factor multiplies the update and the
    decoupled weight decay. It does not multiply the gradient, because Adam removes the
    scale of the gradient. There is still one `learning_rate`, so schedules and
    callbacks work as usual. Gradients are clipped jointly. The rows of a sparse
    gradient, as of an Embedding, are summed before they are squared, as in the papers.
    Keras squares each row first. This function corresponds to `multi_transform` with
    scaled learning rates in `optax`, and to a list of parameter groups in PyTorch.

    Args:
        optimizer: A Keras SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, Nadam, Lamb,
            Lion or Adafactor that has made no update yet. Its settings are copied.
        model_or_groups: The built model that will be fitted, or its `LayerGroups`.
        layer_decay: Float in (0, 1]. The factor of a group is `layer_decay ** depth`.
            The last group has depth 0, the group below it depth 1, and so on. Defaults
            to 0.9 if `rates` is None, else to 1.
        rates: Dict of factors above 0, which replace the factors of `layer_decay`. A
            key is a group name, or a pair `(group name, regular expression)` for the
            variables of the group whose path contains a match of the expression. If
            several keys match a variable, the last key counts. LoRA+ is
            `{("head", "lora_b"): 16.0}`. Defaults to None.
        no_weight_decay: Which variables get no weight decay. True: biases and the
            weights of normalization layers. A list of regular expressions: the
            variables whose path contains a match. Defaults to False.

    Returns:
        A new optimizer, of a subclass of the class of `optimizer`. Its `rates` are a
        dict of slot name to factor. `set_rates({...})` changes the factors between
        epochs without a retrace. Factors are saved and loaded by position.

    Raises:
        ValueError: If the class of the optimizer is not supported, if it has made
            updates, if a group is unknown, if a pattern matches nothing, if a rate has
            no effect, if a factor is not above 0, or if, in the scope of several
            replicas, the optimizer accumulates gradients or has an
            ema_overwrite_frequency (see `keras_transfer.distribute.check`).

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
        )
        adamw = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
        optimizer = kt.optimizers.discriminative(adamw, model, layer_decay=0.5)
        model.compile(optimizer, "mse")
        assert list(optimizer.rates.values()) == [0.5, 1.0]
        ```

    Reference:
        Howard and Ruder 2018, Universal Language Model Fine-tuning for Text
        Classification, arXiv:1801.06146, section 3.2. Hayou et al. 2024, LoRA+:
        Efficient Low Rank Adaptation of Large Models, arXiv:2402.12354.
    """
    check_supported(optimizer)
    check_settings(optimizer, replicas_here())
    groups = as_groups(model_or_groups)
    if layer_decay is None:
        layer_decay = 0.9 if rates is None else 1.0
    why = (
        "above 1, groups near the input would have the highest rate. If you want "
        "this, pass rates={group: factor}"
    )
    number("layer_decay", layer_decay, above=0, most=1, why=why)
    if rates is not None and not isinstance(rates, Mapping):
        raise TypeError(
            f"rates={rates!r} is not a dict of group name to factor. Pass a dict such "
            "as {'head': 2.0}."
        )
    depths = range(len(groups) - 1, -1, -1)
    factors = {
        name: check_rate(name, layer_decay**depth)
        for name, depth in zip(groups.names, depths, strict=True)
    }
    table = RateTable.of(
        groups, factors, optimizer, rates=rates, no_weight_decay=no_weight_decay
    )
    return with_rate_table(optimizer, table)


def with_rate_table(
    optimizer: keras.Optimizer, table: RateTable, **changed: object
) -> keras.Optimizer:
    """Return a new discriminative optimizer with the settings of `optimizer`."""
    kind = SUBCLASSES.get(type(optimizer), type(optimizer))
    return kind(**settings(optimizer) | {"layout": table} | changed)


def as_groups(model_or_groups: keras.Model | LayerGroups) -> LayerGroups:
    """Return the layer groups of a model, or the given layer groups unchanged."""
    if isinstance(model_or_groups, LayerGroups):
        return model_or_groups
    return layer_groups(model_or_groups)


def check_supported(optimizer: keras.Optimizer) -> None:
    """Check that the class of `optimizer` is supported and that it made no update.

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer.
        ValueError: If its class is not supported, or if it has made updates.
    """
    if not isinstance(optimizer, keras.Optimizer):
        raise TypeError(
            f"optimizer={optimizer!r} is not a Keras optimizer object. Pass an "
            "optimizer such as keras.optimizers.AdamW(1e-3)."
        )
    kind = type(optimizer)
    if kind not in SUBCLASSES:
        reason = REFUSED.get(kind.__name__, "its class is not supported")
        if isinstance(optimizer, Discriminative):
            reason = "it is discriminative already. Change its rates with set_rates()"
        names = [each.__name__ for each in SUBCLASSES]
        raise ValueError(
            f"{kind.__name__} cannot have rates by group: {reason}. The supported "
            f"classes are {names}, without their subclasses."
        )
    updates = value(optimizer.iterations)
    if updates > 0:
        raise ValueError(
            f"The {kind.__name__} has made {updates} updates. It has no update count "
            "and no factor for each variable, so its moments would be lost. Pass a new "
            "optimizer, or call compile() with a new optimizer. To load a model that "
            "was saved during GradualUnfreezing, use keras_transfer.resume(path)."
        )


class Discriminative:
    """Mixin with the rate table of all discriminative optimizers."""

    # Saved files have this argument in their config, so its name cannot change.
    def __init__(self, *args, layout: RateTable | Mapping, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(layout, RateTable):
            layout = RateTable.from_config(layout)
        self.rate_table = layout

    @property
    def rates(self) -> dict[str, float]:
        """The factor of each slot: a group, or `group:pattern`."""
        return dict(zip(self.rate_table.slots, self._slot_factors(), strict=True))

    def set_rates(self, rates: Mapping[RateKey, float]) -> None:
        """Change the factors of some slots, also for a compiled `fit`.

        Args:
            rates: Dict of factors above 0. The keys are keys of the property `rates`,
                or keys that were used in `discriminative(rates=)`.

        Raises:
            ValueError: If a key is unknown or a factor is not above 0.
        """
        new = self.rates
        for key, rate in rates.items():
            name = key if isinstance(key, str) else ":".join(key)
            if name not in new:
                raise ValueError(
                    f"There is no rate with the name {name!r}. {nearest(name, new)}"
                )
            new[name] = check_rate(name, rate)
        self.rate_table = self.rate_table.with_factors(new.values())
        if self.built:
            self._factors.assign(self.bound.row_factors(self.rate_table.factors))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the slots of `variables`, and assign a rate to each variable.

        Raises:
            ValueError: If a variable has no rate.
        """
        if self.built:
            return
        self.bound = self.rate_table.bind(variables).excluding(self)
        self.decay_mask = tuple(row.decays for row in self.bound.rows)
        self.initial_factors = np.array(self.bound.row_factors(self.rate_table.factors))
        super().build(variables)

    def get_config(self) -> dict:
        """Return the config of the parent class, with the rates by position."""
        table = self.rate_table
        if self.built:
            table = self.bound
        elif table.variables is not None:
            table = table.bind(table.trained_now()).excluding(self)
        table = table.with_factors(self._slot_factors())
        return super().get_config() | {"layout": table.to_config()}

    def _slot_factors(self) -> tuple[float, ...]:
        """Return the current factors, which a loaded state may have changed."""
        factors = list(self.rate_table.factors)
        if self.built:
            rows = zip(self.bound.rows, value(self._factors), strict=True)
            for row, factor in rows:
                if np.float32(factors[row.slot]) != factor:
                    factors[row.slot] = float(factor)
        return tuple(factors)


def _subclass(parent: type[keras.Optimizer], mixin: type) -> type[keras.Optimizer]:
    name = f"Discriminative{parent.__name__}"
    doc = f"{parent.__name__} with a learning rate factor for each layer group."
    kind = type(name, (Discriminative, mixin, parent), {"__doc__": doc})
    kind.__module__ = __name__
    return keras.saving.register_keras_serializable("keras_transfer")(kind)


_parents = keras.optimizers
SUBCLASSES = {
    parent: _subclass(parent, mixin)
    for parent, mixin in (
        (_parents.SGD, VariableRates),
        (_parents.Adam, VariableRates),
        (_parents.AdamW, VariableRates),
        (_parents.RMSprop, VariableRates),
        (_parents.Adagrad, VariableRates),
        (_parents.Adamax, VariableRates),
        (_parents.Nadam, NadamRates),
        (_parents.Lamb, VariableRates),
        (_parents.Lion, VariableRates),
        (_parents.Adafactor, AdafactorRates),
    )
}

# Why other Keras optimizers cannot have factors.
REFUSED = {
    "Ftrl": "it divides by the learning rate",
    "Muon": "it has its own two weight decays, which a factor would not change",
    "ScheduleFreeAdamW": "its averaged weights are not scaled by the learning rate",
    "Adadelta": "its step size does not come from the learning rate",
    "LossScaleOptimizer": "pass its inner_optimizer, which Keras wraps again",
    "MultiOptimizer": "it already has one optimizer and one clipping for each group",
}
