"""Upgrade layers in place to subclasses that compute, save and reload with parts."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.adapters import adapter_part as parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place.forward import Hooked
from keras_transfer.adapters.in_place.frozen_weights import keep_frozen
from keras_transfer.adapters.in_place.frozen_weights import Ordered
from keras_transfer.adapters.in_place.layer_state import base_of
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.in_place.layer_state import forget_recipes
from keras_transfer.adapters.in_place.layer_state import note_recipe
from keras_transfer.adapters.in_place.layer_state import own_recipes
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.adapters.in_place.layer_state import set_class
from keras_transfer.adapters.in_place.recompile import recompile
from keras_transfer.adapters.in_place.recompile import sampler_config
from keras_transfer.adapters.in_place.saved_state import KEYS
from keras_transfer.adapters.in_place.saved_state import made_again
from keras_transfer.adapters.in_place.saved_state import set_trainable
from keras_transfer.adapters.in_place.saved_state import state_of
from keras_transfer.backbones.layer_paths import above

# What a file says of where its classes are. Keras shows it where nobody has registered
# them, as in "its parent module ... cannot be imported", after the name of the base.
MODULE = "keras.adapters of keras_transfer (run `import keras_transfer` first)"
# Flags that a model of ours keeps by position; ours replace them.
POSITIONAL = ("trainable_layers", "trainable_weights")


@keras.saving.register_keras_serializable("keras_transfer", name="Adapted")
class Adapted(Ordered):
    """What a layer or model becomes when parts are attached in or below it.

    A class is made for each class upgraded: a subclass of it, of the same name (Keras
    addresses weights in files by class names), and saved under the one name
    `keras_transfer>Adapted`. Its config holds the base's own, the parts by address, and
    what is frozen; `from_config` makes the base and upgrades it again.
    """

    base_class: type = object

    @property
    def trainable(self) -> bool:
        """The flag of the layer. Setting it never thaws what the adapters froze."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        super(Adapted, type(self)).trainable.fset(self, value)
        keep_frozen(self)

    @property
    def quantize(self) -> Callable:
        """What refuses to quantize. A layer has Keras's own as an attribute."""
        return functools.partial(_refuse, self, "quantize")

    @quantize.setter
    def quantize(self, value: Callable) -> None:
        """Drop Keras's own, which it sets on each layer that it makes."""

    def enable_lora(self, *args: object, **kwargs: object) -> None:
        """Refuse Keras's own LoRA."""
        _refuse(self, "enable_lora")

    def __reduce__(self) -> tuple:
        """Return what pickles the layer; its class is made anew in each process."""
        return _keras.unpickled, super().__reduce__()[1]

    def get_config(self) -> dict:
        """Return what remakes the layer with its parts and its trainable set.

        Raises:
            ValueError: If it is for a legacy file of HDF5, which cannot hold them.
        """
        if _keras.is_legacy_format():
            raise ValueError(
                f"{self.name!r} has adapters, which a legacy HDF5 file cannot hold: it "
                "keeps the weights of a partly frozen layer in another order. Save "
                "with model.save('name.keras'), or the adapter alone with "
                "kt.save_adapter."
            )
        with _as(self, base_of(self)):
            # Without this layer's own mark Keras takes the two for one shared object.
            base = keras.saving.serialize_keras_object(self)
        base.pop("compile_config", None)
        for key in POSITIONAL:
            base["config"].pop(key, None)
        return {
            "base": base,
            "recipes": {
                name: keras.saving.serialize_keras_object(recipe)
                for name, recipe in recipes_of(self).items()
            },
            **state_of(self),
        }

    @classmethod
    def from_config(cls, config: dict) -> keras.Layer:
        """Return the layer of `get_config`."""
        config = dict(config)
        base = dict(config.pop("base"))
        recipes = config.pop("recipes")
        state = {key: config.pop(key) for key in KEYS if key in config}
        # What keras-hub's from_preset adds for the constructor, such as a dtype.
        more = {key: value for key, value in config.items() if value is not None}
        base["config"] = base["config"] | more
        layer = keras.saving.deserialize_keras_object(base)
        if not layer.built:
            raise ValueError(
                f"The layer {layer.name!r} was saved with adapters, but its config "
                "does not build it, so that they have nothing to be attached to. Give "
                "its class a get_build_config()."
            )
        _attach_again(layer, recipes, state)
        for each in set_trainable(layer, state):
            upgrade(each)
        return layer

    def get_compile_config(self) -> dict | None:
        """Return what a model was compiled with, the sampler of keras-hub too."""
        if not isinstance(self, keras.Model):
            return None
        config = super().get_compile_config()
        return config | sampler_config(self) if config else config

    def compile_from_config(self, config: dict) -> None:
        """Compile as the saved model was, also where its compile() is its own."""
        recompile(self, base_of(self), config)


