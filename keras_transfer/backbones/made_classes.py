"""AnyMade: a saved name for all classes that are made when a model changes in place."""

import sys
from typing import Any

import keras


class AnyMade:
    """Represents all made classes of a kind when Keras looks one up by its saved name.

    Classes are made when layers change in place, so a new process has none. keras-hub's
    `from_preset` checks two things before it reads the config. The saved class has to
    be a subclass of the class that `from_preset` was called on, and a task's backbone
    has to be of the right class. A made class can exist for each of these classes, so
    this object passes both checks. The config then selects the class.

    Args:
        name: The saved name.
        maker: Class whose `from_config` makes an object from its config.
    """

    def __init__(self, name: str, maker: Any) -> None:
        self.__name__ = self.__module__ = name
        self.from_config = maker.from_config
        self.get_config = maker.get_config

    @property
    def __bases__(self) -> tuple[type, ...]:
        """The bases that `issubclass(this, ...)` uses."""
        hub = sys.modules.get("keras_hub")
        if hub is None:
            return ()
        return (*_below(hub.models.Backbone), *_below(hub.models.Task))

    def __eq__(self, other: object) -> bool:
        return other is self or (isinstance(other, type) and other in self.__bases__)

    def __hash__(self) -> int:
        return id(self)


def register_made(name: str, maker: Any) -> None:
    """Let keras-hub's `from_preset` find made classes under a registered name."""
    register = keras.saving.register_keras_serializable("keras_transfer", name)
    register(AnyMade(name, maker))


def _below(kind: type) -> list[type]:
    direct = kind.__subclasses__()
    return [*direct, *(each for below in direct for each in _below(below))]
