"""Upgrade layers in place to subclasses that compute, save and load with parts."""

from __future__ import annotations

import contextlib
import functools
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
from keras_transfer.adapters.in_place.saved_state import KEYS
from keras_transfer.adapters.in_place.saved_state import made_again
from keras_transfer.adapters.in_place.saved_state import set_trainable
from keras_transfer.adapters.in_place.saved_state import state_of
from keras_transfer.backbones.layer_paths import above
from keras_transfer.backbones.made_classes import register_made
from keras_transfer.backbones.recompile import recompile
from keras_transfer.backbones.recompile import sampler_config
from keras_transfer.quantization.in_place import float_class

# The module of the classes in a file. If the classes are not registered, Keras shows it
# in the error "its parent module ... cannot be imported".
MODULE = "keras.adapters of keras_transfer (run `import keras_transfer` first)"
# Flags that a model of this package saves by position. The adapter's state replaces
# them.
POSITIONAL = ("trainable_layers", "trainable_weights")


@keras.saving.register_keras_serializable("keras_transfer", name="Adapted")
class Adapted(Ordered):
    """The class of a layer or model after parts are attached in or below it.

    Each class that is upgraded gets a subclass with the same name, because Keras
    addresses weights in files by class names. All subclasses are saved under the name
    `keras_transfer>Adapted`. The config contains the base's config, the parts by
    address, and the frozen weights. `from_config` makes the base and upgrades it again.
    """

    base_class: type = object

    @property
    def trainable(self) -> bool:
        """The layer's trainable flag. Weights that adapters froze stay frozen."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        super(Adapted, type(self)).trainable.fset(self, value)
        keep_frozen(self)

    @property
    def quantize(self) -> Callable:
        """A function that refuses to quantize."""
        return functools.partial(_refuse, self, "quantize")

    @quantize.setter
    def quantize(self, value: Callable) -> None:
        """Ignore the `quantize` that Keras sets on each layer it creates."""

    def enable_lora(self, *args: object, **kwargs: object) -> None:
        """Refuse, because Keras's own LoRA would change the adapted weights."""
        _refuse(self, "enable_lora")

    def __reduce__(self) -> tuple:
        """Return the pickled form. Each process makes the class again."""
        return _keras.unpickled, super().__reduce__()[1]

    def get_config(self) -> dict:
        """Return a config of the layer with its parts and trainable flags.

        Raises:
            ValueError: If the file is a legacy HDF5 file, which cannot store the parts.
        """
        if _keras.is_legacy_format():
            raise ValueError(
                f"{self.name!r} has adapters, which a legacy HDF5 file cannot store, "
                "because it orders the weights of a partly frozen layer differently. "
                "Save with model.save('name.keras'), or save only the adapter with "
                "kt.save_adapter."
            )
        with _as(self, base_of(self)):
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
        # Constructor arguments that keras-hub's from_preset adds, such as a dtype.
        more = {key: value for key, value in config.items() if value is not None}
        base["config"] = base["config"] | more
        layer = keras.saving.deserialize_keras_object(base)
        if not layer.built:
            raise ValueError(
                f"The layer {layer.name!r} was saved with adapters, but its config "
                "does not build it, so it has no weights to adapt. Add a "
                "get_build_config() to its class."
            )
        _attach_again(layer, recipes, state)
        for each in set_trainable(layer, state):
            upgrade(each)
        return layer

    def get_compile_config(self) -> dict | None:
        """Return the arguments of `compile`, including the sampler of keras-hub."""
        if not isinstance(self, keras.Model):
            return None
        config = super().get_compile_config()
        return config | sampler_config(self) if config else config

    def compile_from_config(self, config: dict) -> None:
        """Compile as the saved model was, even with an overridden compile()."""
        recompile(self, float_class(base_of(self)), config)


register_made("Adapted", Adapted)


def plain_of(layer: keras.Layer) -> type:
    """Return the class of `layer` without parts, such as Dense for a LoRADense."""
    return getattr(base_of(layer), "plain_class", None) or base_of(layer)


def restore(model: keras.Layer) -> None:
    """Remove all parts, and restore all layers to the state before the first part."""
    for layer in _keras.flat_layers(model):
        if first_state(layer):
            first_state(layer).give_back()
        forget_recipes(layer)  # also for layers that were not frozen, as in a head
        if isinstance(layer, Adapted | Hooked):
            set_class(layer, plain_of(layer))


def upgrade(layer: keras.Layer, hooked: type | None = None) -> None:
    """Change the class of `layer` once. With `hooked` its forward pass runs parts."""
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
    """Add created parts to their layers, and upgrade these layers and all above them.

    `touched` are layers that get no part, but have weights that train.
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
    """Raise the error of a method that would change adapted weights."""
    names = list(recipes_of(layer))
    if method == "quantize":
        order = (
            "Quantize first, then attach. To keep a trained adapter, call "
            "kt.save_adapter, kt.adapters.detach, quantize, and kt.load_adapter("
            "model, path, check_base=False)"
        )
    else:
        order = (
            "Use kt.adapters.LoRA for both, under another name: attach(model, 'second')"
        )
    raise ValueError(
        f"{layer.name!r} has the adapters {names}, so {method} is refused. It would "
        f"replace or unfreeze weights that the adapters use. {order}. To remove an "
        "adapter, use kt.adapters.merge or kt.adapters.detach."
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
    # Keras writes the class of an object into its config.
    now = type(layer)
    set_class(layer, kind)
    try:
        yield
    finally:
        set_class(layer, now)


def _attach_again(layer: keras.Layer, recipes: dict, state: dict) -> None:
    """Attach the saved adapters again. An inner layer can already have its parts."""
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
