"""Presets of keras-hub: from_preset() takes what was saved with adapters."""

import sys

import keras


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


def stand_for_all(maker: type) -> None:
    """Have Keras find an AnyAdapted under the name that `maker` is registered by."""
    package, name = keras.saving.get_registered_name(maker).split(">")
    register = keras.saving.register_keras_serializable(package, name)
    register(AnyAdapted(maker))


def _below(kind: type) -> list[type]:
    direct = kind.__subclasses__()
    return [*direct, *(each for below in direct for each in _below(below))]
