"""Is a pretrained network worth it with 100 labels, and how should it train?

Learned: what transfer gains over training from scratch, and which way of training is
best. Data: digits over photographs, 10 labels per class, 550 test images; the network
was trained on plain digits. No download. Time: about 2 minutes on 2 cores. Expect an
accuracy of 0.52 from scratch, 0.80 without training, and 0.79 with a trained head.
"""
# ruff: noqa: E402

import os
import sys

sys.stderr = os.fdopen(os.dup(2), "w")  # errors of Python still show, but the
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # log lines of TensorFlow do not

import keras
import keras_hub

import keras_transfer as kt

SMOKE = "--smoke" in sys.argv
source, target = kt.data.digits.load_source(), kt.data.digits.load_target()


def build(pretrained):
    """Return a new compiled model, with pretrained weights or without."""
    backbone = keras_hub.models.ResNetBackbone(  # filters and kernels, then stages
        [64], [3], [64, 64], [1, 1], [1, 2], "basic_block", image_shape=(16, 16, 3)
    )
    if pretrained:
        backbone.set_weights(network.backbone.get_weights())
    return compiled(kt.models.TransferClassifier(backbone, num_classes=10))


def compiled(model):
    """Compile a model, and return it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    return model


keras.utils.set_random_seed(0)
network = build(pretrained=False)  # yours comes from keras-hub or keras.applications
varied = keras.Sequential([kt.layers.DomainRandomization(), network])
print("Pretraining on plain digits", flush=True)
compiled(varied).fit(*source.train, epochs=1 if SMOKE else 10, verbose=0)

verdict = kt.compare(
    build,
    target.train,
    test=target.test,
    zero_shot=network,  # both domains have the same classes
    strategies=("scratch", "probe", "lp-ft", "full"),
    seeds=1 if SMOKE else 3,
    epochs=1 if SMOKE else 40,
)
print(verdict)
verdict.plot("quickstart.png")
verdict.save("verdict.html")
print("Saved quickstart.png and verdict.html, a page for the browser")
