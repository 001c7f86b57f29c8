"""What kt.retune keeps and gains, next to training on the new data alone.

A network learns MNIST and is served. Later it gets labeled digits over photographs
(MNIST-M). It is trained on them with replay of old digits, as `kt.retune` does, and
without. The figures are accuracies on the test parts of both, which neither sees.

    KERAS_TRANSFER_DATA=<folder> PYTHONPATH=. python benchmarks/retune.py

Options: --seeds 0 1 2, --labels 1000 (new examples), --old 2000, --epochs 10.
"""

import argparse
import os
import pathlib
import tempfile

import keras
import numpy as np

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--labels", type=int, default=1000, help="new examples")
parser.add_argument("--old", type=int, default=2000, help="old examples")
parser.add_argument("--epochs", type=int, default=10, help="passes over the new ones")
options = parser.parse_args()
DATA = pathlib.Path(os.environ["KERAS_TRANSFER_DATA"])
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits(file, part, count, seed):
    """Return random examples of a file, as RGB images from 0 to 1."""
    with np.load(DATA / file, allow_pickle=False) as arrays:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    rows = np.random.default_rng(seed).permutation(len(x))[:count]
    x = x[rows].astype("float32") / 255
    return (x if x.ndim == 4 else np.repeat(x[..., None], 3, -1)), y[rows].astype(int)


def network(seed, weights=None):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((28, 28, 3))]
    for filters in (16, 32, 32):
        layers.append(keras.layers.Conv2D(filters, 3, 2, activation="relu"))
    layers += [keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    if weights is not None:
        model.set_weights(weights)
    model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    return model


def accuracies(model, tests):
    return [model.evaluate(*test, verbose=0)[1] for test in tests]


def main():
    rows = {"before": [], "new data alone": [], "kt.retune": []}
    decisions = []
    for seed in options.seeds:
        old = digits("mnist.npz", "train", options.old, seed)
        new = digits("mnistm_train.npz", "train", options.labels, seed)
        tests = digits("mnist.npz", "test", 3000, 0)
        tests = tests, digits("mnistm_test.npz", "test", 3000, 0)
        model = network(seed)
        kept = ~kt.data.is_held_out(old[0])
        model.fit(old[0][kept], old[1][kept], epochs=15, verbose=0)
        learned = model.get_weights()
        rows["before"].append(accuracies(model, tests))
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder, "digits")
            kt.export_serving(network(seed, learned), folder)
            model = network(seed, learned)
            model.fit(*new, epochs=options.epochs, verbose=0)
            rows["new data alone"].append(accuracies(model, tests))
            model = network(seed, learned)
            result = kt.retune(
                model, new, old, folder, epochs=options.epochs, verbose=0
            )
            rows["kt.retune"].append(accuracies(model, tests))
            print(result, flush=True)
            decisions.append(result.version or "refused")
    print(f"\nversions: {decisions}\n{'':16}  {'old digits':>15}  {'new digits':>15}")
    for name, found in rows.items():
        cells = zip(np.mean(found, axis=0), np.std(found, axis=0), strict=True)
        shown = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in cells]
        print(f"{name:16}  " + "  ".join(cell.rjust(15) for cell in shown))


main()
