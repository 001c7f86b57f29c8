"""EfficientNet-Lite0 with the weights of efficientnet_lite0_imagenet.npz.

Claim: the network in Keras has the logits of the original. The file has two images and
their logits, and the script exits with 1 if a logit differs by more than 1e-4.
EfficientNet-Lite0 is EfficientNet-B0 without squeeze-and-excitation, with ReLU6, and
with a stem and a head of fixed width. The folder of the file is in
$KERAS_TRANSFER_DATA.

    python benchmarks/efficientnet_lite0.py
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

FILE = "efficientnet_lite0_imagenet.npz"
STEM, HEAD, CLASSES = 32, 1280, 1000
PLAIN = dict(padding="same", use_bias=False)
# Blocks, kernel size, stride of the first block, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TOLERANCE = 1e-4


def preprocess(images):
    """Return images with values from 0 to 255 in the scale of the network."""
    return (np.asarray(images, "float32") - 127) / 128


def network(size, include_top=False):
    """Return the pretrained network for square images of `size` pixels.

    Without its top, it ends with the 1280 channels before the pooling.
    """
    inputs = keras.Input((size, size, 3))
    sources = {}  # layer -> its name in the file

    def convolution(x, layer, source, norm_source, activate=True):
        norm = layers.BatchNormalization(epsilon=1e-3, name=f"{layer.name}_bn")
        sources.update({layer: source, norm: norm_source})
        x = norm(layer(x))
        return layers.ReLU(6.0, name=f"{layer.name}_relu")(x) if activate else x

    stem = layers.Conv2D(STEM, 3, 2, name="stem_conv", **PLAIN)
    x = convolution(inputs, stem, "_conv_stem", "_bn0")
    number = 0
    for stage, (blocks, kernel, first_stride, expansion, filters) in enumerate(
        STAGES, 1
    ):
        for block in range(blocks):
            strides = 1 if block else first_stride
            name, source = f"block{stage}{'abcd'[block]}", f"_blocks.{number}."
            start, width = x, x.shape[-1] * expansion
            if expansion > 1:
                expand = layers.Conv2D(width, 1, name=f"{name}_expand", **PLAIN)
                x = convolution(x, expand, f"{source}_expand_conv", f"{source}_bn0")
            depthwise = layers.DepthwiseConv2D(
                kernel, strides, name=f"{name}_depthwise", **PLAIN
            )
            x = convolution(x, depthwise, f"{source}_depthwise_conv", f"{source}_bn1")
            project = layers.Conv2D(filters, 1, name=f"{name}_project", **PLAIN)
            names = f"{source}_project_conv", f"{source}_bn2"
            x = convolution(x, project, *names, activate=False)
            if strides == 1 and start.shape[-1] == filters:
                x = layers.Add(name=f"{name}_add")([x, start])
            number += 1
    top = layers.Conv2D(HEAD, 1, name="top_conv", **PLAIN)
    x = convolution(x, top, "_conv_head", "_bn1")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        dense = layers.Dense(CLASSES, name="predictions")
        sources[dense] = "_fc"
        x = dense(x)
    model = keras.Model(inputs, x, name="efficientnet_lite0")
    fill(sources, FILE)
    return model


def fill(sources, file):
    """Set the weights of layers to the arrays in a file with PyTorch's layouts.

    Args:
        sources: Dict from layer to its name in the file.
        file: Name of the file in the folder of real data.
    """
    with np.load(data_folder() / file, allow_pickle=False) as arrays:
        for layer, source in sources.items():
            layer.set_weights(_weights(layer, source, arrays))


def data_folder():
    """Return the folder of real data, or exit."""
    folder = os.environ.get("KERAS_TRANSFER_DATA")
    if not folder:
        raise SystemExit(
            "KERAS_TRANSFER_DATA is not set. It is the folder of the data."
        )
    return pathlib.Path(folder)


def _weights(layer, source, arrays):
    """Return the arrays of `source` in the order and layout of a Keras layer."""
    kernel = arrays[f"{source}.weight"]
    if isinstance(layer, layers.BatchNormalization):
        rest = ("bias", "running_mean", "running_var")
        return [kernel, *(arrays[f"{source}.{each}"] for each in rest)]
    if isinstance(layer, layers.Dense):
        return [kernel.T, arrays[f"{source}.bias"]]
    order = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [kernel.transpose(order)]


def main():
    with np.load(data_folder() / FILE, allow_pickle=False) as arrays:
        images, expected = arrays["ref_images"], arrays["ref_logits"]
    model = network(images.shape[1], include_top=True)
    logits = keras.ops.convert_to_numpy(model(preprocess(images), training=False))
    difference = float(np.abs(logits - expected).max())
    print(f"{model.count_params():,} weights, largest difference {difference:.1e}")
    return int(not difference <= TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
