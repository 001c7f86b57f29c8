"""Bottleneck adapters: a small network of two layers behind layers of the model."""

from __future__ import annotations

import re

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import uniform
from keras_transfer.adapters.targets import candidates
from keras_transfer.adapters.targets import find
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import projections
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.techniques import what_fits
from keras_transfer.adapters.weight_selection import is_norm
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.projections import ATTENTION_OUTPUTS
from keras_transfer.backbones.projections import FEED_FORWARD_OUTPUTS


@keras.saving.register_keras_serializable("keras_transfer")
class BottleneckPart(Part):
    """Adds `act(h D + d) U + u` to the result h of the host.

    Args:
        size: Columns of D, 1 or more.
        activation: Name of an activation.
        name: Name of the adapter.
        dtype: Policy of the computation.
    """

    in_weights = False

    def __init__(
        self,
        size: int,
        activation: str,
        name: str = "default",
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        self.size = size
        self.activation = activation

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return those of both layers, the second of zeros."""
        width = matrix.sizes(host)[1]
        return {
            "down": ((width, self.size), uniform()),
            "down_bias": ((self.size,), "zeros"),
            "up": ((self.size, width), "zeros"),
            "up_bias": ((width,), "zeros"),
        }

    def on_result(self, host: keras.Layer, outputs: object) -> object:
        """Add what the small network makes of the result."""
        names = (self.down, self.down_bias, self.up, self.up_bias, self.gate)
        down, down_bias, up, up_bias, gate = (ops.cast(x, outputs.dtype) for x in names)
        activation = keras.activations.get(self.activation)
        hidden = activation(ops.matmul(outputs, down) + down_bias)
        return outputs + gate * (ops.matmul(hidden, up) + up_bias)

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Refuse: the activation in it is what no weight of the host can do."""
        raise ValueError(
            f"The bottleneck {self.name!r} behind {host.name!r} cannot be folded: it "
            f"has an activation ({self.activation}) between its two matrices, and no "
            "weight of the layer does the same. Keep the adapter, or remove it with "
            "kt.adapters.detach(model)."
        )

    def get_config(self) -> dict:
        """Return the arguments."""
        own = {"size": self.size, "activation": self.activation}
        return super().get_config() | own


@keras.saving.register_keras_serializable("keras_transfer")
class Bottleneck(Adapter):
    """Put a small network behind each attention and each feed-forward network.

    `h + act(h D + d) U + u` takes the place of h, the result of the last projection of
    a transformer block's attention and of its feed-forward network, before dropout and
    the residual sum. D has `size` columns, U as many rows; a network has
    2 * width * size + size + width parameters. U and u start at zero, so that the model
    starts as it was (the paper draws both at random, 1e-3 wide, nearly so).

    It cannot be folded into the weights: `kt.adapters.merge` is an error, and inference
    costs more than that of the base model, some percent.

    Args:
        size: Whole number, 1 or more, below the width of the layers. Default 64.
        activation: Name of a Keras activation. Default `"gelu"`, as in the authors'
            code.
        targets: None for both places in each block of a transformer, those of
            cross-attention left out. Or `"all-linear"`, a regular expression that is
            searched in the paths, or a list of expressions and layers: any Dense,
            EinsumDense or convolution whose last axis is that of the features.
        norms: Whether the normalizations below the head learn too, as in the paper,
            save BatchNormalization. They are the model's own weights, so such an
            adapter stands alone and cannot be switched off. Default False.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
        kt.adapters.Bottleneck(size=2, targets="all-linear").attach(model)
        names = [variable.name for variable in model.trainable_weights]
        assert names == ["down", "down_bias", "up", "up_bias"]
        ```

    Raises:
        ValueError: If `size` is not in its range or the activation unknown.

    Reference:
        N. Houlsby et al., 2019, "Parameter-Efficient Transfer Learning for NLP",
        arXiv:1902.00751.
    """

    parts = {
        keras.layers.Dense: BottleneckPart,
        keras.layers.EinsumDense: BottleneckPart,
        keras.layers.Conv1D: BottleneckPart,
        keras.layers.Conv2D: BottleneckPart,
        keras.layers.Conv3D: BottleneckPart,
    }
    # Where in a block it goes by default.
    patterns: tuple[re.Pattern, ...] = (ATTENTION_OUTPUTS, FEED_FORWARD_OUTPUTS)

    def __init__(
        self,
        size: int = 64,
        activation: str = "gelu",
        targets: object = None,
        norms: bool = False,
    ) -> None:
        super().__init__(targets)
        self.size = whole_number("size", size)
        if not isinstance(activation, str):
            raise ValueError(
                f"activation={activation!r} must be the name of a Keras activation, "
                "such as 'relu': it is written into the recipe."
            )
        keras.activations.get(activation)  # raises for an unknown one
        self.activation = activation
        self.norms = bool(norms)

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers that a network goes behind."""
        if self.targets is not None:
            return find(model, self.targets, self.parts, type(self).__name__)
        found = projections(model, self.parts, self.patterns)
        if not found:
            paths = [each.path for each in candidates(model, self.parts)][:20]
            raise ValueError(
                f"No default targets are known for the model {model.name!r}: no layer "
                "has the name of a transformer block's last projection. "
                f"{what_fits(model)} Or give a regular expression over "
                f"paths, or layers; its paths are {paths}."
            )
        return found

    def part(self, target: Target) -> Part:
        """Return the network behind one layer."""
        layer = target.layer
        width = matrix.sizes(layer)[1]
        if len(matrix.beside_outputs(layer, np.zeros(width)).shape) != 1:
            raise matrix.Unfit(
                f"The last axis of what {target.path!r} returns is not its features, "
                "so that no network of two matrices can follow. Leave it out of the "
                "targets."
            )
        if self.size >= width:
            raise matrix.Unfit(
                f"size={self.size} is not a bottleneck behind {target.path!r}, which "
                f"is {width} wide. Choose a smaller one."
            )
        return BottleneckPart(self.size, self.activation)

    def trained(
        self, model: keras.Layer, targets: list[Target]
    ) -> list[keras.Variable]:
        """Return the scales and offsets of normalizations, if they learn too."""
        if not self.norms:
            return []
        head = {id(layer) for layer in head_layers(model)}
        return [
            variable
            for layer in located(model).values()
            if is_norm(layer)
            and id(layer) not in head
            and not isinstance(layer, keras.layers.BatchNormalization)
            for variable in _keras.own_weights(layer)
        ]

    def get_config(self) -> dict:
        """Return the arguments."""
        names = ("size", "activation", "norms")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("keras_transfer")
class PfeifferBottleneck(Bottleneck):
    """Put one small network into each block, behind the feed-forward network.

    As `Bottleneck`, with half the parameters and about the same results. The paper
    finds this place best, and uses a width of 1/16 of the model's. Its normalization
    next to the adapter is not copied: the network is where Houlsby's second one is.

    Args:
        size: As in `Bottleneck`. Default 48, the paper's for BERT-base.
        activation: As in `Bottleneck`. Default `"relu"`.
        targets: None for the last projection of each feed-forward network; or as in
            `Bottleneck`.
        norms: As in `Bottleneck`. Default False, as in the paper.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
        kt.adapters.PfeifferBottleneck(size=2, targets="dense").attach(model)
        ```

    Raises:
        ValueError: If `size` is not in its range or the activation unknown.

    Reference:
        J. Pfeiffer et al., 2021, "AdapterFusion: Non-Destructive Task Composition for
        Transfer Learning", arXiv:2005.00247.
    """

    patterns = (FEED_FORWARD_OUTPUTS,)

    def __init__(
        self,
        size: int = 48,
        activation: str = "relu",
        targets: object = None,
        norms: bool = False,
    ) -> None:
        super().__init__(size, activation, targets, norms)
