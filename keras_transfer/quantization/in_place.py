"""Change layers in place to quantized layers, which save and load as such."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

import keras

from keras_transfer import _keras
from keras_transfer.backbones.addresses import addressed
from keras_transfer.backbones.addresses import addressed_weights
from keras_transfer.backbones.layer_paths import above
from keras_transfer.backbones.made_classes import register_made
from keras_transfer.backbones.recompile import recompile
from keras_transfer.backbones.recompile import sampler_config
from keras_transfer.quantization.normal_float import PackedArray
from keras_transfer.quantization.packed_layers import as_float
from keras_transfer.quantization.packed_layers import packed_form
from keras_transfer.quantization.packed_layers import PackedLayer
from keras_transfer.quantization.packed_layers import Packing

# The module of the classes in a file. If the classes are not registered, Keras shows it
# in the error "its parent module ... cannot be imported".
MODULE = "keras.quantization of keras_transfer (run `import keras_transfer` first)"
# Flags that a model of this package saves by position. The flags in `Quantized`'s
# config replace them.
POSITIONAL = ("trainable_layers", "trainable_weights")


@keras.saving.register_keras_serializable("keras_transfer", name="Quantized")
class Quantized:
    """The class of a layer or model after layers in or below it are quantized.

    Each class that is changed gets a subclass with the same name, because Keras
    addresses weights in files by class names. All subclasses are saved under the name
    `keras_transfer>Quantized`. The config contains the config of the float layer, and
    the packing and the trainable flags by address. `from_config` makes the float layer
    and changes it again, before Keras loads the packed weights.
    """

    float_class: type = object

    @property
    def quantize(self) -> Callable:
        """A function that refuses to quantize again."""
        return functools.partial(_refuse, self)

    @quantize.setter
    def quantize(self, value: Callable) -> None:
        """Ignore the `quantize` that Keras sets on each layer it creates."""

    def __reduce__(self) -> tuple:
        """Return the pickled form. Each process makes the class again."""
        return _keras.unpickled, super().__reduce__()[1]

    def get_config(self) -> dict:
        """Return a config of the float layer, the packing and the trainable flags.

        Raises:
            ValueError: If the file is a legacy HDF5 file, which cannot store them.
        """
        if _keras.is_legacy_format():
            raise ValueError(
                f"{self.name!r} is quantized, which a legacy HDF5 file cannot store. "
                "Save with model.save('name.keras')."
            )
        with as_float(), _as(self, float_class(type(self))):
            base = keras.saving.serialize_keras_object(self)
        base.pop("compile_config", None)
        for key in POSITIONAL:
            base["config"].pop(key, None)
        places = addressed(self)
        return {
            "base": base,
            "packed": {
                place: dataclasses.asdict(each.packing)
                for place, each in places.items()
                if isinstance(each, PackedLayer)
            },
            "learning": {
                "layers": [place for place, each in places.items() if each.trainable],
                "weights": {
                    place: [k for k, v in own.items() if v.trainable]
                    for place, each in places.items()
                    if (own := addressed_weights(each))
                },
            },
        }

    @classmethod
    def from_config(cls, config: dict) -> keras.Layer:
        """Return the layer of `get_config`."""
        config = dict(config)
        base, packed = dict(config.pop("base")), config.pop("packed")
        learning = config.pop("learning")
        # Constructor arguments that keras-hub's from_preset adds, such as a dtype.
        more = {key: value for key, value in config.items() if value is not None}
        base["config"] = base["config"] | more
        layer = keras.saving.deserialize_keras_object(base)
        if not layer.built:
            raise ValueError(
                f"The layer {layer.name!r} was saved quantized, but its config does "
                "not build it, so it has no weights. Add a get_build_config() to its "
                "class."
            )
        places = addressed(layer)
        lost = sorted(set(packed) - set(places))
        if lost:
            raise ValueError(
                f"The layer {layer.name!r} was saved with quantized layers at {lost}, "
                f"but it only has the layers {sorted(places)}. Its class has changed "
                "since it was saved. Load the file with the class as it was."
            )
        install(
            layer,
            [
                (places[place], Packing(**packing), None)
                for place, packing in packed.items()
                if not isinstance(places[place], PackedLayer)
            ],
        )
        change_class(layer)
        _set_trainable(layer, learning)
        return layer

    def get_compile_config(self) -> dict | None:
        """Return the arguments of `compile`, including the sampler of keras-hub."""
        if not isinstance(self, keras.Model):
            return None
        config = super().get_compile_config()
        return config | sampler_config(self) if config else config

    def compile_from_config(self, config: dict) -> None:
        """Compile as the saved model was, even with an overridden compile()."""
        recompile(self, float_class(type(self)), config)


register_made("Quantized", Quantized)


def float_class(kind: type) -> type:
    """Return the class before quantization: Dense for a quantized Dense."""
    return getattr(kind, "float_class", kind)


def install(
    model: keras.Layer,
    hosts: Iterable[tuple[keras.Layer, Packing, PackedArray | None]],
) -> None:
    """Pack the weights of `hosts`, and change their classes and all above them."""
    changed = set()
    for layer, packing, packed in hosts:
        form = packed_form(type(layer))
        change_class(layer, form)
        layer.create_packed(packing, packed)
        changed.add(id(layer))
    for layer in above(model, changed):
        change_class(layer)


def change_class(layer: keras.Layer, form: type[PackedLayer] | None = None) -> None:
    """Change the class of `layer` once, with `form` to a packed layer."""
    if not isinstance(layer, Quantized):
        kind = _quantized(type(layer), form)
        object.__setattr__(layer, "__class__", kind)


def make_float(model: keras.Layer) -> None:
    """Decode all packed weights of `model`, and restore its classes."""
    for layer in _keras.flat_layers(model):
        if isinstance(layer, PackedLayer):
            name, value = layer.packed_weight, layer.unpacked()
            for key in layer.packed_variables():
                _keras.remove_weight(layer, f"{name}_{key}")
            variable = _keras.give_weight_back(layer, f"_{name}", name, value.shape)
            variable.assign(value)
            variable.trainable = layer.trainable
        if isinstance(layer, Quantized):
            object.__setattr__(layer, "__class__", float_class(type(layer)))


@functools.cache
def _quantized(base: type, form: type[PackedLayer] | None) -> type:
    bases = (Quantized, base) if form is None else (Quantized, form, base)
    doc = f"{base.__name__} that is quantized, or has quantized layers below it."
    kind = type(base.__name__, bases, {"__doc__": doc, "float_class": base})
    kind.__module__ = MODULE
    _keras.save_as(kind, Quantized)
    return kind


@contextlib.contextmanager
def _as(layer: keras.Layer, kind: type) -> Iterator[None]:
    # Keras writes the class of an object into its config.
    now = type(layer)
    object.__setattr__(layer, "__class__", kind)
    try:
        yield
    finally:
        object.__setattr__(layer, "__class__", now)


def _set_trainable(layer: keras.Layer, learning: Mapping) -> None:
    places = addressed(layer)
    free = {
        id(own[name])
        for place, names in learning["weights"].items()
        if place in places and (own := addressed_weights(places[place]))
        for name in names
        if name in own
    }
    flagged = {id(places[x]) for x in learning["layers"] if x in places}
    layers = [id(each) in flagged for each in _keras.flat_layers(layer)]
    _keras.set_flags(layer, layers, [id(v) in free for v in layer.weights])


def _refuse(layer: keras.Layer, *args: object, **kwargs: object) -> None:
    raise ValueError(
        f"{layer.name!r} is already quantized, or has quantized layers below it. "
        "Quantizing decoded weights again would add a second error. Load the float "
        "model and quantize it once."
    )
