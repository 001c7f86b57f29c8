"""DANN, CORAL and MDD compared with the package `adapt` on MNIST -> MNIST-M.

Claims: the accuracy on the target is at least the accuracy of `adapt`, and an epoch
takes less time. Both use the same network (Ganin et al. 2016), the same 20,000 + 20,000
images, the same number of epochs, batches of 64 from each domain, and SGD with momentum
0.9 at 0.01. Strengths are as in mnist_m.py. `adapt`'s DANN uses the sum of the losses
of the two domains, and our DANN uses their mean. The strength for `adapt` therefore
ends at half of our strength, and the discriminator of `adapt` has half the learning
rate, so the training is equivalent. Deep CORAL is not equivalent. Our method compares
the outputs, as in the paper. `adapt` compares the 768 features, and in version 0.4.5
its encoder gets no gradient from the labels. `adapt` does not run on Keras 3, so pass
the Python of a separate environment, created with
`pip install tensorflow-cpu==2.15.* adapt==0.4.5 "numpy<2" "scikeras<0.13"`. For each
method and seed, the packages run one after the other. The time is the CPU time of
`fit`.

    python benchmarks/adapt_peer.py OTHER_PYTHON [epochs: 6] [seeds: 0] [threads: 2]
"""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

METHODS = ("DANN", "CORAL", "MDD")
KINDS = {"CORAL": "DeepCORAL", "source only": "SourceOnly"}
SIZE, RATE, COUNT = 64, 0.01, 20_000


def data():
    """Return source images and labels, target images, test images and labels."""
    folder = os.environ["KERAS_TRANSFER_DATA"]
    names = ("mnist", "mnistm_train", "mnistm_test")
    source, target, test = (np.load(f"{folder}/{each}.npz") for each in names)
    gray = source["x_train"][:COUNT, ..., None]
    images = (np.repeat(gray, 3, axis=-1), target["x_train"], test["x_test"])
    xs, xt, xe = (each.astype("float32") / 255 for each in images)
    return xs, source["y_train"][:COUNT], xt, xe, test["y_test"]


def layers(L):
    """Return the layers of the extractor, the label head and the domain head."""
    extractor = [
        L.Conv2D(32, 5, activation="relu", input_shape=(28, 28, 3)),
        L.MaxPooling2D(),
        L.Conv2D(48, 5, activation="relu"),
        L.MaxPooling2D(),
        L.Flatten(),
    ]
    label = [L.Dense(100, "relu"), L.Dense(100, "relu"), L.Dense(10, "softmax")]
    return extractor, label, [L.Dense(100, "relu"), L.Dense(1, "sigmoid")]


def peer(method, seed, epochs):
    """Return the accuracy and the CPU seconds per epoch of the package `adapt`."""
    import adapt.feature_based
    import tensorflow as tf
    from adapt.utils import UpdateLambda

    keras = tf.keras
    keras.utils.set_random_seed(seed)
    xs, ys, xt, xe, ye = data()
    encoder, task, discriminator = map(keras.Sequential, layers(keras.layers))
    parts = dict(encoder=encoder, task=task)
    if method == "DANN":
        half = keras.optimizers.SGD(RATE / 2, momentum=0.9)
        parts |= {"discriminator": discriminator, "optimizer_disc": half}
    model = getattr(adapt.feature_based, KINDS.get(method, method))(
        **parts,
        lambda_=1.0 if method == "CORAL" else tf.Variable(0.0),
        loss="categorical_crossentropy",
        optimizer=keras.optimizers.SGD(RATE, momentum=0.9),
        metrics=["accuracy"],
        copy=False,
        verbose=0,
        random_state=seed,
    )
    callbacks = []
    if method != "CORAL":
        end = {"DANN": 0.5, "MDD": 0.1}[method]
        steps = epochs * len(xs) // SIZE
        callbacks = [UpdateLambda(lambda_max=end, max_steps=steps, gamma=10.0)]
    began = time.process_time()
    model.fit(
        xs,
        np.eye(10, dtype="float32")[ys],
        xt,
        epochs=epochs,
        batch_size=SIZE,
        callbacks=callbacks,
        verbose=0,
    )
    seconds = (time.process_time() - began) / epochs
    return float((model.predict(xe).argmax(-1) == ye).mean()), seconds


def ours(method, seed, epochs):
    """Return the accuracy and the CPU seconds per epoch of this package."""
    import keras

    import keras_transfer as kt

    keras.utils.set_random_seed(seed)
    xs, ys, xt, xe, ye = data()
    layers_of = layers(keras.layers)
    encoder, task = layers_of[:2]
    task[-1] = keras.layers.Dense(10)  # logits, with the same loss
    encoder = [keras.Input((28, 28, 3)), _plain(encoder[0]), *encoder[1:]]
    parts = [keras.Sequential(encoder), keras.Sequential(task)]
    model = getattr(kt.models, KINDS.get(method, method))(*parts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"])
    stream = kt.data.domain_dataset((xs, ys), xt, SIZE, seed=seed)
    began = time.process_time()
    model.fit(stream, epochs=epochs, shuffle=False, verbose=0)
    seconds = (time.process_time() - began) / epochs
    outputs = model.predict(xe, batch_size=500, verbose=0)
    return float((outputs.argmax(-1) == ye).mean()), seconds


def _plain(layer):
    """Return a layer without the input shape, which only Keras 2 needs."""
    config = layer.get_config()
    return type(layer).from_config(config)


def worker(side, method, seed, epochs, threads):
    """Run one row in this process and print it."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    run = {"ours": ours, "peer": peer}[side]
    print(json.dumps(run(method, seed, epochs)))


def main(other, epochs="6", seeds="0", threads="2"):
    found = {}
    sides = {"ours": sys.executable, "peer": other}
    for method in ("source only", *METHODS):
        for seed in seeds.split(","):
            for side in ("ours",) if method == "source only" else sides:
                arguments = ["--row", side, method, seed, epochs, threads]
                done = subprocess.run(
                    [sides[side], __file__, *arguments],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    sys.exit(done.stderr[-2000:])
                row = json.loads(done.stdout.splitlines()[-1])
                found.setdefault((method, side), []).append(row)
                print(
                    f"{method:11} {side:5} seed {seed}: accuracy {row[0]:.4f}, ", end=""
                )
                print(f"{row[1]:.1f} CPU s per epoch", flush=True)
    for method in METHODS:
        (ours_at, ours_s), (peer_at, peer_s) = (
            map(statistics.mean, zip(*found[method, side], strict=True))
            for side in ("ours", "peer")
        )
        print(
            f"{method:6} accuracy {ours_at:.4f}, adapt {peer_at:.4f}; "
            f"time of an epoch {ours_s / peer_s:.2f} x of adapt's"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        worker(*sys.argv[2:4], *map(int, sys.argv[4:]))
    else:
        main(*sys.argv[1:])
