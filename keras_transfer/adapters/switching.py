"""Several adapters on one model: which it has, which is in use, or none."""

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
from keras_transfer.adapters.in_place.layer_state import own_recipes
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.backbones.layer_paths import located


def attached(model: keras.Layer) -> dict[str, Adapter]:
    """Return the recipes of the adapters in or below `model`, by the adapter's name.

    Args:
        model: Any model or layer.

    Returns:
        Dict of name to recipe, in the order of attaching; empty if there are none.

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
    """Return the names of the adapters in use, each with its gate.

    Args:
        model: Any model or layer.

    Returns:
        Dict of name to gate, which is 1 for an adapter in use; those with 0 are left
        out.

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
        gates.setdefault(name, 1.0)  # without parts it is always on
    return {name: gate for name, gate in gates.items() if gate}


def places(
    model: keras.Layer, name: str | None = None
) -> Iterator[tuple[str, keras.Layer, Part]]:
    """Yield (path of the layer, layer, part) for the parts of one adapter, or of all.

    In the order of the model, and of the technique: not the layers of `own_places`.
    `part.named_weights` are the adapter's weights there, by name.
    """
    return (each for each in _places(model, name) if not each[2].replaces)


def own_places(
    model: keras.Layer, name: str | None = None
) -> Iterator[tuple[str, keras.Layer, Part]]:
    """Yield what `places` does for the layers that an adapter has for itself."""
    return (each for each in _places(model, name) if each[2].replaces)


def use(model: keras.Layer, name: str) -> None:
    """Make one adapter of `model` the one in use, and the one that trains.

    The others stay where they are, with gates of 0, and so do their heads: the model
    computes with the head of this one, which may have another number of classes
    (`model.output_shape` still says that of the model's own). The functions that the
    model keeps are traced anew. A `tf.function` of your own stays right in inference
    where heads have one width; one that calls the model with `training=True` keeps the
    head that was in use when it was traced: make it anew. An optimizer that was built
    for another adapter has no slots for this one: compile() again to train it. A
    callback may use another one to evaluate it; it has to change back before the next
    step of `fit`.

    Switching is not for two threads at once: the gates are of the model, so a request
    in one thread would get the adapter that another has just chosen. To serve many
    adapters side by side, export them by `kt.export_serving(adapters=[...])`, where
    each example of a batch names its own.

    Args:
        model: A model with adapters.
        name: The adapter's name.

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
    """Within the block `model` computes as the base model does, exactly.

    With the head that the model had before the first adapter was attached; for one
    thread at a time, as `use`.

    Args:
        model: A model with adapters.

    Returns:
        A context manager.

    Raises:
        ValueError: If an adapter has changed weights of the model's own.

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
                f"The adapter {name!r} ({type(recipe).__name__}) trains weights of the "
                "model's own, which cannot be switched off."
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
    """Take one adapter away. With the last one the model is what it was before.

    If it was the one in use, then none is; choose with `kt.adapters.use`.

    Args:
        model: A model with adapters.
        name: The adapter's name.

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
    """Drop what `model` has traced, after adapters were attached to layers in it.

    `attach`, `use` and `merge` do it for the model they are given and all in it: what
    `fit`, `evaluate`, `predict` and the `generate` of keras-hub run, and each
    `tf.function` in an attribute or a method of a layer. They cannot know a model that
    holds that one, or shares layers with it. Pass the outermost model there, or here.

    Args:
        model: The other model.

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
        ValueError: If it has none.
    """
    names = list(attached(model))
    if name not in names:
        raise ValueError(
            f"The model {model.name!r} has no adapter {name!r}. It has {names}."
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
