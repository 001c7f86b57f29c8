"""Penalized: the class of a model with penalties, which saves and checks them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.in_place.layer_state import base_of
from keras_transfer.adapters.in_place.layer_state import PENALTIES
from keras_transfer.adapters.in_place.layer_state import set_class
from keras_transfer.backbones.made_classes import register_made
from keras_transfer.backbones.recompile import recompile
from keras_transfer.backbones.recompile import sampler_config
from keras_transfer.quantization.in_place import float_class
from keras_transfer.regularizers.attachments import Attached
from keras_transfer.regularizers.attachments import attached
from keras_transfer.regularizers.attachments import Attachments
from keras_transfer.regularizers.attachments import check_attached
from keras_transfer.regularizers.attachments import check_copied
from keras_transfer.regularizers.attachments import saved_weights
from keras_transfer.regularizers.quadratic import Quadratic
from keras_transfer.regularizers.quadratic import regularize
from keras_transfer.regularizers.quadratic import release

MODULE = "keras.penalties of keras_transfer (run `import keras_transfer` first)"
PREFIX = "penalty"


@keras.saving.register_keras_serializable("keras_transfer", name="Penalized")
class Penalized:
    """The class of a model after a penalty is attached.

    Each class gets a subclass with the same name, because Keras addresses weights in
    files by class names. All are saved under the name `keras_transfer>Penalized`. The
    config contains the base's config and the recipes. The values of the penalties are
    saved with the weights, once, and are not among `model.weights`.
    """

    under_class: type = object

    def __reduce__(self) -> tuple:
        """Return the pickled form. Each process makes the class again."""
        return _keras.unpickled, super().__reduce__()[1]

    def get_config(self) -> dict:
        """Return the config of the model, and what is attached.

        Raises:
            ValueError: If the file is a legacy HDF5 file, which cannot store it.
        """
        if _keras.is_legacy_format():
            raise ValueError(
                f"{self.name!r} has a penalty, which a legacy HDF5 file cannot store. "
                "Save with model.save('name.keras')."
            )
        with _as(self, self.under_class):
            base = keras.saving.serialize_keras_object(self)
        base.pop("compile_config", None)
        weights = self.weights
        penalties = {}
        for name, each in attached(self).items():
            penalties[name] = {
                "recipe": keras.saving.serialize_keras_object(each.recipe),
                "weights": {
                    str(place): {
                        "shape": list(weights[place].shape),
                        "factor": penalty.factor,
                        "state": list(penalty.variables),
                    }
                    for place, penalty in sorted(each.penalties.items())
                },
            }
        return {"base": base, "penalties": penalties}

    @classmethod
    def from_config(cls, config: dict) -> keras.Model:
        """Return the model of `get_config`. Its penalties have no values yet."""
        config = dict(config)
        base, penalties = dict(config.pop("base")), config.pop("penalties")
        # Constructor arguments that keras-hub's from_preset adds, such as a dtype.
        more = {key: value for key, value in config.items() if value is not None}
        base["config"] = base["config"] | more
        model = keras.saving.deserialize_keras_object(base)
        for name, each in penalties.items():
            saved = {int(place): x for place, x in each["weights"].items()}
            weights = saved_weights(model, saved)
            recipe = keras.saving.deserialize_keras_object(each["recipe"])
            with _keras.scope(model):
                made = {
                    place: Quadratic(
                        x["factor"],
                        x["shape"],
                        center="center" in x["state"],
                        importance="importance" in x["state"],
                    )
                    for place, x in saved.items()
                }
            for place, penalty in made.items():
                regularize(weights[place], name, penalty)
            _upgrade(model).by_name[name] = Attached(recipe, made, loaded=False)
        return model

    def save_own_variables(self, store: dict) -> None:
        """Store the model's own weights, and the values of the penalties."""
        super().save_own_variables(store)
        for key, penalty, name in _keys(self):
            store[key] = penalty.values()[name]

    def load_own_variables(self, store: dict) -> None:
        """Load the model's own weights, and the values of the penalties, if any.

        Raises:
            ValueError: If the penalties are of another model.
        """
        keys = list(store.keys())
        own = {key: store[key] for key in keys if not key.startswith(f"{PREFIX}.")}
        ours = {key: np.asarray(store[key]) for key in keys if key not in own}
        wanted = {key: (penalty, name) for key, penalty, name in _keys(self)}
        if ours:
            fits = set(ours) == set(wanted) and all(
                ours[key].shape == tuple(penalty.variables[name].shape)
                for key, (penalty, name) in wanted.items()
            )
            if not fits:
                raise ValueError(
                    f"The file has penalties of another model than {self.name!r}: "
                    f"{len(ours)} arrays instead of {len(wanted)}, or other shapes. "
                    "Load a file of the same layers, with the same penalties attached."
                )
        super().load_own_variables(own)
        for key, array in ours.items():
            penalty, name = wanted[key]
            penalty.assign(**{name: array})
        if ours:
            for each in attached(self).values():
                each.loaded = True

    def get_compile_config(self) -> dict | None:
        """Return the arguments of `compile`, including the sampler of keras-hub."""
        config = super().get_compile_config()
        return config | sampler_config(self) if config else config

    def compile_from_config(self, config: dict) -> None:
        """Compile as the saved model was, even with an overridden compile()."""
        recompile(self, float_class(base_of(self)), config)

    @property
    def losses(self) -> list:
        """The penalties of trainable weights, and all other losses of the layers."""
        if PENALTIES in vars(self):
            vars(self)[PENALTIES].were_read = True
        return super().losses

    def compute_loss(self, *args: object, **kwargs: object) -> object:
        """Return the loss of the model, which has to contain the penalties.

        Raises:
            ValueError: If the model's own `compute_loss` leaves them out.
        """
        check_copied(self)
        state = vars(self)[PENALTIES]
        state.were_read = False
        loss = super().compute_loss(*args, **kwargs)
        if not state.were_read:
            raise ValueError(
                f"compute_loss of {self.under_class.__name__} does not add "
                f"`self.losses`, so {sorted(state.by_name)} would have no effect. Add "
                "them, or call super().compute_loss()."
            )
        return loss

    def make_train_function(self, force: bool = False) -> object:
        """Check the penalties, and return the function of a training step."""
        check_attached(self)
        return super().make_train_function(force=force)

    def make_test_function(self, force: bool = False) -> object:
        """Check the penalties, and return the function of an evaluation step."""
        check_attached(self)
        return super().make_test_function(force=force)


