"""ResNet-20 from CIFAR-10, with the weights of resnet20_cifar10.npz.

Claim: the network in Keras is as accurate as the original, 0.918 on CIFAR-10, within
two standard errors on the 1,000 test images of cifar10_small.npz. Its shortcuts have no
weights (option A of He et al. 2015): they leave out pixels and add channels of zeros.
The folder of both files is in $KERAS_TRANSFER_DATA.

    python benchmarks/resnet20.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import efficientnet_lite0
import keras
import numpy as np
from keras import layers
from keras import ops

FILE, TEST = "resnet20_cifar10.npz", "cifar10_small.npz"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS, FILTERS, CLASSES = 3, (16, 32, 64), 10
ACCURACY, TOLERANCE = 0.918, 0.018


def preprocess(images):
    """Return images with values from 0 to 255 in the scale of the network."""
    return ((np.asarray(images, "float32") / 255 - MEAN) / DEVIATION).astype("float32")


def network(include_top=False):
    """Return the pretrained network for images of 32 x 32 pixels.

    Without its top, it ends with the 64 channels before the pooling.
    """
    inputs = keras.Input((32, 32, 3))
    sources = {}  # layer -> its name in the file

    def convolution(x, filters, strides, name, source, number):
        # PyTorch pads both sides, and "same" with strides of 2 pads only one.
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        layer = layers.Conv2D(filters, 3, strides, use_bias=False, name=f"{name}_conv")
        norm = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")
        sources[layer], sources[norm] = f"{source}conv{number}", f"{source}bn{number}"
        return norm(layer(x))

    x = layers.ReLU(name="stem_relu")(convolution(inputs, 16, 1, "stem", "", 1))
    for stage, filters in enumerate(FILTERS, 1):
        for block in range(BLOCKS):
            strides = 2 if stage > 1 and block == 0 else 1
            name, source = f"stage{stage}_block{block + 1}", f"layer{stage}.{block}."
            start = x
            x = convolution(x, filters, strides, f"{name}_1", source, 1)
            x = layers.ReLU(name=f"{name}_1_relu")(x)
            x = convolution(x, filters, 1, f"{name}_2", source, 2)
            if strides == 2:
                zeros = (filters - start.shape[-1]) // 2
                start = layers.AveragePooling2D(1, 2, name=f"{name}_pool")(start)
                start = ops.pad(start, ((0, 0), (0, 0), (0, 0), (zeros, zeros)))
            x = layers.Add(name=f"{name}_add")([x, start])
            x = layers.ReLU(name=f"{name}_2_relu")(x)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        dense = layers.Dense(CLASSES, name="predictions")
        sources[dense] = "linear"
        x = dense(x)
    model = keras.Model(inputs, x, name="resnet20")
    efficientnet_lite0.fill(sources, FILE)
    return model


def main():
    with np.load(efficientnet_lite0.data_folder() / TEST, allow_pickle=False) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    logits = network(include_top=True).predict(preprocess(images), verbose=0)
    accuracy = float((logits.argmax(-1) == labels).mean())
    print(f"accuracy {accuracy:.3f}")
    return int(abs(accuracy - ACCURACY) > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
