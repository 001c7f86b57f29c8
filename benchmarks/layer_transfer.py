"""Yosinski's curve in small: which blocks of a ResNet transfer to another domain?

Claim: `kt.analysis.layer_transferability` shows how general each block is. The network
was trained on plain digits (A). The task (B) is digits over photographs with 400
labels, measured on 550 other images.

    python benchmarks/layer_transfer.py [--seeds 3] [--epochs 15]
"""

import argparse

import keras
import keras_hub

import keras_transfer as kt


def network():
    """Return a new classifier of digits with four residual blocks."""
    filters, blocks, strides = [64, 64], [2, 2], [1, 2]
    backbone = keras_hub.models.ResNetBackbone(
        [64], [3], filters, blocks, strides, "basic_block", image_shape=(16, 16, 3)
    )
    return kt.models.TransferClassifier(backbone, num_classes=10)


def compiled(model):
    """Compile a model, and return it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    source = kt.data.digits.load_source()
    target = kt.data.digits.load_target(labels_per_class=40)
    keras.utils.set_random_seed(0)
    old = network()
    varied = keras.Sequential([kt.layers.DomainRandomization(), old])
    compiled(varied).fit(*source.train, epochs=10, verbose=0)

    def build(pretrained):
        model = network()
        if pretrained:
            model.backbone.set_weights(old.backbone.get_weights())
        return compiled(model)

    found = kt.analysis.layer_transferability(
        build,
        target.train,
        test=target.test,
        seeds=options.seeds,
        epochs=options.epochs,
    )
    print(found)
    found.plot("layer_transfer.png")


if __name__ == "__main__":
    main()
