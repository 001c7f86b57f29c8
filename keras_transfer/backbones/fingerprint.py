"""Fingerprints of a network and of data; equal fingerprints mean equal features."""

import hashlib
import json
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.backbones.addresses import by_names

# Keys of a config that the features in inference do not depend on.
UNIMPORTANT = ("trainable", "build_config", "compile_config", "shared_object_id")
# A config names the module of a class. For modules that moved, the fingerprint uses
# the old name, so features that were cached before the move stay valid.
BEFORE = dict.fromkeys(
    (
        "keras_transfer.adapters.in_place.adapted_layer",
        "keras.adapters of keras_transfer (run `import keras_transfer` first)",
    ),
    "keras_transfer.adapters.upgrade",
)


def of_network(network: keras.Model) -> str:
    """Return a fingerprint of the config and weights of a network.

    Default names with numbers, such as `dense_7`, and trainable flags do not count, so
    two builds of the same network have the same fingerprint. For a network without a
    config, the classes of its layers replace the config.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_architecture(network).encode())
    for weight in network.weights:
        value = _keras.value(weight)
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


class RowDigest:
    """A fingerprint of rows in order, independent of the batch size."""

    def __init__(self) -> None:
        self._digests = []
        self._kinds = []

    def update(self, structure: object) -> None:
        """Add the rows of a structure of arrays, each `(rows, ...)`."""
        arrays = keras.tree.flatten(structure)
        if not self._digests:
            self._digests = [hashlib.blake2b(digest_size=16) for _ in arrays]
            self._kinds = [None] * len(arrays)
        # With a single digest, the order of the arrays would depend on the batches.
        for i, array in enumerate(arrays):
            kind = f"{array.dtype}{array.shape[1:]}"
            if kind != self._kinds[i]:
                self._digests[i].update(kind.encode())
                self._kinds[i] = kind
            self._digests[i].update(_bytes(array))

    def value(self) -> str:
        """Return the fingerprint of the rows so far."""
        parts = "".join(digest.hexdigest() for digest in self._digests)
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def _bytes(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    words = (x if isinstance(x, bytes) else str(x).encode() for x in array.flat)
    return b"".join(len(word).to_bytes(8, "little") + word for word in words)


def _architecture(network: keras.Model) -> str:
    try:
        with by_names():
            config = keras.saving.serialize_keras_object(network)
    except (NotImplementedError, TypeError, ValueError):  # it has no config
        kinds = [type(layer) for layer in _keras.flat_layers(network)]
        return str([f"{kind.__module__}.{kind.__qualname__}" for kind in kinds])
    names: dict[str, str] = {}
    _find_names(config, names)
    # A value that JSON cannot store is named by its class, because its repr may
    # contain a memory address.
    return json.dumps(
        _renamed(config, names), sort_keys=True, default=lambda x: type(x).__name__
    )


def _find_names(config: object, names: dict[str, str]) -> None:
    """Number the names of layers in the order of the config."""
    if isinstance(config, dict):
        if isinstance(config.get("name"), str):
            names.setdefault(config["name"], f"#{len(names)}")
        for value in config.values():
            _find_names(value, names)
    elif isinstance(config, list | tuple):
        for value in config:
            _find_names(value, names)


def _renamed(config: object, names: dict[str, str]) -> object:
    if isinstance(config, dict):
        kept = {k: v for k, v in config.items() if k not in UNIMPORTANT}
        return {str(k): _renamed(v, names) for k, v in kept.items()}
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [_renamed(value, names) for value in config]
    if isinstance(config, str):
        return names.get(config, BEFORE.get(config, config))
    return config
