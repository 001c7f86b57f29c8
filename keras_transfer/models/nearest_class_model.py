"""NearestClassModel: the base class of classifiers whose classes come and go."""

from __future__ import annotations

import math
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import fraction
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.features import connect
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.data.labels import listed
from keras_transfer.models.backbone_model import BackboneModel
from keras_transfer.models.class_prototypes import ClassPrototypes

BATCH_SIZE = 32
UNKNOWN = "unknown"
LOWEST = float(np.finfo("float32").min)


class UnknownThreshold(NamedTuple):
    """The threshold of `fit_unknown`, and how it divides the held-out examples.

    Attributes:
        threshold: The lowest score of an example that is not unknown.
        known_rejected: Share of the examples of known classes below it.
        unknown_accepted: Share of the examples of other classes that are not below it,
            or None without such examples.
    """

    threshold: float
    known_rejected: float
    unknown_accepted: float | None


@keras.saving.register_keras_serializable(package="keras_transfer")
class NearestClassModel(BackboneModel):
    """A backbone, and a vector for each class, which can be added and removed.

    Args:
        backbone: As in `kt.models.TransferClassifier`.
        distance: As in `ClassPrototypes`.
        temperature: As in `ClassPrototypes`.
        pooling: As in `kt.backbones.features`.
        name: Name of the model.
    """

    def __init__(
        self,
        backbone: keras.Model | FrozenBackbone,
        *,
        distance: str,
        temperature: float,
        pooling: str | None,
        name: str | None,
    ):
        inputs, features, unused = connect(backbone, pooling)
        if len(features.shape) != 2 or features.shape[-1] is None:
            raise ValueError(
                f"The features of '{backbone.name}' have the shape "
                f"{tuple(features.shape)}, but a class needs one vector of known width "
                "for each example. Choose a pooling, or end the backbone in Flatten."
            )
        scores = ClassPrototypes(distance, temperature, name="classes")
        super().__init__(inputs, scores(features), unused, name)
        self.backbone = backbone
        self.pooling = pooling
        self._class_names: tuple[str, ...] = ()
        network = keras.Model(inputs, features)
        # A lambda hides the network from Keras, which tracks its layers already.
        self._network = lambda: network

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `predict`."""
        return self._class_names

    @property
    def unknown_threshold(self) -> float | None:
        """The score below which an example is unknown, or None."""
        found = float(_keras.value(self._classes.unknown_below))
        return None if found == LOWEST else found

    def remove_class(self, name: str) -> None:
        """Remove a class. The next `predict` has one column less.

        Raises:
            ValueError: If there is no such class.
        """
        place = self._place(name)
        names = tuple(each for each in self.class_names if each != name)
        matrix = _keras.value(self._classes.prototypes)
        self._set_classes(names, np.delete(matrix, place, axis=0))

    def classify(self, x: Any, batch_size: int = BATCH_SIZE) -> list[str]:
        """Return the name of the nearest class, or `"unknown"` below the threshold.

        Args:
            x: Inputs, as `predict` takes them.
            batch_size: Number of examples that run at once. Defaults to 32.

        Raises:
            ValueError: If there is no class.
        """
        whole_number("batch_size", batch_size)
        scores = self.predict(x, batch_size=batch_size, verbose=0)
        lowest = _keras.value(self._classes.unknown_below)
        return [
            self.class_names[row.argmax()] if row.max() >= lowest else UNKNOWN
            for row in scores
        ]

    def fit_unknown(
        self, x: Any, y: Any, rate: float = 0.05, batch_size: int = BATCH_SIZE
    ) -> UnknownThreshold:
        """Choose the score below which an example belongs to no class.

        The threshold is the largest one at which at most `rate` of the examples of the
        model's classes are rejected. From n such examples, a rate below 1 / n rejects
        none of them, and each rate keeps at least one. `predict` does not change.
        `classify` and the signatures of `kt.export_serving` then answer `"unknown"`
        below the threshold, which is saved with the model. It stays as it is if classes
        are added or removed: fit it again then.

        Args:
            x: Held-out examples, which were not given to `add_class`.
            y: Their class names. Names that are not in `class_names` count as unknown;
                they do not change the threshold, but tell how well it works.
            rate: Float from 0 to 1, the share of known examples that may be rejected.
                Defaults to 0.05.
            batch_size: Number of examples that run at once. Defaults to 32.

        Raises:
            ValueError: If there is no example of a known class, or `rate` is out of
                range.
        """
        fraction("rate", rate)
        names = np.asarray(y).astype(str)
        scores = self.predict(x, batch_size=batch_size, verbose=0)
        if names.shape != (len(scores),):
            raise ValueError(
                f"x has {len(scores)} examples, but y has the shape {names.shape}. "
                "Pass the name of the class of each example."
            )
        known = np.isin(names, self.class_names)
        if not known.any():
            raise ValueError(
                f"None of the examples has a class of the model. Their classes are "
                f"{listed(np.unique(names))}, and those of the model "
                f"{listed(self.class_names)}. Pass examples of the model's classes."
            )
        best = scores.max(1)
        _check_finite(best[:, None], "The scores of the examples")
        count = int(known.sum())
        rejected = min(math.floor(rate * count + 1e-9), count - 1)  # 0.29 * 100 < 29
        threshold = np.sort(best[known])[rejected]
        self._classes.unknown_below.assign(threshold)
        accepted = None if known.all() else float((best[~known] >= threshold).mean())
        rejected = float((best[known] < threshold).mean())
        return UnknownThreshold(float(threshold), rejected, accepted)

    def forget_unknown(self) -> None:
        """Remove the threshold of `fit_unknown`: each example gets a class."""
        self._classes.unknown_below.assign(LOWEST)

    @property
    def _classes(self) -> ClassPrototypes:
        return self.get_layer("classes")

    def _place(self, name: str) -> int:
        if name not in self.class_names:
            raise ValueError(
                f"There is no class {name!r}. The classes are "
                f"{listed(self.class_names) or 'none'}."
            )
        return self.class_names.index(name)

    def _check_new(self, name: object) -> str:
        if not isinstance(name, str) or not name:
            raise ValueError(f"The name of a class is a str, not {name!r}.")
        if name == UNKNOWN:
            raise ValueError(
                f"{UNKNOWN!r} is the answer for examples of no class. Choose another "
                "name."
            )
        if name in self.class_names:
            raise ValueError(
                f"There is a class {name!r} already. To replace it, call "
                f"remove_class({name!r}) first. Its column is then the last one."
            )
        return name

    def _append(self, name: str, vector: np.ndarray) -> None:
        matrix = _keras.value(self._classes.prototypes)
        matrix = np.concatenate([matrix, vector[None].astype("float32")])
        self._set_classes((*self.class_names, name), matrix)

    def _set_classes(self, names: tuple[str, ...], matrix: np.ndarray) -> None:
        with _keras.scope(self):
            self._classes.set_prototypes(np.asarray(matrix, "float32"))
        self._class_names = names
        remember_class_names(self, names or None)
        # A traced function has the old number of classes.
        _keras.forget_traces(self)

    def _vectors(
        self, x: Any, batch_size: int, network: keras.Model | None = None
    ) -> np.ndarray:
        """Return the features of examples, as float32 `(examples, width)`."""
        network = network or self._network()
        # Called, not predicted: `predict` of another model would keep a trace, of
        # which the model that a user changes knows nothing.
        count, found = len(keras.tree.flatten(x)[0]), []
        for start in range(0, count, batch_size):
            rows = slice(start, start + batch_size)
            batch = keras.tree.map_structure(lambda a, rows=rows: a[rows], x)
            found.append(_keras.value(network(batch, training=False)))
        vectors = np.concatenate(found).astype("float32")
        _check_finite(vectors, "The features of the examples")
        return vectors

    def get_config(self) -> dict:
        """Return the arguments, the trainable flags and the names of the classes."""
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "temperature": self._classes.temperature,
            "pooling": self.pooling,
            "name": self.name,
            **self.flags_config(),
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> NearestClassModel:
        """Return the model from its config, with room for the vectors of its classes.

        Keras loads the values of the vectors later, with the other weights.
        """
        names = tuple(config.get("class_names") or ())
        config = {key: config[key] for key in config if key != "class_names"}
        model = super().from_config(config, custom_objects)
        width = model._classes.prototypes.shape[1]
        model._set_classes(names, np.zeros((len(names), width)))
        return model


def _check_finite(values: np.ndarray, what: str) -> None:
    broken = ~np.isfinite(values).all(1)
    if broken.any():
        raise ValueError(
            f"{what} are NaN or infinite for {broken.sum()} of {len(values)} examples "
            f"(the first has the index {broken.argmax()}). The examples themselves can "
            "have such values, or the weights of the backbone. Nothing was changed."
        )