register_made("Penalized", Penalized)


def install(model: keras.Model, name: str, new: Attached) -> None:
    """Attach created penalties, and retrace the functions of the model."""
    weights = model.weights
    for place, penalty in new.penalties.items():
        regularize(weights[place], name, penalty)
    _upgrade(model).by_name[name] = new
    forget_functions(model)


def forget_functions(model: keras.Model) -> None:
    """Drop all traced functions in `model`, because they have the old penalties."""
    for layer in _keras.flat_layers(model):
        _keras.forget_traces(layer)


def detach(model: keras.Model) -> keras.Model:
    """Remove all penalties of `kt.regularizers` from a model, in place.

    The model has its class and its own regularizers again, and its weights as they are
    now. Its files are as large as before, and load without keras_transfer.

    Args:
        model: A model with penalties.

    Returns:
        The model.

    Raises:
        ValueError: If the model has no penalties.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(2)]
        )
        kt.regularizers.L2SP().attach(model, head=model.layers[-1])
        kt.regularizers.detach(model)
        assert type(model) is keras.Sequential
        ```

    Reference:
        Keras, "Layer weight regularizers", keras.io/api/layers/regularizers.
    """
    if not attached(model):
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} has no penalties. Pass the "
            "model that they were attached to."
        )
    weights = model.weights
    for name, each in attached(model).items():
        for place in each.penalties:
            release(weights[place], name)
    set_class(model, type(model).under_class)
    del vars(model)[PENALTIES]
    forget_functions(model)
    return model


def _upgrade(model: keras.Model) -> Attachments:
    """Change the class of `model` once, and return what is attached to it."""
    if not isinstance(model, Penalized):
        vars(model)[PENALTIES] = Attachments()
        set_class(model, _upgraded(type(model), base_of(model)))
    return vars(model)[PENALTIES]


@functools.cache
def _upgraded(under: type, base: type) -> type:
    doc = f"{under.__name__} with penalties on its weights."
    own = {"__doc__": doc, "under_class": under, "base_class": base}
    kind = type(under.__name__, (Penalized, under), own)
    kind.__module__ = MODULE
    _keras.save_as(kind, Penalized)
    return kind


@contextlib.contextmanager
def _as(model: keras.Model, kind: type) -> Iterator[None]:
    # Keras writes the class of an object into its config.
    now = type(model)
    set_class(model, kind)
    try:
        yield
    finally:
        set_class(model, now)


def _keys(model: keras.Model) -> Iterator[tuple[str, Quadratic, str]]:
    """Yield the key of each variable in a file, its penalty, and its name."""
    for name, each in attached(model).items():
        for place, penalty in sorted(each.penalties.items()):
            for variable in penalty.variables:
                yield f"{PREFIX}.{name}.{place}.{variable}", penalty, variable
