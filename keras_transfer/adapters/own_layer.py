"""OwnLayer: a layer of an adapter's own, which computes in place of its host."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.layer_paths import weights_of


@keras.saving.register_keras_serializable("keras_transfer")
class OwnLayer(Part):
    """All weights of a layer once more: in place of the host's while the gate is on.

    The host computes as its class does, with the weights of this part instead of its
    own, which are frozen. They start with the host's values. PEFT calls such layers
    `modules_to_save`.

    In training only the one that is in use computes, so that no other has a gradient,
    and no BatchNormalization but its own moves its averages. In inference the gate is
    asked as the graph runs, so that none goes stale. It is asked when the graph is
    traced where a Dense has another number of units than its host, and where a layer
    adds losses or sets a mask as it computes.

    Args:
        frozen: Names of the weights that do not learn: averages, counts.
        units: Number of outputs, where the host is a Dense and has others. Default
            None, for the host's.
        name: Name of the adapter.
        dtype: Policy of the computation, the host's.
    """

    replaces = True
    # Whether the gate can be asked only when a graph is traced.
    asked_early = False

    def __init__(
        self,
        frozen: Sequence[str] = (),
        units: int | None = None,
        name: str = "default",
        dtype: object = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.frozen = list(frozen)
        self.units = units

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return those of the host, each starting with its value."""
        return {
            own_name(key): (self.shape(variable), self._start(variable))
            for key, variable in weights_below(host).items()
        }

    def create_weights(self, host: keras.Layer) -> None:
        """Make the weights, each of the kind of the one that it stands for."""
        # Now, since the host has these units for the time of a call.
        self.__dict__["other_width"] = self.units not in (None, _units(host))
        self.__dict__["asked_early"] = self.other_width
        specs = self.weight_specs(host)
        for key, variable in weights_below(host).items():
            shape, initializer = specs[own_name(key)]
            _keras.weight_like(
                self,
                variable,
                name=own_name(key),
                shape=shape,
                initializer=initializer,
                trainable=own_name(key) not in self.frozen,
            )
        self.__dict__["host"] = weakref.ref(host)
        self.__dict__["start"] = self._digest()

    def shape(self, variable: keras.Variable) -> tuple[int, ...]:
        """Return the shape of what stands for `variable` of the host."""
        shape = tuple(variable.shape)
        return shape if self.units is None else (*shape[:-1], self.units)

    def stands_for(
        self, host: keras.Layer
    ) -> list[tuple[keras.Layer, keras.Variable, keras.Variable]]:
        """Return the layers in the host, each with a weight and its substitute."""
        mine = self.named_weights
        owners = {
            id(variable): layer
            for layer in layers_of(host).values()
            for variable in _keras.own_weights(layer)
        }
        return [
            (owners[id(variable)], variable, mine[own_name(key)])
            for key, variable in weights_below(host).items()
        ]

    def instead(
        self,
        host: keras.Layer,
        otherwise: Callable[[], object],
        compute: Callable[[], object],
        *,
        now: bool,
    ) -> object:
        """Return what the host computes with these weights, or `otherwise()`.

        Args:
            host: The layer.
            otherwise: What the host computes where this part is not in use.
            compute: What its class computes with the weights that it has.
            now: Whether the gate is asked now and not when a traced graph runs.
        """
        own = functools.partial(self.computed, host, compute)
        if not now:
            gate = ops.cast(self.gate, "bool")
            outputs, complete = _keras.either(host, gate, own, otherwise)
            if complete:
                return outputs
            self.__dict__["asked_early"] = True
        return own() if _keras.value_now(self.gate) else otherwise()

    def computed(self, host: keras.Layer, compute: Callable[[], object]) -> object:
        """Return `compute()` with these weights in place of the host's."""
        settings = [(host, {"units": self.units})] if self.other_width else []
        with _keras.exchanged(self, self.stands_for(host), settings):
            return compute()

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Put these weights in place of the host's."""
        if not gate_value(self):
            return
        if self.other_width:
            raise ValueError(
                f"The adapter {self.name!r} has {host.name!r} with {self.units} "
                f"outputs, and the model with {host.units}: the one's weights cannot "
                "take the place of the other's. Save the adapter by kt.save_adapter "
                f"and load it into a model with {self.units} outputs; or keep it: "
                "kt.export_serving takes it as it is."
            )
        mine = self.named_weights
        for key in weights_below(host):
            new = _keras.value(mine[own_name(key)])
            weights[key] = new.astype(weights[key].dtype)

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return the layer whose change from the host's is the sum of the changes."""
        widths = {part.name: part.units or _units(host) for part, _ in others}
        rest = 1.0 - sum(weight for _, weight in others)
        rest = 0.0 if abs(rest) < 1e-9 else rest
        new = type(self)(self.frozen, self.units, name)
        new.create(host)
        if len(set(widths.values())) > 1 or (rest and new.other_width):
            raise ValueError(
                f"The adapters' own {host.name!r} have {widths} outputs, and the "
                f"model's {_units(host)}. Their changes from it have a sum only where "
                "all are of one width, and the weights add up to 1 where that is not "
                "the model's."
            )
        for key, variable in weights_below(host).items():
            total = _keras.value(variable) * rest if rest else 0.0
            for part, weight in others:
                total = total + weight * _keras.value(part.named_weights[own_name(key)])
            new.named_weights[own_name(key)].assign(total)
        return new

    def load_own_variables(self, store: dict) -> None:
        """Load what is there. With weights of the base model alone start from them.

        Only where nothing was learned: what was stays, as pairs do.
        """
        super().load_own_variables(store)
        if not store.keys() and not self.other_width and self._digest() == self.start:
            # The host's own weights are loaded before those of what is below it.
            for _, variable, mine in self.stands_for(self.__dict__["host"]()):
                mine.assign(variable)
            self.__dict__["start"] = self._digest()

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"frozen": self.frozen, "units": self.units}

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for variable in self.named_weights.values():
            digest.update(_keras.value(variable).tobytes())
        return digest.hexdigest()

    def _start(self, variable: keras.Variable) -> Callable:
        if self.shape(variable) != tuple(variable.shape):
            return keras.initializers.Zeros()

        def start(shape: tuple, dtype: object = None) -> object:
            return ops.convert_to_tensor(_keras.value(variable), dtype)

        return start


def layers_of(host: keras.Layer) -> dict[str, keras.Layer]:
    """Return the layers that `host` is, with its weights, by their path below it.

    That is the layer itself, and where it is recurrent its cell, of which a fused
    kernel reads the weights without calling it.
    """
    layers = {"": host}
    if isinstance(host, keras.layers.RNN):
        inner = located(host.cell).items()
        ours = {
            id(below)
            for _, layer in inner
            if isinstance(layer, Part)
            for below in _keras.flat_layers(layer)
        }
        layers |= {joined("cell", k): x for k, x in inner if id(x) not in ours}
    return layers


def weights_below(host: keras.Layer) -> dict[str, keras.Variable]:
    """Return the weights of `layers_of(host)` by path and name."""
    return {
        joined(path, name): variable
        for path, layer in layers_of(host).items()
        for name, variable in weights_of(layer).items()
    }


def own_name(key: str) -> str:
    """Return the name that a weight of the host, by its key, has in the part."""
    name = key.replace("#", "_").replace("/", ".")
    return f"host_{name}" if name == "gate" else name


def _units(host: keras.Layer) -> int | None:
    return getattr(host, "units", None)
