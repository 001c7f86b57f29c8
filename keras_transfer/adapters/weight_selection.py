"""OwnWeights: the base of recipes that train the model's own weights."""

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
    """A recipe without parts: `chosen` returns the weights of a layer that train.

    The model's own weights change in place. So the model can have no other adapter, and
    this adapter cannot be switched off. `merge` and `detach` both keep the trained
    weights and restore the classes and flags of the layers. Only `merge` can be undone,
    with `unmerge`.

    Args:
        targets: None for all layers below the head that have such weights,
            `"all-linear"`, a regular expression that is searched in the paths, or a
            list of expressions and layers. Defaults to None.
    """

    # Name of the weights in the error for a model without them.
    what = "such weights"

    def chosen(self, layer: keras.Layer) -> Sequence[keras.Variable]:
        """Return the own weights of `layer` that train if it is a target."""
        raise NotImplementedError

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers whose weights train."""
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
        """Return the weights that train."""
        return [each for target in targets for each in self.chosen(target.layer)]


def own_learnable(layer: keras.Layer) -> Sequence[keras.Variable]:
    """Return the own weights of `layer` that can train, even if they are frozen now."""
    first = first_state(layer)
    return first.learnable if first else _keras.learnable(layer)


def is_norm(layer: keras.Layer) -> bool:
    """Return whether `layer` is a normalization with a trainable scale or offset.

    The class name decides, because keras-hub has many own classes, such as
    LlamaLayerNorm. SpectralNormalization does not count: it wraps a layer's kernel.
    """
    named = "Norm" in type(layer).__name__
    wraps = isinstance(layer, keras.layers.Wrapper)
    return named and not wraps and bool(own_learnable(layer))
