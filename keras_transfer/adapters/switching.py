"""Several adapters on one model: list them, switch between them, remove them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.adapter_part import take_away
from keras_transfer.adapters.in_place import adapted_layer
from keras_transfer.adapters.in_place.compiled_model import activate
from keras_transfer.adapters.in_place.compiled_model import renew_optimizers
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.compiled_model import stale_functions_aside
from keras_transfer.adapters.in_place.compiled_model import stale_optimizers
from keras_transfer.adapters.in_place.layer_state import check_no_penalties
from keras_transfer.adapters.in_place.layer_state import own_recipes
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.backbones.layer_paths import located


def attached(model: keras.Layer) -> dict[str, Adapter]:
    """Return the recipes of the adapters in or below `model`, by the adapter's name.

    Args:
        model: Any model or layer.

    Returns:
        Dict from name to recipe, in the order of attaching. Empty without adapters.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, "first")
        assert list(kt.adapters.attached(model)) == ["first"]
        ```

    Reference:
        PEFT, `PeftModel.peft_config`.
    """
    return recipes_of(model)


def active(model: keras.Layer) -> dict[str, float]:
    """Return the names of the adapters in use, with their gates.

    The outputs of an adapter are multiplied by its gate: 1 for an adapter in use, and 0
    for all others.

    Args:
        model: Any model or layer.

    Returns:
        Dict from name to gate. Adapters with a gate of 0 are left out.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        assert kt.adapters.active(model) == {"default": 1.0}
        ```

    Reference:
        PEFT, `PeftModel.active_adapters`.
    """
    gates = {part.name: gate_value(part) for _, part in all_parts(model)}
    for name in attached(model):
        gates.setdefault(name, 1.0)  # an adapter without parts is always on
    return {name: gate for name, gate in gates.items() if gate}


def places(
    model: keras.Layer, name: str | None = None
) -> Iterator[tuple[str, keras.Layer, Part]]:
    """Yield (path of the layer, layer, part) for the parts of one adapter, or of all.

    The order is the order of the model. `own_places` yields the adapter's own layers,
    and this function leaves them out. `part.named_weights` contains the adapter's
    weights at the layer, by name.
    """
    return (each for each in _places(model, name) if not each[2].replaces)


def own_places(
    model: keras.Layer, name: str | None = None
) -> Iterator[tuple[str, keras.Layer, Part]]:
    """Yield (path of the layer, layer, part) for the adapters' own layers."""
    return (each for each in _places(model, name) if each[2].replaces)


def use(model: keras.Layer, name: str) -> None:
    """Use one adapter of `model`: the model computes with it, and only it trains.

    The other adapters and their heads stay in the model without an effect. The model
    computes with the head of this adapter, which can have another number of classes
    (`model.output_shape` still describes the model's own head).

    The model's functions are retraced. Your own `tf.function` stays valid for inference
    if all heads have the same number of outputs. A `tf.function` that calls the model
    with `training=True` keeps the head from the time of its trace, so create it again.
    An optimizer that was built for another adapter has no slots for this adapter. Call
    `compile()` again before you train. A callback may switch to another adapter to
    evaluate it, but it has to switch back before the next step of `fit`.

    Do not switch from several threads at once. All threads share the model, so a
    request in one thread would get the adapter that another thread has chosen. To serve
    many adapters from one model, export them with `kt.export_serving(adapters=[...])`.
    Each example of a batch then names its adapter.

    Args:
        model: A model with adapters.
        name: Name of the adapter.

    Raises:
        ValueError: If no adapter has this name.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, "first")
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, "second")
        kt.adapters.use(model, "first")
        assert kt.adapters.active(model) == {"first": 1.0}
        ```

    Reference:
        PEFT, `PeftModel.set_adapter`.
    """
    check_known(model, name)
    activate(model, {name: 1.0})
    retrace(model)


@contextlib.contextmanager
def disabled(model: keras.Layer) -> Iterator[None]:
    """Switch all adapters off within a `with` block.

    In the block `model` computes exactly as the base model, with the head from before
    the first adapter was attached. As with `use`, only one thread at a time may do
    this.

    Args:
        model: A model with adapters.

    Returns:
        A context manager.

    Raises:
        ValueError: If an adapter changes the model's own weights.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        with kt.adapters.disabled(model):
            base = model(np.ones((1, 8)))
        ```

    Reference:
        PEFT, `PeftModel.disable_adapter`.
    """
    for name, recipe in attached(model).items():
        if recipe.trained(model, recipe.fitting(model)[0]):
            raise ValueError(
                f"The adapter {name!r} ({type(recipe).__name__}) trains the model's "
                "own weights, so it cannot be switched off. Load the base model once "
                "more to compute without the adapter."
            )
    hosts = list(all_parts(model))
    gates = [gate_value(part) for _, part in hosts]
    try:
        for _, part in hosts:
            part.gate.assign(0.0)
        with stale_functions_aside(model, hosts):
            yield
    finally:
        for (_, part), gate in zip(hosts, gates, strict=True):
            part.gate.assign(gate)


def remove(model: keras.Layer, name: str) -> None:
    """Remove one adapter. Removing the last adapter restores the original model.

    If the removed adapter was in use, no adapter is in use after the call. Choose
    another adapter with `kt.adapters.use`.

    Args:
        model: A model with adapters.
        name: Name of the adapter.

    Raises:
        ValueError: If no adapter has this name.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, "first")
        kt.adapters.remove(model, "first")
        assert kt.adapters.attached(model) == {}
        ```

    Reference:
        PEFT, `PeftModel.delete_adapter`.
    """
    check_no_penalties(model)
    check_known(model, name)
    for host, part in list(all_parts(model)):
        if part.name == name:
            take_away(host, part)
    for layer in _keras.flat_layers(model):
        own_recipes(layer).pop(name, None)
    if attached(model):
        retrace(model)
    else:
        adapted_layer.restore(model)
        renew_optimizers(model)


def refresh(model: keras.Layer) -> None:
    """Retrace the functions of `model` after adapters were attached to its layers.

    `attach`, `use` and `merge` retrace the functions of their model and of all layers
    in it: the functions of `fit`, `evaluate`, `predict` and keras-hub's `generate`, and
    each `tf.function` in an attribute or a method of a layer. They cannot find a model
    that contains their model or shares layers with it. Pass the outermost model to
    them, or pass the other model to `refresh`.

    Args:
        model: The model that contains or shares the layers.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        outer = keras.Sequential([keras.Input((8,)), inner, keras.layers.Dense(1)])
        outer.predict(np.ones((1, 8)), verbose=0)
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(inner)
        kt.adapters.refresh(outer)
        ```

    Raises:
        ValueError: If the optimizer of `model` has made updates and has no slots for
            the adapters.

    Reference:
        keras.Model.make_train_function, which this calls with `force=True`.
    """
    retrace(model, stale_optimizers(model))


def check_known(model: keras.Layer, name: str) -> None:
    """Check that `model` has an adapter of this name.

    Raises:
        ValueError: If the model has no such adapter.
    """
    names = list(attached(model))
    if name not in names:
        raise ValueError(
            f"The model {model.name!r} has no adapter {name!r}. Its adapters are "
            f"{names}."
        )


def _places(
    model: keras.Layer, name: str | None
) -> Iterator[tuple[str, keras.Layer, Part]]:
    if name is not None:
        check_known(model, name)
    for path, layer in located(model).items():
        for part in parts_of(layer):
            if name is None or part.name == name:
                yield path or layer.name, layer, part
