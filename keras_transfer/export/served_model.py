"""ServedModel: the outputs and features of an exported model, in batches."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_transfer.export.request import Entry
from keras_transfer.export.samples import request
from keras_transfer.export.samples import tensors_of

MONITORED = "monitoring"  # signature that returns outputs and features
PREPARED = "preprocessed"  # signature that takes the model's own inputs
BATCH = 256  # examples of one request
CHUNK = 1 << 24  # bytes that are hashed at once


class ServedModel:
    """The outputs and features of an exported model, in batches.

    Loading a SavedModel and calling it runs the operations of its graph, so the folder
    must be one that you trust, as for a server.

    Args:
        folder: Folder of the version of a SavedModel.
        prepared: Whether the inputs are those of the model itself, after its
            preprocessor.
    """

    def __init__(self, folder: pathlib.Path, *, prepared: bool = False) -> None:
        self._loaded = _load(str(folder))
        signatures = self._loaded.signatures
        self.name = MONITORED if MONITORED in signatures else "serving_default"
        if prepared and PREPARED in signatures:
            self.name = PREPARED
        self._run = signatures[self.name]
        specs = self._run.structured_input_signature[1]
        self._entry = Entry(dict(specs), dict)

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """The specs of the inputs by name."""
        return self._entry.specs

    def __call__(self, inputs: object) -> dict[str, np.ndarray]:
        """Return all outputs by name, with a row for each example.

        Raises:
            ValueError: If the inputs have other names, shapes or dtypes than the model.
        """
        self._check_dtypes(inputs)
        asked = request(self._entry, inputs, self.name)
        count = len(next(iter(asked.values())))
        found = []
        for start in range(0, count, BATCH):
            part = {k: v[start : start + BATCH] for k, v in asked.items()}
            outputs = self._answer(part)
            found.append({k: each.numpy() for k, each in outputs.items()})
        return {k: np.concatenate([each[k] for each in found]) for k in found[0]}

    def _answer(self, part: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
        try:
            return self._run(**tensors_of(self._entry, part))
        except tf.errors.OpError as problem:
            raise ValueError(
                f"The model does not run on these inputs: {problem.message}"
            ) from problem

    def _check_dtypes(self, inputs: object) -> None:
        """Check what a conversion of the dtype would hide.

        Raises:
            ValueError: If floats are passed as whole numbers, or complex numbers.
        """
        named = inputs if isinstance(inputs, Mapping) else dict.fromkeys(self.specs)
        for name, spec in self.specs.items():
            value = named.get(name)
            if not isinstance(inputs, Mapping) and len(self.specs) == 1:
                value = inputs
            kind = getattr(value, "dtype", None)
            if value is None or kind is None or spec.dtype == tf.string:
                continue
            kind = np.dtype(getattr(kind, "as_numpy_dtype", kind)).kind
            fits = "biu" if spec.dtype.is_integer else "biufV"
            if kind not in fits and spec.dtype != tf.bool:
                raise ValueError(
                    f"The input {name!r} has the dtype {value.dtype}, but the model "
                    f"takes {spec.dtype.name}. Pass the inputs that the server gets."
                )


def _load(folder: str) -> object:
    """Load a SavedModel, and the operations of tensorflow_text if it needs them.

    Raises:
        ImportError: If it needs them and they are not installed.
    """
    try:
        return tf.saved_model.load(folder)
    except (RuntimeError, FileNotFoundError, tf.errors.NotFoundError) as problem:
        if "Op type not registered" not in str(problem):
            raise
        try:
            import tensorflow_text  # noqa: F401
        except ImportError as missing:
            raise ImportError(
                f"{folder} has operations that TensorFlow does not have, probably "
                "those of tensorflow_text. Run pip install tensorflow-text."
            ) from missing
    return tf.saved_model.load(folder)


def fingerprint_of(folder: pathlib.Path) -> str:
    """Return a fingerprint of the graph and the weights of a SavedModel."""
    digest = hashlib.blake2b(digest_size=16)
    files = [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]
    for path in files:
        digest.update(path.name.encode() + path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
