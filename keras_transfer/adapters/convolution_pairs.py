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
    """The pair of a Conv2D: A convolves to `rank` channels, B has a window of size 1.

    A `(height, width, in, rank)` has the host's strides, padding and dilation. B is
    `(rank, out)`, as in PEFT. With groups the kernel is `(height, width, in / groups,
    out)`, and A and B are the factors of its change. Then `A B` is formed and used in
    groups like the kernel. PEFT's A mixes the groups, and so cannot be merged.
    """

    # `on_outputs` adds A B, so the methods of the base apply (see `check_overrides`).
    # With groups, A and B alone do not determine the outputs.
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
    """The pair of a Conv1D or Conv3D: `ConvPair` with one or three axes."""

    layer_class = None


@keras.saving.register_keras_serializable("keras_transfer")
class DepthwisePair(LowRankPair):
    """The pair of a depthwise convolution: A over the window, B over the channels.

    The kernel `(height, width, in, multiplier)` changes by `A B`, with A `(height,
    width, rank)` and B `(rank, in, multiplier)`. All channels share `rank` windows, and
    each channel has its own mixture of them.
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
    """The pair of a separable convolution, at its pointwise convolution.

    It adds `h A B`, where h is the result of the depthwise convolution, A is `(in *
    multiplier, rank)` and B is `(rank, out)`. The depthwise kernel does not change.
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
        """Add the pair's product with the inputs of the pointwise convolution."""
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
    """The pair of a transposed convolution: A has size 1, B has the layer's window.

    A `(in, rank)` comes first. B `(rank, height, width, out)` has the strides and the
    padding of the layer. The kernel `(height, width, out, in)` changes by `A B`.
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
    """Return the number of input channels of a convolution."""
    return host.input_spec.axes[-1 if host.data_format == "channels_last" else 1]


def convolve(host: keras.Layer, inputs: object, kernel: object) -> object:
    """Return the convolution of `host` with another kernel and without bias."""
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
    """Return the depthwise convolution of `host` with another kernel, without bias."""
    return ops.depthwise_conv(
        inputs,
        kernel,
        strides=host.strides,
        padding=host.padding,
        data_format=host.data_format,
        dilation_rate=host.dilation_rate,
    )


def mixed(host: keras.Layer, inputs: object, matrix: object) -> object:
    """Return the product of the channels at each position with a matrix."""
    if host.data_format == "channels_last":
        return ops.matmul(inputs, matrix)
    space = SPACE[: host.rank]
    return ops.einsum(f"bi{space},io->bo{space}", inputs, matrix)
