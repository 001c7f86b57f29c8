"""Part: what one adapter adds to one layer, and the hooks by which it does so."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.peft_format import PeftTensor

# The methods by which a part, or a low-rank pair, computes.
COMPUTATION = (
    *("on_inputs", "on_outputs", "on_result"),
    *("dropped", "scaled", "factors"),
)


@keras.saving.register_keras_serializable("keras_transfer")
class Part(keras.layers.Layer):
    """What one adapter adds to one layer: some small weights, and a gate.

    A part is a sublayer of the layer that it adapts (the host), under the name of the
    adapter. It is never called; the host calls its hooks, in this order, and each may
    change what passes:

        inputs = part.on_inputs(inputs)
        outputs = host's own computation without its activation
        outputs = part.on_outputs(inputs, outputs)
        outputs = activation(outputs)
        outputs = part.on_result(outputs)

    Every hook must be the identity where the gate is 0. The gate is a variable (1 for
    the adapter in use, 0 for the others), so that no traced graph goes stale when
    another is used.

    A technique subclasses this, registers the subclass, names its weights in
    `weight_specs`, uses them in a hook (each is an attribute of its name), and says in
    `fold` how they go into the host's own weights, if they can.

    Args:
        name: Name of the adapter.
        dtype: Policy of the computation. The weights are float32 always.
    """

    # The public layer class that a host becomes an instance of; None for none.
    layer_class: type | None = None
    # Whether what it does stands for other weights of the host.
    in_weights = True
    # Whether it counts wherever a weight of the host is read, the host called or not.
    in_reads = False
    # Whether it computes in place of its host, as `OwnLayer` does, and has no hooks.
    replaces = False
    # Its weights in the files of Hugging Face PEFT, by the ends of their names there.
    peft_tensors: Mapping[str, PeftTensor] = {}

    def __init__(self, name: str = "default", dtype: object = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.supports_masking = True

    def create(self, host: keras.Layer) -> None:
        """Make the weights for a built `host`.

        Raises:
            ValueError: If they are not those of `weight_specs`.
        """
        self.dtype_policy = policy_of(host)
        with _keras.inner_scope(host):
            self.gate = self.weight("gate", (), "ones", trainable=False)
            self.create_weights(host)
        self._check_weights(host)
        # What learns while this adapter is in use; not an attribute that Keras tracks.
        self.__dict__["learning"] = _keras.learnable(self)
        self.built = True

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return shape and initializer of each of the technique's weights by name.

        All are to be here, also those that a `create_weights` of its own makes: what a
        file has for this part is compared with them before any is made. One that is
        random is given by `drawn`.
        """
        return {}

    def create_weights(self, host: keras.Layer) -> None:
        """Make the weights of `weight_specs`, as attributes of their names."""
        for name, (shape, initializer) in self.weight_specs(host).items():
            setattr(self, name, self.weight(name, shape, initializer))

    def weight(
        self, name: str, shape: tuple, initializer: object, *, trainable: bool = True
    ) -> keras.Variable:
        """Return a new float32 weight of this part, saved under its name."""
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=trainable,
            aggregation="none" if trainable else "only_first_replica",
            name=name,
        )

    @property
    def named_weights(self) -> dict[str, keras.Variable]:
        """The technique's weights by name: what an adapter file keeps; no gate."""
        own = _keras.own_weights(self)
        return {each.name: each for each in own if each is not self.gate}

    def on_inputs(self, host: keras.Layer, inputs: object) -> object:
        """Return what the host is to compute with."""
        return inputs

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Return what is to pass through the host's activation."""
        return outputs

    def on_result(self, host: keras.Layer, outputs: object) -> object:
        """Return the result of the host."""
        return outputs

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Change `weights`, the host's own by name, to what does the same alone.

        Called for parts whose gate is not 0, with float32 arrays, or float64
        for a host of that dtype. A class that
        overrides a hook says anew how it folds, see `check_overrides`.

        Raises:
            ValueError: If it cannot be done; it says why.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be folded into the weights of "
            f"{host.name!r}. Keep the adapter, or remove it with "
            "kt.adapters.detach(model)."
        )

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return a new part, made for `host`, equal to a weighted sum of parts.

        Raises:
            ValueError: If the technique knows no such sum.
        """
        raise ValueError(
            f"{type(self).__name__} has no weighted sum: what it does is not linear in "
            "its weights."
        )

    def low_rank_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return A and B, if `inputs A B` is all that this part adds to the outputs.

        The rank is the last axis of A and the first of B. Pairs of several adapters can
        be stacked, and one chosen for each example. A class that overrides a hook says
        anew whether this is so, see `check_overrides`; the same for `joined` of a pair.

        Raises:
            ValueError: If it does something else.
        """
        raise ValueError(
            f"The adapter {self.name!r} has a {type(self).__name__}, which adds no "
            "product of its inputs with a low-rank pair."
        )

    def save_own_variables(self, store: dict) -> None:
        """Store each weight under its name."""
        for variable in _keras.own_weights(self):
            store[variable.name] = variable

    def load_own_variables(self, store: dict) -> None:
        """Load what is there. A file of the base model alone has nothing for us."""
        names = set(store.keys())
        own = {each.name: each for each in _keras.own_weights(self)}
        if names and names != set(own):
            raise ValueError(
                f"The file has the weights {sorted(names)} for the adapter "
                f"{self.name!r}, which has {sorted(own)}. It was saved with another "
                "technique."
            )
        for name in names:
            own[name].assign(store[name])

    def _check_weights(self, host: keras.Layer) -> None:
        specs = self.weight_specs(host)
        declared = {name: tuple(shape) for name, (shape, _) in specs.items()}
        made = {name: tuple(v.shape) for name, v in self.named_weights.items()}
        if made != declared:
            raise ValueError(
                f"{type(self).__name__} has made the weights {made} for "
                f"{host.name!r}, but declares {declared}, so that no file of them "
                "could be loaded. Return the name, shape and initializer of each from "
                "`weight_specs(host)`; `create_weights` then makes them."
            )

    def get_build_config(self) -> None:
        """Return nothing: the host makes the weights."""

    def get_config(self) -> dict:
        """Return the constructor's arguments but `dtype`, which is the host's."""
        return {"name": self.name}


