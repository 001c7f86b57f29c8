"""OwnLayer: an adapter's own copy of a layer, which computes instead of the layer."""

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
    """A copy of a layer's weights, used instead of the host's weights if the gate is 1.

    The host's own weights are frozen. This part's weights start with the host's values,
    and the host computes with them as usual. PEFT calls such layers `modules_to_save`.

    In training only the part in use computes. So the other parts get no gradient, and
    only the part's own BatchNormalization updates its averages. In inference the graph
    reads the gate each time it runs, so graphs stay valid. In two cases the gate is
    read when the graph is traced: if a Dense has another number of units than its host,
    and if a layer adds losses or sets a mask while it computes.

    Args:
        frozen: Names of the weights that do not train, such as averages and counts.
            Defaults to `()`.
        units: Number of outputs of a Dense, if it differs from the host's. Defaults to
            None, for the host's number.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation, as in the host. Defaults to None.
    """

    replaces = True

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
        """Return specs for copies of the host's weights, with the host's values."""
        return {
            own_name(key): (self.shape(variable), self._start(variable))
            for key, variable in weights_below(host).items()
        }

    def create_weights(self, host: keras.Layer) -> None:
        """Create a copy of each weight of the host."""
        # Compare now, because a call sets the host's `units` temporarily.
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
        """Return the shape of the copy of the host's `variable`."""
        shape = tuple(variable.shape)
        return shape if self.units is None else (*shape[:-1], self.units)

    def stands_for(
        self, host: keras.Layer
    ) -> list[tuple[keras.Layer, keras.Variable, keras.Variable]]:
        """Return (layer in the host, its weight, the copy here) for each weight."""
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
        """Return the host's outputs with these weights, or `otherwise()`.

        Args:
            host: The layer.
            otherwise: Function that computes the outputs if this part is not in use.
            compute: Function that computes the outputs with the host's current weights.
            now: Whether to read the gate now instead of when a traced graph runs.
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
        """Return `compute()` with these weights instead of the host's."""
        settings = [(host, {"units": self.units})] if self.other_width else []
        with _keras.exchanged(self, self.stands_for(host), settings):
            return compute()

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Replace the host's weights with these weights."""
        if not gate_value(self):
            return
        if self.other_width:
            raise ValueError(
                f"The adapter {self.name!r} has its own {host.name!r} with "
                f"{self.units} outputs, but the model's {host.name!r} has "
                f"{host.units} outputs, so the adapter cannot be merged. Save it with "
                "kt.save_adapter and load it into a model with "
                f"{self.units} outputs. Or keep the adapter, because kt.export_serving "
                "can export it without merging."
            )
        mine = self.named_weights
        for key in weights_below(host):
            new = _keras.value(mine[own_name(key)])
            weights[key] = new.astype(weights[key].dtype)

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return a part whose change from the host is the weighted sum of the changes.

        Raises:
            ValueError: If the parts differ in their number of outputs.
        """
        widths = {part.name: part.units or _units(host) for part, _ in others}
        rest = 1.0 - sum(weight for _, weight in others)
        rest = 0.0 if abs(rest) < 1e-9 else rest
        new = type(self)(self.frozen, self.units, name)
        new.create(host)
        if len(set(widths.values())) > 1 or (rest and new.other_width):
            raise ValueError(
                f"The adapters' own {host.name!r} have {widths} outputs, and the "
                f"model's {host.name!r} has {_units(host)}. To be summed, all adapters "
                "need the same number of outputs. If the model has another number, the "
                "weights have to add up to 1."
            )
        for key, variable in weights_below(host).items():
            total = _keras.value(variable) * rest if rest else 0.0
            for part, weight in others:
                total = total + weight * _keras.value(part.named_weights[own_name(key)])
            new.named_weights[own_name(key)].assign(total)
        return new

    def load_own_variables(self, store: dict) -> None:
        """Load the stored weights.

        A file of the base model stores none. Then an untrained part starts from the
        host's new weights, and a trained part does not change, as with pairs.
        """
        super().load_own_variables(store)
        if not store.keys() and not self.other_width and self._digest() == self.start:
            # Keras loads the host's own weights before the weights of its sublayers.
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
    """Return the layers that have the weights of `host`, by their path below it.

    These are the layer itself and, for a recurrent layer, its cell. A fused kernel
    reads the cell's weights without calling the cell.
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
    """Return the part's name for the host's weight with the key `key`."""
    name = key.replace("#", "_").replace("/", ".")
    return f"host_{name}" if name == "gate" else name


def _units(host: keras.Layer) -> int | None:
    return getattr(host, "units", None)