class AnyAdapted:
    """Stands for all upgraded classes where Keras looks one up by its saved name.

    The classes themselves are made when layers are upgraded, so a fresh process has
    none. keras-hub's `from_preset` wants to know before it reads the config whether the
    saved class is a subclass of the one it was called on, and a task's backbone the one
    of its kind. Both is so for some class of ours, so this says yes to each; the config
    then tells which it is.
    """

    __name__ = "Adapted"
    __module__ = __name__

    def __init__(self, maker: type) -> None:
        self.from_config = maker.from_config
        self.get_config = maker.get_config

    @property
    def __bases__(self) -> tuple[type, ...]:
        """What `issubclass(this, ...)` goes by."""
        hub = sys.modules.get("keras_hub")
        if hub is None:
            return ()
        return (*_below(hub.models.Backbone), *_below(hub.models.Task))

    def __eq__(self, other: object) -> bool:
        return other is self or (isinstance(other, type) and other in self.__bases__)

    def __hash__(self) -> int:
        return id(self)


# from_preset() of keras-hub finds it under the name that `Adapted` is registered by.
_register = keras.saving.register_keras_serializable("keras_transfer", "Adapted")
_register(AnyAdapted(Adapted))


def plain_of(layer: keras.Layer) -> type:
    """Return the class of `layer` without any parts: a Dense for a LoRADense."""
    return getattr(base_of(layer), "plain_class", None) or base_of(layer)


def restore(model: keras.Layer) -> None:
    """Take all parts away and make all layers what they were before the first."""
    for layer in _keras.flat_layers(model):
        if first_state(layer):
            first_state(layer).give_back()
        forget_recipes(layer)  # also where nothing was frozen: at a head
        if isinstance(layer, Adapted | Hooked):
            set_class(layer, plain_of(layer))


def upgrade(layer: keras.Layer, hooked: type | None = None) -> None:
    """Change the class of `layer`, once; with `hooked` its forward pass runs parts."""
    base = base_of(layer)
    if isinstance(layer, Adapted) and isinstance(layer, hooked or Adapted):
        return
    set_class(layer, _upgraded(base, hooked))


def install(
    model: keras.Layer,
    name: str,
    recipe: object,
    pairs: Iterable[tuple[keras.Layer, Part]],
    touched: Iterable[keras.Layer] = (),
) -> None:
    """Put created parts into their layers and upgrade these and all above them.

    `touched` are layers that get no part, but of which a weight is trained.
    """
    changed = {id(each) for each in touched}
    for layer, part in pairs:
        upgrade(layer, part.layer_class or Hooked)
        parts.add(layer, part)
        changed.add(id(layer))
    for layer in above(model, changed):
        upgrade(layer)
    for layer in _keras.flat_layers(model):
        if isinstance(layer, Adapted) and (
            id(layer) in changed
            or any(id(x) in changed for x in _keras.flat_layers(layer))
        ):
            note_recipe(layer, name, recipe)


def _refuse(layer: keras.Layer, method: str, *args: object, **kwargs: object) -> None:
    """Raise the error of a method that would change weights under an adapter."""
    names = list(recipes_of(layer))
    if method == "quantize":
        order = (
            "Quantize first, then attach. One that is trained goes along by "
            "kt.save_adapter, kt.adapters.detach, quantize, and kt.load_adapter("
            "model, path, check_base=False)"
        )
    else:
        order = (
            "Use kt.adapters.LoRA for both, under another name: attach(model, 'second')"
        )
    raise ValueError(
        f"{layer.name!r} has the adapters {names}, so {method} is refused: it would "
        f"replace or free weights that they hold. {order}. To be rid of an adapter, "
        "use kt.adapters.merge or kt.adapters.detach."
    )


@functools.cache
def _upgraded(base: type, hooked: type | None) -> type:
    bases: tuple[type, ...] = (Adapted,)
    if hooked is not None and not issubclass(base, hooked):
        bases += (hooked,)
    if not (hooked is not None and issubclass(hooked, base)):
        bases += (base,)
    doc = f"{base.__name__} with adapters in or below it."
    own = {"__doc__": doc, "base_class": base} | _keras.counted_makers(base)
    kind = type(base.__name__, bases, own)
    kind.__module__ = MODULE
    _keras.save_as(kind, Adapted)
    return kind


@contextlib.contextmanager
def _as(layer: keras.Layer, kind: type) -> Iterator[None]:
    # Keras looks at the class of an object to tell what its config holds.
    now = type(layer)
    set_class(layer, kind)
    try:
        yield
    finally:
        set_class(layer, now)


def _attach_again(layer: keras.Layer, recipes: dict, state: dict) -> None:
    """Do what was done to the saved layer; an inner one may have been done already."""
    made = made_again(layer, state)
    for name, config in recipes.items():
        recipe = keras.saving.deserialize_keras_object(config)
        mine = [(host, part) for host, part in made if part.name == name]
        hosts = [host for host, part in parts.all_parts(layer) if part.name == name]
        install(layer, name, recipe, mine, hosts)
        recipe.link(parts.added_by(layer, name))
    upgrade(layer)
    for name, config in recipes.items():
        if name not in own_recipes(layer):
            note_recipe(layer, name, keras.saving.deserialize_keras_object(config))


def _below(kind: type) -> list[type]:
    direct = kind.__subclasses__()
    return [*direct, *(each for below in direct for each in _below(below))]
