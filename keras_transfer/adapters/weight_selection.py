"""OwnWeights: the base of recipes that train weights which the model has already."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import select
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.techniques import what_fits
from keras_transfer.backbones.layer_paths import located


class OwnWeights(Adapter):
    """A recipe without parts: `chosen` says which weights of a layer learn.

    These are the model's own, changed in place. So such an adapter stands alone, and
    cannot be switched off; `merge` and `detach` both leave what was learned, give the
    layers their classes and flags back, and differ in that `unmerge` undoes the former.

    Args:
        targets: None for all layers below the head that have such weights,
            `"all-linear"`, a regular expression that is searched in the paths, or a
            list of expressions and layers.
    """

    # What the weights are called in the error if there are none.
    what = "such weights"

    def chosen(self, layer: keras.Layer) -> Sequence[keras.Variable]:
        """Return the weights of `layer` itself that learn if it is a target."""
        raise NotImplementedError

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers of which weights learn."""
        head = {id(layer) for layer in head_layers(model)}
        known = [
            Target(layer, path or layer.name)
            for path, layer in located(model).items()
            if id(layer) not in head
            and not isinstance(layer, Part)
            and self.chosen(layer)
        ]
        if not known:
            raise ValueError(
                f"The model {model.name!r} has no {self.what} below its head, so "
                f"{type(self).__name__} has nothing to train. "
                f"{what_fits(model)}"
            )
        if self.targets is None:
            return known
        return select(model, self.targets, known, f"has no {self.what}")

    def trained(
        self, model: keras.Layer, targets: list[Target]
    ) -> list[keras.Variable]:
        """Return the weights that learn."""
        return [each for target in targets for each in self.chosen(target.layer)]


def own_learnable(layer: keras.Layer) -> Sequence[keras.Variable]:
    """Return the weights of `layer` itself that learn as a rule, held now or not."""
    first = first_state(layer)
    return first.learnable if first else _keras.learnable(layer)


def is_norm(layer: keras.Layer) -> bool:
    """Return whether `layer` normalizes, with a scale or offset that can learn.

    By the name of its class: keras-hub has many of its own, such as LlamaLayerNorm.
    SpectralNormalization is another thing, a wrapper that has the kernel of its layer.
    """
    named = "Norm" in type(layer).__name__
    wraps = isinstance(layer, keras.layers.Wrapper)
    return named and not wraps and bool(own_learnable(layer))
