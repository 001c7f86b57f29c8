"""Bottleneck adapters: a small network of two layers after layers of the model."""

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
    """Add `act(h D + d) U + u` to the result h of the host.

    Args:
        size: Number of columns of D, 1 or more.
        activation: Name of a Keras activation.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
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
        """Return the weights of both layers. The second layer starts at zero."""
        width = matrix.sizes(host)[1]
        return {
            "down": ((width, self.size), uniform()),
            "down_bias": ((self.size,), "zeros"),
            "up": ((self.size, width), "zeros"),
            "up_bias": ((width,), "zeros"),
        }

    def on_result(self, host: keras.Layer, outputs: object) -> object:
        """Add the outputs of the small network for the result."""
        names = (self.down, self.down_bias, self.up, self.up_bias, self.gate)
        down, down_bias, up, up_bias, gate = (ops.cast(x, outputs.dtype) for x in names)
        activation = keras.activations.get(self.activation)
        hidden = activation(ops.matmul(outputs, down) + down_bias)
        return outputs + gate * (ops.matmul(hidden, up) + up_bias)

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Refuse, because no weight of the host can replace the activation."""
        raise ValueError(
            f"The bottleneck {self.name!r} after {host.name!r} cannot be merged. It "
            f"has an activation ({self.activation}) between its two matrices, and no "
            "weight of the layer can replace it. Keep the adapter, or remove it with "
            "kt.adapters.detach(model)."
        )

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        own = {"size": self.size, "activation": self.activation}
        return super().get_config() | own


@keras.saving.register_keras_serializable("keras_transfer")
class Bottleneck(Adapter):
    """Add a small network after each attention and each feed-forward network.

    Let h be the result of the last projection of a transformer block's attention or of
    its feed-forward network, before dropout and the residual sum. This adapter replaces
    h by `h + act(h D + d) U + u`. D has `size` columns and U has `size` rows, so each
    network has 2 * width * size + size + width parameters. U and u start at zero, so
    attaching does not change the outputs. (The paper draws both at random with a width
    of 1e-3, which nearly keeps the outputs.)

    The network cannot be merged into the weights. `kt.adapters.merge` raises an error,
    and inference costs a few percent more than with the base model.

    Args:
        size: Whole number, 1 or more, below the width of the layers. Defaults to 64.
        activation: Name of a Keras activation. Defaults to `"gelu"`, as in the authors'
            code.
        targets: None, `"all-linear"`, a regular expression that is searched in the
            paths, or a list of expressions and layers. None selects both places in each
            block of a transformer, without cross-attention. A Dense, EinsumDense or
            convolution can be a target if its last axis is the features. Defaults to
            None.
        norms: Whether the normalizations below the head also train, as in the paper,
            except BatchNormalization. This changes the model's own weights, so the
            model can have no other adapter, and this adapter cannot be switched off.
            Defaults to False.

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
        ValueError: If `size` is out of range or the activation is unknown.

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
    # The default targets in a block.
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
                "such as 'relu', because files store it as JSON."
            )
        keras.activations.get(activation)  # raises for an unknown activation
        self.activation = activation
        self.norms = bool(norms)

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers that get a network."""
        if self.targets is not None:
            return find(model, self.targets, self.parts, type(self).__name__)
        found = projections(model, self.parts, self.patterns)
        if not found:
            paths = [each.path for each in candidates(model, self.parts)][:20]
            raise ValueError(
                f"No default targets are known for the model {model.name!r}, because "
                "no layer has the name of a transformer block's last projection. "
                f"{what_fits(model)} Or give a regular expression over "
                f"paths, or layers. The paths are {paths}."
            )
        return found

    def part(self, target: Target) -> Part:
        """Return the network after one layer."""
        layer = target.layer
        width = matrix.sizes(layer)[1]
        if len(matrix.beside_outputs(layer, np.zeros(width)).shape) != 1:
            raise matrix.Unfit(
                f"The last axis of the outputs of {target.path!r} is not the features, "
                "so a network of two matrices cannot follow this layer. Leave it out "
                "of the targets."
            )
        if self.size >= width:
            raise matrix.Unfit(
                f"size={self.size} is not a bottleneck after {target.path!r}, which "
                f"has {width} outputs. Choose a smaller size."
            )
        return BottleneckPart(self.size, self.activation)

    def trained(
        self, model: keras.Layer, targets: list[Target]
    ) -> list[keras.Variable]:
        """Return the scales and offsets of normalizations if `norms` is True."""
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
        """Return the constructor arguments."""
        names = ("size", "activation", "norms")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("keras_transfer")
class PfeifferBottleneck(Bottleneck):
    """Add one small network to each block, after the feed-forward network.

    This works as `Bottleneck`, with half the parameters and about the same results. The
    paper finds this place best, and uses 1/16 of the model's width. Unlike the paper,
    this adapter adds no normalization. The network is in the place of the second
    network of Houlsby et al.

    Args:
        size: As in `Bottleneck`. Defaults to 48, as in the paper for BERT-base.
        activation: As in `Bottleneck`. Defaults to `"relu"`.
        targets: As in `Bottleneck`, but None selects only the last projection of each
            feed-forward network. Defaults to None.
        norms: As in `Bottleneck`. Defaults to False, as in the paper.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
        kt.adapters.PfeifferBottleneck(size=2, targets="dense").attach(model)
        ```

    Raises:
        ValueError: If `size` is out of range or the activation is unknown.

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