def uniform() -> dict:
    """Return the start of torch's `kaiming_uniform_(a=sqrt(5))`, +-1/sqrt(fan in)."""
    return drawn("VarianceScaling", scale=1 / 3, mode="fan_in", distribution="uniform")


def drawn(kind: str, **config: object) -> dict:
    """Return a random initializer that gets its seed when the weight is made.

    An object has it from the start: specs that are only asked for would draw seeds,
    and weights of one shape with one object would be equal.
    """
    return {"class_name": kind, "config": config}


def parts_of(host: keras.Layer) -> list[Part]:
    """Return the parts of one layer, in the order of attaching."""
    return [each for each in _keras.sublayers(host) if isinstance(each, Part)]


def all_parts(model: keras.Layer) -> Iterator[tuple[keras.Layer, Part]]:
    """Yield (host, part) for all parts in or below `model`."""
    for layer in _keras.flat_layers(model):
        for part in parts_of(layer):
            yield layer, part


def added_by(model: keras.Layer, name: str) -> list[Part]:
    """Return what the technique of the adapter `name` has added, no layers of its own.

    These are the parts that `Adapter.link` connects.
    """
    return [p for _, p in all_parts(model) if p.name == name and not p.replaces]


def add(host: keras.Layer, part: Part) -> None:
    """Make a created `part` a sublayer of `host`."""
    _keras.add_child(host, attribute(part.name), part)


def take_away(host: keras.Layer, part: Part) -> None:
    """Undo `add`. What was traced with the part stays right: with a gate of 0."""
    part.gate.assign(0.0)
    _keras.remove_child(host, attribute(part.name))


def attribute(name: str) -> str:
    """Return the attribute of a host that holds the part of adapter `name`."""
    return f"adapter_{name}"


def check_overrides(part: Part, method: str) -> None:
    """Check that `method` is of the class that says what `part` computes, or below.

    A subclass that overrides a hook alone computes something else than what `method`
    (or the attribute of this name), which it inherits, says.

    Raises:
        ValueError: If that is so.
    """
    classes = type(part).__mro__

    def depth(name: str) -> int:
        owners = (i for i, kind in enumerate(classes) if name in vars(kind))
        return next(owners, len(classes))

    changed = [name for name in COMPUTATION if depth(name) < depth(method)]
    # What `Part` itself has is no computation: it refuses.
    if changed and classes[depth(method)] is not Part:
        raise ValueError(
            f"The adapter {part.name!r} has a {type(part).__name__}, which overrides "
            f"{changed}, but inherits `{method}` from {classes[depth(method)].__name__}"
            ": that is of another computation. Override it as well; where it still "
            f"holds, by `{method} = {classes[depth(method)].__name__}.{method}`."
        )


def gate_value(part: Part) -> float:
    """Return the gate as a number."""
    return float(_keras.value(part.gate))


def policy_of(host: keras.Layer) -> keras.DTypePolicy:
    """Return the policy that computes as `host`, with float32 weights, unquantized."""
    compute = host.compute_dtype
    whole = compute in ("float32", "float64")
    return keras.DTypePolicy(compute if whole else f"mixed_{compute}")
