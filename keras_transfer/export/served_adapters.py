"""ServedAdapters: the adapters of an export, and the answer to an unknown name."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer._arguments import one_of
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import check_known

BASE = ""  # means no adapter, because an adapter cannot have an empty name
UNKNOWN = ("error", "base")


class ServedAdapters:
    """The adapters that `kt.export_serving` writes, and the answer to an unknown name.

    Each row of a request names its adapter. `""` is the model without an adapter. With
    `unknown="error"` one unknown name makes the whole request fail, and the error
    contains the known names. With `unknown="base"` the model without an adapter answers
    the rows with unknown names. All signatures then have one more output,
    `adapter_known`, bool of shape (batch,), which is False for these rows. So a client
    can tell an answer of the adapter from an answer of the model.

    Args:
        names: Names of LoRA, RsLoRA or LoHa adapters of the model.
        unknown: `"error"` or `"base"`. Defaults to `"error"`.

    Example:
        ```python
        import pathlib
        import tempfile

        import keras
        import tensorflow as tf
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a")])
        kt.adapters.LoRA(rank=1, targets="a").attach(model, "cats")
        with tempfile.TemporaryDirectory() as folder:
            served = kt.export.ServedAdapters(["cats"], unknown="base")
            path = kt.export_serving(model, folder, adapters=served)
            serve = tf.saved_model.load(str(path)).signatures["serving_default"]
            found = serve(inputs=tf.ones((2, 4)), adapter=tf.constant(["cats", "x"]))
        assert found["adapter_known"].numpy().tolist() == [True, False]
        ```

    Raises:
        ValueError: If `unknown` is not one of the choices.

    Reference:
        TensorFlow Serving, a Predict request answers all of its rows or fails.
    """

    def __init__(self, names: Sequence[str], *, unknown: str = "error") -> None:
        self.names = names
        self.unknown = one_of("unknown", unknown, UNKNOWN)


def checked_names(model: keras.Model, names: Sequence[str]) -> list[str]:
    """Return the names of adapters whose examples can share a batch.

    Raises:
        TypeError: If `names` is not a list of strings.
        ValueError: If a name is unknown or repeated, or if an adapter changes the
            model's own weights.
    """
    if isinstance(names, str) or not all(isinstance(each, str) for each in names):
        raise TypeError(f"adapters is {names!r}. Pass a list of adapter names.")
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"adapters is {names!r}. Name at least one adapter, and each only once."
        )
    recipes = attached(model)
    for name in names:
        check_known(model, name)
        recipe = recipes[name]
        if recipe.trained(model, recipe.fitting(model)[0]):
            raise ValueError(
                f"The adapter {name!r} ({type(recipe).__name__}) changes the model's "
                "own weights, such as biases, which all examples share. Export this "
                "adapter alone, without adapters=."
            )
    return list(names)
