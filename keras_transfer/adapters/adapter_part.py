"""Part: the weights and hooks that one adapter adds to one layer."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.peft_format import PeftTensor

# The methods with which a part or a low-rank pair computes.
COMPUTATION = (
    *("on_inputs", "on_outputs", "on_result", "on_return"),
    *("dropped", "scaled", "factors"),
)


@keras.saving.register_keras_serializable("keras_transfer")
class Part(keras.layers.Layer):
    """The weights that one adapter adds to one layer, and a gate.

    A part is a sublayer of the layer that it adapts (the host), under the name of the
    adapter. The part is never called. The host calls the hooks of the part in this
    order, and each hook may change the values:

        inputs = part.on_inputs(inputs)
        outputs = host's own computation without its activation
        outputs = part.on_outputs(inputs, outputs)
        outputs = activation(outputs)
        outputs = part.on_result(outputs)
        outputs = part.on_return(inputs, outputs)

    Each hook must be the identity if the gate is 0. The gate is a variable: 1 for the
    adapter in use, 0 for all others. So traced graphs stay valid when another adapter
    is used.

    To add a technique, subclass this class and register the subclass. Name the weights
    in `weight_specs`, and use them in a hook. Each weight is an attribute of its name.
    If the weights can be merged into the host's own weights, override `fold`.

    Args:
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. The weights are always float32. Defaults
            to None.
    """

    # The public layer class that the host becomes an instance of, or None.
    layer_class: type | None = None
    # Whether the part changes the computation as other weights of the host would.
    in_weights = True
    # Whether the part also takes effect where other layers read the host's weights.
    in_reads = False
    # Whether the gate is read when a graph is traced, not when it runs.
    asked_early = False
    # Whether the part computes instead of its host, as `OwnLayer`, and has no hooks.
    replaces = False
    # Suffix of a tensor's name in the files of Hugging Face PEFT -> its weight.
    peft_tensors: Mapping[str, PeftTensor] = {}
    # The same for a part that changes the inputs of its host instead of the outputs.
    peft_inputs: Mapping[str, PeftTensor] = {}

    def __init__(self, name: str = "default", dtype: object = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.supports_masking = True

    def create(self, host: keras.Layer) -> None:
        """Create the weights for a built `host`.

        Raises:
            ValueError: If the weights differ from `weight_specs`.
        """
        self.dtype_policy = policy_of(host)
        with _keras.inner_scope(host):
            self.gate = self.weight("gate", (), "ones", trainable=False)
            self.create_weights(host)
        self._check_weights(host)
        # The weights that train while this adapter is in use, not tracked by Keras.
        self.__dict__["learning"] = _keras.learnable(self)
        self.built = True

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return a dict from the name of each weight to its shape and initializer.

        List all weights here, also the weights of an overridden `create_weights`. The
        tensors of a file are compared with this dict before weights are created. Use
        `drawn` for random initializers.
        """
        return {}

    def create_weights(self, host: keras.Layer) -> None:
        """Create the weights of `weight_specs`, each as an attribute of its name."""
        for name, (shape, initializer) in self.weight_specs(host).items():
            setattr(self, name, self.weight(name, shape, initializer))

    def weight(
        self, name: str, shape: tuple, initializer: object, *, trainable: bool = True
    ) -> keras.Variable:
        """Create a float32 weight of this part, which is saved under its name."""
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
        """The weights that an adapter file stores, by name, without the gate."""
        own = _keras.own_weights(self)
        return {each.name: each for each in own if each is not self.gate}

    def on_inputs(self, host: keras.Layer, inputs: object) -> object:
        """Return the inputs for the host's computation."""
        return inputs

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Return the inputs for the host's activation."""
        return outputs

    def on_result(self, host: keras.Layer, outputs: object) -> object:
        """Return the result of the host."""
        return outputs

    def on_return(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Return what the host returns. Only this hook may change the length."""
        return outputs

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Change `weights` to weights that compute the same without this part.

        Merging calls this for parts whose gate is not 0. `weights` contains the host's
        own weights by name, as float32 arrays, or float64 for a float64 host. A class
        that overrides a hook has to override this method too, see `check_overrides`.

        Raises:
            ValueError: If the part cannot be merged.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be merged into the weights of "
            f"{host.name!r}. Keep the adapter, or remove it with "
            "kt.adapters.detach(model)."
        )

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return a new part for `host` that equals a weighted sum of parts.

        Raises:
            ValueError: If the technique has no weighted sum.
        """
        raise ValueError(
            f"{type(self).__name__} has no weighted sum, because its result is not "
            "linear in its weights. Use one of the adapters instead."
        )

    def low_rank_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return A and B if this part adds `inputs A B` to the outputs and no more.

        The rank is the last axis of A and the first axis of B. An export stacks the
        pairs of several adapters and chooses one for each example. A class that
        overrides a hook has to override this method too, see `check_overrides`. The
        same is true for `joined` of a pair.

        Raises:
            ValueError: If the part adds something else.
        """
        raise ValueError(
            f"The adapter {self.name!r} has a {type(self).__name__}, which does not "
            "add a product of the inputs with a low-rank pair."
        )

    def save_own_variables(self, store: dict) -> None:
        """Store each weight under its name."""
        for variable in _keras.own_weights(self):
            store[variable.name] = variable

    def load_own_variables(self, store: dict) -> None:
        """Load the stored weights. A file of the base model stores none."""
        names = set(store.keys())
        own = {each.name: each for each in _keras.own_weights(self)}
        if names and names != set(own):
            raise ValueError(
                f"The file has the weights {sorted(names)} for the adapter "
                f"{self.name!r}, but the adapter has {sorted(own)}. The file was saved "
                "with another technique. Attach that technique before loading."
            )
        for name in names:
            own[name].assign(store[name])

    def _check_weights(self, host: keras.Layer) -> None:
        specs = self.weight_specs(host)
        declared = {name: tuple(shape) for name, (shape, _) in specs.items()}
        made = {name: tuple(v.shape) for name, v in self.named_weights.items()}
        if made != declared:
            raise ValueError(
                f"{type(self).__name__} has created the weights {made} for "
                f"{host.name!r}, but `weight_specs` declares {declared}. So a file of "
                "the weights could not be loaded. Return the name, shape and "
                "initializer of each weight from `weight_specs(host)`. "
                "`create_weights` then creates them."
            )

    def get_build_config(self) -> None:
        """Return nothing, because the host creates the weights."""

    def get_config(self) -> dict:
        """Return the constructor arguments without `dtype`, which the host sets."""
        return {"name": self.name}


def uniform() -> dict:
    """Return the initializer of torch's `kaiming_uniform_(a=sqrt(5))`.

    It is uniform in +-1/sqrt(fan in).
    """
    return drawn("VarianceScaling", scale=1 / 3, mode="fan_in", distribution="uniform")


def drawn(kind: str, **config: object) -> dict:
    """Return the config of a random initializer, instead of an initializer object.

    An object draws its seed when it is created, so calling `weight_specs` would draw
    seeds. And two weights of the same shape would get equal values from one object. A
    config gets a new seed for each weight.
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
    """Return the parts of the adapter `name`, without its own layers.

    `Adapter.link` connects these parts.
    """
    return [p for _, p in all_parts(model) if p.name == name and not p.replaces]


def add(host: keras.Layer, part: Part) -> None:
    """Make a created `part` a sublayer of `host`."""
    _keras.add_child(host, attribute(part.name), part)


def take_away(host: keras.Layer, part: Part) -> None:
    """Undo `add`. The gate is set to 0, so functions traced with it stay valid."""
    part.gate.assign(0.0)
    _keras.remove_child(host, attribute(part.name))


def attribute(name: str) -> str:
    """Return the name of the host's attribute for the part of adapter `name`."""
    return f"adapter_{name}"


def check_overrides(part: Part, method: str) -> None:
    """Check that no class overrides a hook of `part` and inherits `method`.

    A subclass that overrides a hook changes the computation. An inherited `method` (or
    attribute of this name) then describes the computation of the parent class.

    Raises:
        ValueError: If a class overrides a hook and inherits `method`.
    """
    classes = type(part).__mro__

    def depth(name: str) -> int:
        owners = (i for i, kind in enumerate(classes) if name in vars(kind))
        return next(owners, len(classes))

    changed = [name for name in COMPUTATION if depth(name) < depth(method)]
    # The methods of `Part` itself only raise, so they are right for each computation.
    if changed and classes[depth(method)] is not Part:
        raise ValueError(
            f"The adapter {part.name!r} has a {type(part).__name__}, which overrides "
            f"{changed}, but inherits `{method}` from {classes[depth(method)].__name__}"
            f", which has another computation. Override `{method}` as well. If the "
            "inherited method is still correct, write "
            f"`{method} = {classes[depth(method)].__name__}.{method}`."
        )


def gate_value(part: Part) -> float:
    """Return the gate as a number."""
    return float(_keras.value(part.gate))


def policy_of(host: keras.Layer) -> keras.DTypePolicy:
    """Return an unquantized policy with the host's compute dtype, float32 weights."""
    compute = host.compute_dtype
    whole = compute in ("float32", "float64")
    return keras.DTypePolicy(compute if whole else f"mixed_{compute}")
