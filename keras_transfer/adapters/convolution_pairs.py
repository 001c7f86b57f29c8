"""Low-rank pairs of convolutions: full, grouped, depthwise, separable, transposed."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.low_rank import LowRankPair

SPACE = "xyz"  # letters for the axes of a window


@keras.saving.register_keras_serializable("keras_transfer")
class ConvPair(LowRankPair):
    """The pair of a Conv2D: A a convolution to `rank` channels, B one of size 1.

    A `(height, width, in, rank)` has the host's strides, padding and dilation, B is
    `(rank, out)`, as PEFT's. With groups the kernel is `(height, width, in / groups,
    out)`, and A and B are the factors of its change, of which each filter has its
    column: `A B` is formed, and convolved with as the kernel is, in groups. PEFT's A
    mixes the groups there, and so cannot be folded.
    """

    # What `on_outputs` adds is A B; with groups `low_rank_factors` alone is not all.
    low_rank_factors = LowRankPair.low_rank_factors
    joined = LowRankPair.joined
    fold = LowRankPair.fold
    peft_tensors = LowRankPair.peft_tensors

    @classmethod
    def shapes(cls, host: keras.Layer) -> tuple[tuple, tuple]:
        """Return the shapes of A and B without the axis of the rank."""
        return (*host.kernel_size, channels(host) // host.groups), (host.filters,)

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the pair's product with the inputs."""
        inputs = self.dropped(inputs)
        a, b = self.factors(inputs.dtype)
        if host.groups != 1:
            return outputs + convolve(host, inputs, self.scaled(ops.matmul(a, b)))
        hidden = self.scaled(convolve(host, inputs, a))
        return outputs + mixed(host, hidden, b)


@keras.saving.register_keras_serializable("keras_transfer")
class AnyConvPair(ConvPair):
    """The pair of a Conv1D or Conv3D: as that of a Conv2D, with one or three axes."""

    layer_class = None


@keras.saving.register_keras_serializable("keras_transfer")
class DepthwisePair(LowRankPair):
    """The pair of a depthwise convolution: A over the window, B over the channels.

    The kernel `(height, width, in, multiplier)` changes by `A B`, with A `(height,
    width, rank)` and B `(rank, in, multiplier)`: all channels share `rank` windows, of
    which each has its own mixture.
    """

    joined = LowRankPair.joined
    fold = LowRankPair.fold
    low_rank_factors = Part.low_rank_factors
    peft_tensors = {}

    @classmethod
    def shapes(cls, host: keras.Layer) -> tuple[tuple, tuple]:
        """Return the shapes of A and B without the axis of the rank."""
        return tuple(host.kernel_size), (channels(host), host.depth_multiplier)

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the convolution with A B."""
        inputs = self.dropped(inputs)
        a, b = self.factors(inputs.dtype)
        return outputs + depthwise(host, inputs, self.scaled(ops.tensordot(a, b, 1)))

    def product(self, host: keras.Layer, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return A B in the shape of the kernel."""
        return np.tensordot(a, b, 1)


@keras.saving.register_keras_serializable("keras_transfer")
class SeparablePair(LowRankPair):
    """The pair of a separable convolution, at the pointwise one of its two.

    With the result h of the depthwise convolution it adds `h A B`: A `(in *
    multiplier, rank)`, B `(rank, out)`. The depthwise kernel stays as it is.
    """

    joined = LowRankPair.joined
    low_rank_factors = Part.low_rank_factors
    peft_tensors = {}

    @classmethod
    def shapes(cls, host: keras.Layer) -> tuple[tuple, tuple]:
        """Return the shapes of A and B without the axis of the rank."""
        return (channels(host) * host.depth_multiplier,), (host.filters,)

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the pair's product with what the pointwise convolution sees."""
        inputs = ops.cast(inputs, self.compute_dtype)
        kernel = ops.cast(host.depthwise_kernel, inputs.dtype)
        hidden = self.dropped(depthwise(host, inputs, kernel))
        a, b = self.factors(inputs.dtype)
        return outputs + mixed(host, self.scaled(mixed(host, hidden, a)), b)

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Add the product to the pointwise kernel."""
        kernels = {"kernel": weights["pointwise_kernel"]}
        super().fold(host, kernels)
        weights["pointwise_kernel"] = kernels["kernel"]


@keras.saving.register_keras_serializable("keras_transfer")
class TransposedPair(LowRankPair):
    """The pair of a transposed convolution: A of size 1, B to the layer's filters.

    A `(in, rank)` comes first, and B `(rank, height, width, out)` has the strides and
    the padding of the layer, whose kernel `(height, width, out, in)` changes by `A B`.
    """

    joined = LowRankPair.joined
    fold = LowRankPair.fold
    low_rank_factors = Part.low_rank_factors
    peft_tensors = {}

    @classmethod
    def shapes(cls, host: keras.Layer) -> tuple[tuple, tuple]:
        """Return the shapes of A and B without the axis of the rank."""
        return (channels(host),), (*host.kernel_size, host.filters)

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the pair's product with the inputs."""
        inputs = self.dropped(inputs)
        a, b = self.factors(inputs.dtype)
        return outputs + ops.conv_transpose(
            self.scaled(mixed(host, inputs, a)),
            ops.moveaxis(b, 0, -1),
            strides=list(host.strides),
            padding=host.padding,
            output_padding=host.output_padding,
            data_format=host.data_format,
            dilation_rate=host.dilation_rate,
        )

    def product(self, host: keras.Layer, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return A B in the shape of the kernel."""
        return np.tensordot(b, a, (0, 1))


def channels(host: keras.Layer) -> int:
    """Return the number of channels that a convolution takes."""
    return host.input_spec.axes[-1 if host.data_format == "channels_last" else 1]


def convolve(host: keras.Layer, inputs: object, kernel: object) -> object:
    """Return what the convolution `host` computes with another kernel and no bias."""
    if host.padding != "causal":
        return host.convolution_op(inputs, kernel)
    before = host.dilation_rate[0] * (host.kernel_size[0] - 1)
    widths = [[0, 0], [before, 0], [0, 0]]
    if host.data_format == "channels_first":
        widths = [[0, 0], [0, 0], [before, 0]]
    return ops.conv(
        ops.pad(inputs, widths),
        kernel,
        strides=list(host.strides),
        dilation_rate=host.dilation_rate,
        data_format=host.data_format,
    )


def depthwise(host: keras.Layer, inputs: object, kernel: object) -> object:
    """Return the depthwise convolution of `host` with another kernel and no bias."""
    return ops.depthwise_conv(
        inputs,
        kernel,
        strides=host.strides,
        padding=host.padding,
        data_format=host.data_format,
        dilation_rate=host.dilation_rate,
    )


def mixed(host: keras.Layer, inputs: object, matrix: object) -> object:
    """Return the product of the channels at each place with a matrix."""
    if host.data_format == "channels_last":
        return ops.matmul(inputs, matrix)
    space = SPACE[: host.rank]
    return ops.einsum(f"bi{space},io->bo{space}", inputs, matrix)
