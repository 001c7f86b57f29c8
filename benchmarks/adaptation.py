"""Does kt.adapt do harm, and how near is it to the best method, which it cannot know?

Each pair of domains has 2,000 labeled source images, 2,000 target images without labels
and 1,000 target images for the table, whose labels nothing else sees. The domains
differ in look, and "tilted" and "thick" also in the frequency of their classes. The
network has two convolutions and 1 dense layer below the head, and pixels are
standardized by domain. "source only" and each method with its defaults train from new
weights for 6 epochs with Adam(1e-3). kt.adapt gets the "source only" network, with 6
epochs for each candidate.

Each run adds a line to adaptation.jsonl, and the table is made from these lines. The
folder of the data is in $KERAS_TRANSFER_DATA.

    python benchmarks/adaptation.py [pairs, such as mnist>digits] [seeds: 1]
"""

import json
import os
import pathlib
import sys

import keras
import numpy as np
from scipy import ndimage

import keras_transfer as kt

RESULTS = pathlib.Path("adaptation.jsonl")
EPOCHS, SIZE, TRAIN, TEST = 6, 32, 2_000, 1_000
PAIRS = (
    "mnist>digits",
    "digits>mnist",
    "mnist>mnist-m",
    "mnist-m>mnist",
    "mnist>tilted",
    "tilted>mnist",
    "mnist>thick",
    "thick>digits",
)
METHODS = ("DeepCORAL", "DAN", "DANN", "CDAN", "MDD", "MCC")
ROWS = ("source only", *METHODS, "kt.adapt")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
L = keras.layers


def load(name):
    """Return the train and the test part of a domain: float32 images and labels."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = keras.ops.image.resize(digits.images[..., None], (28, 28))
        x, y = keras.ops.convert_to_numpy(x).astype("float32"), digits.target
        order = np.random.default_rng(5).permutation(len(y))
        return [(x[rows], y[rows]) for rows in np.split(order, [1_100])]
    default = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("KERAS_TRANSFER_DATA", default))
    if name == "mnist-m":
        files = [(np.load(folder / f"mnistm_{p}.npz"), p) for p in ("train", "test")]
    else:
        files = [(np.load(folder / "mnist.npz"), part) for part in ("train", "test")]
    return [
        change(name, data[f"x_{part}"].astype("float32"), data[f"y_{part}"])
        for data, part in files
    ]


def change(name, x, y):
    """Return images of MNIST in another look, with other frequencies of the classes."""
    x = x if x.ndim == 4 else x[..., None]
    random = np.random.default_rng(7)
    if name == "tilted":  # the digits 5 to 9 are a third as frequent
        rows = np.flatnonzero((y < 5) | (random.random(len(y)) < 1 / 3))[:8_000]
        return ndimage.rotate(x[rows], 35, (1, 2), reshape=False, order=1), y[rows]
    if name == "thick":  # the digits 0 to 4 are a quarter as frequent
        rows = np.flatnonzero((y > 4) | (random.random(len(y)) < 1 / 4))[:8_000]
        x = ndimage.gaussian_filter(
            ndimage.maximum_filter(x[rows], (1, 4, 4, 1)), (0, 1, 1, 0)
        )
        return (x + random.normal(0, 30, x.shape)).astype("float32"), y[rows]
    return x, y


def domains(pair, seed):
    """Return source train, target train and target test, of equal channels."""
    random = np.random.default_rng(seed)
    (source, _), (target, test) = map(load, pair.split(">"))
    channels = max(part[0].shape[-1] for part in (source, target))
    mean, deviation = target[0].mean(), target[0].std()
    parts = []
    for x, y, center, scale, size in (
        (*source, source[0].mean(), source[0].std(), TRAIN),
        (*target, mean, deviation, TRAIN),
        (*test, mean, deviation, TEST),
    ):
        rows = random.permutation(len(y))[:size]
        x = np.repeat(x[rows], channels // x.shape[-1], axis=-1)
        parts.append(((x - center) / scale, y[rows].astype("int64")))
    return parts


def network(channels):
    """Return a feature extractor and a label head."""
    layers = [keras.Input((28, 28, channels))]
    for filters in (16, 32):
        layers.append(L.Conv2D(filters, 3, padding="same", activation="relu"))
        layers.append(L.MaxPooling2D())
    extractor = keras.Sequential([*layers, L.Flatten(), L.Dense(128, "relu")])
    return extractor, L.Dense(10)


def compiled(model):
    model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    return model


def run(pair, row, seed):
    """Return the accuracy on the test part of the target, and what was chosen."""
    source, (unlabeled, _), test = domains(pair, seed)
    keras.utils.set_random_seed(1_000 + seed)
    body, head = network(source[0].shape[-1])
    if row in METHODS:
        model = compiled(getattr(kt.models, row)(body, head))
        data = kt.data.domain_dataset(source, unlabeled, SIZE, seed=seed)
        model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0)
    else:
        model = compiled(keras.Sequential([body.inputs[0], *body.layers, head]))
        model.fit(*source, epochs=EPOCHS, batch_size=SIZE, verbose=0)
    chosen = ""
    if row == "kt.adapt":
        model = kt.adapt(model, source, unlabeled, epochs=EPOCHS, verbose=0)
        chosen = model.adaptation.chosen
    outputs = model.predict(test[0], batch_size=250, verbose=0)
    return float((outputs.argmax(1) == test[1]).mean()), chosen


def read():
    """Return the finished runs: pair, row and seed -> accuracy and choice."""
    if not RESULTS.exists():
        return {}
    lines = map(json.loads, RESULTS.read_text().splitlines())
    return {(x["pair"], x["row"], x["seed"]): x for x in lines}


def show(results):
    """Print the table: a line for each pair, with means over seeds."""
    names = "".join(f"{row:>10}" for row in ROWS[1:])
    print(f"{'pair':15}{ROWS[0]}{names}  chosen")
    regrets, gains = [], []
    for pair in PAIRS:
        runs = {
            row: [x for key, x in results.items() if key[:2] == (pair, row)]
            for row in ROWS
        }
        if not all(runs.values()):
            continue
        means = [np.mean([x["accuracy"] for x in runs[row]]) for row in ROWS]
        chosen = ", ".join(sorted({x["chosen"] for x in runs["kt.adapt"]}))
        cells = "".join(f"{mean:10.3f}" for mean in means[1:])
        print(f"{pair:15}{means[0]:11.3f}{cells}  {chosen}")
        gains.append(means[-1] - means[0])
        regrets.append(max(means[:-1]) - means[-1])
    if gains:
        print(
            f"kt.adapt above source only: {np.mean(gains):+.3f} on average, "
            f"{min(gains):+.3f} at worst.\n"
            f"Below the best row: {np.mean(regrets):.3f} on average, "
            f"{max(regrets):.3f} at worst."
        )


if __name__ == "__main__":
    pairs = sys.argv[1].split(",") if len(sys.argv) > 1 else PAIRS
    seeds = map(int, sys.argv[2].split(",") if len(sys.argv) > 2 else ["1"])
    for seed in seeds:
        for pair in pairs:
            for row in ROWS:
                if (pair, row, seed) in read():
                    continue
                accuracy, chosen = run(pair, row, seed)
                line = dict(pair=pair, row=row, seed=seed, accuracy=accuracy)
                line["chosen"] = chosen
                with RESULTS.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(pair, row, seed, f"{accuracy:.3f}", chosen, flush=True)
    show(read())
