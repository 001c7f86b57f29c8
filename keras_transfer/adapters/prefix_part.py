"""PrefixPart: the trained keys and values of one attention layer."""

from __future__ import annotations

import weakref

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import drawn
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import uniform
from keras_transfer.adapters.attention_layers import sizes_of
from keras_transfer.adapters.positions import check_length
from keras_transfer.adapters.positions import rows_from
from keras_transfer.adapters.prefixed_attention import PrefixedAttention

# The standard deviation of the keys and values at the start, as the embeddings of BERT
# and GPT-2.
STDDEV = 0.02


@keras.saving.register_keras_serializable("keras_transfer")
class PrefixPart(Part):
    """Keys and values that an attention layer attends to before the text's.

    Args:
        tokens: Number of keys, 1 or more.
        projection: Width of the network that computes the keys and values in training,
            or None for keys and values that train themselves. Defaults to None.
        width: Number of features of the network's inputs. Defaults to None, for parts
            without a network.
        leads: Whether this part has the inputs and the first layer of the network,
            which all parts of an adapter share. Defaults to False.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    layer_class = PrefixedAttention
    in_weights = False

    def __init__(
        self,
        tokens: int,
        projection: int | None = None,
        width: int | None = None,
        leads: bool = False,
        name: str = "default",
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        self.tokens = tokens
        self.projection = projection
        self.width = width
        self.leads = leads

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the keys and values, or the weights of the network."""
        heads = sizes_of(host)
        start = drawn("RandomNormal", mean=0.0, stddev=STDDEV)
        of_keys = (heads.heads, heads.of_key)
        of_values = (heads.heads, heads.of_value)
        if self.projection is None:
            return {
                "prefix_keys": ((self.tokens, *of_keys), start),
                "prefix_values": ((self.tokens, *of_values), start),
            }
        size = heads.heads * (heads.of_key + heads.of_value)
        own = {
            "prefix_up": ((self.projection, size), uniform()),
            "prefix_up_bias": ((size,), "zeros"),
        }
        shared = {
            "prefix_inputs": (
                (self.tokens, self.width),
                drawn("RandomNormal", mean=0.0, stddev=1.0),
            ),
            "prefix_down": ((self.width, self.projection), uniform()),
            "prefix_down_bias": ((self.projection,), "zeros"),
        }
        return (shared if self.leads else {}) | own

    def create_weights(self, host: keras.Layer) -> None:
        """Create the weights. `follow` tells other parts where the shared ones are."""
        super().create_weights(host)
        self.__dict__["heads"] = sizes_of(host)
        self.follow(self)

    def follow(self, leader: PrefixPart) -> None:
        """Compute with the shared weights of `leader`."""
        self.__dict__["leader"] = weakref.ref(leader)

    def pair(self, batch: object, dtype: object) -> tuple[object, object]:
        """Return the keys and values with the axes (batch, token, head, feature)."""
        return tuple(
            ops.broadcast_to(ops.cast(x, dtype), (batch, *x.shape))
            for x in self.keys_and_values()
        )

    def keys_and_values(self) -> tuple[object, object]:
        """Return the keys and values with the axes (token, head, feature)."""
        if self.projection is None:
            return (
                ops.convert_to_tensor(self.prefix_keys),
                ops.convert_to_tensor(self.prefix_values),
            )
        first = self.__dict__["leader"]()
        hidden = ops.matmul(first.prefix_inputs, first.prefix_down)
        hidden = ops.tanh(hidden + first.prefix_down_bias)
        both = ops.matmul(hidden, self.prefix_up) + self.prefix_up_bias
        heads = self.heads
        of_keys = heads.heads * heads.of_key
        return (
            ops.reshape(both[:, :of_keys], (self.tokens, heads.heads, heads.of_key)),
            ops.reshape(both[:, of_keys:], (self.tokens, heads.heads, heads.of_value)),
        )

    def folded(self, host: keras.Layer) -> PrefixPart:
        """Return a new part whose weights are the keys and values of this part."""
        values = [np.asarray(ops.convert_to_numpy(x)) for x in self.keys_and_values()]
        new = type(self)(self.tokens, name=self.name)
        new.create(host)
        new.prefix_keys.assign(values[0])
        new.prefix_values.assign(values[1])
        new.gate.assign(_keras.value(self.gate))
        return new

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Refuse, because no weight of the host can replace further keys."""
        raise ValueError(
            f"The prefix {self.name!r} of {host.name!r} cannot be merged. Each query "
            "also attends to its keys, and no weight of the layer can replace them. "
            "Keep the adapter, or remove it with kt.adapters.detach(model). "
            "kt.adapters.fold_projection merges only the network of a prefix."
        )

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("tokens", "projection", "width", "leads")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("keras_transfer")
class PrefixPositions(Part):
    """Positions of a text that begin after the prefix, as in PEFT.

    Args:
        tokens: Number of positions before the text, 1 or more.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    in_weights = False

    def __init__(
        self, tokens: int, name: str = "default", dtype: object = None
    ) -> None:
        super().__init__(name, dtype)
        self.tokens = tokens

    def on_inputs(self, host: keras.Layer, inputs: object) -> object:
        """Check that there is a position for each token."""
        if inputs.shape[1] is not None and _keras.value_now(self.gate):
            check_length(host, inputs.shape[1], self)
        return inputs

    def on_return(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Return the positions from the end of the prefix on, if the gate is 1."""
        start = kwargs.get("start_index", 0) + self.tokens * ops.cast(
            self.gate, "int32"
        )
        return rows_from(host, start, outputs)

    # A prefix cannot be merged either.
    fold = PrefixPart.fold

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"tokens": self.tokens}
