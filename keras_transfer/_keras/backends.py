"""The backends of Keras on which this package runs."""

from typing import Any

import keras

TITLES = {"tensorflow": "TensorFlow", "jax": "JAX"}


def on_jax() -> bool:
    """Return whether Keras runs on JAX."""
    return keras.backend.backend() == "jax"


def check_backend(needed: str, what: str, instead: str) -> None:
    """Raise NotImplementedError unless Keras runs on the backend that is needed.

    Args:
        needed: The name of the backend, "tensorflow" or "jax".
        what: What needs this backend.
        instead: A sentence that says what to do on another backend.
    """
    name = keras.backend.backend()
    if name != needed:
        raise NotImplementedError(
            f"{what} needs the {TITLES[needed]} backend, but the backend is {name}. "
            f"{instead}"
        )


def check_supported() -> None:
    """Raise ImportError unless this package runs on the backend of Keras."""
    name = keras.backend.backend()
    if name not in TITLES:
        raise ImportError(
            f"keras_transfer runs on the backends {' and '.join(TITLES.values())} of "
            f"Keras, but the backend is {name}. Set KERAS_BACKEND=tensorflow or "
            "KERAS_BACKEND=jax before Keras is imported. The limits in "
            "benchmarks/README.md list what runs on which."
        )


def is_foreign(tensor: Any) -> bool:
    """Return whether a tensor is in a graph of TensorFlow, on another backend."""
    in_graph = type(tensor).__module__.startswith("tensorflow.")
    return on_jax() and in_graph
