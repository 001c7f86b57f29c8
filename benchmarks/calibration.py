"""Calibration, conformal sets and abstention on real images, also under shift.

Question: how far are confidence and accuracy apart before and after `kt.calibrate`, do
sets of classes cover as often as asked, and what is left of it on other data? Two
networks: the ResNet-20 of CIFAR-10 on its test images, and a small network for MNIST
that has learned 1,000 digits by heart. Shift: noise on the images of CIFAR-10, and the
digits over photographs of MNIST-M. Half of the held-out images calibrates, the other
half is measured. Other tool: CalibratedClassifierCV of scikit-learn on the same logits.

    python benchmarks/calibration.py [seeds]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
import time

import efficientnet_lite0
import keras
import numpy as np
import resnet20
from sklearn.base import BaseEstimator
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

import keras_transfer as kt

NOISE = 20  # standard deviation, in values from 0 to 255
DIGITS, EPOCHS, HELD_OUT = 1000, 30, 2000
COVERAGE, RISK, RAPS = 0.9, 0.05, (0.1, 1)
OURS = ("none", "temperature", "vector", "isotonic")
PEER = {"sklearn temperature": "temperature", "sklearn isotonic": "isotonic"}
COLUMNS = ("ece", "rms_debiased", "log_loss", "accuracy")


class Given(ClassifierMixin, BaseEstimator):
    """An estimator of scikit-learn whose decision is its input."""

    def fit(self, x, y):
        """Remember the classes."""
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        """Return the logits."""
        return x

    def predict(self, x):
        """Return the class of the largest logit."""
        return self.classes_[x.argmax(1)]


def load(name):
    """Return the arrays of a file."""
    path = efficientnet_lite0.data_folder() / f"{name}.npz"
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def cifar():
    """Return a function from seeds to logits and labels, plain and shifted."""
    arrays = load("cifar10_small")
    images, labels = arrays["x_test"].astype("float32"), arrays["y_test"].astype(int)
    noise = np.random.default_rng(0).normal(size=images.shape) * NOISE
    network = resnet20.network(include_top=True)
    plain, shifted = (
        network.predict(resnet20.preprocess(x), verbose=0)
        for x in (images, np.clip(images + noise, 0, 255))
    )
    return lambda seed: ((plain, labels), (shifted, labels))


def mnist():
    """Return a function from seeds to logits and labels, plain and shifted."""
    digits, photographs = load("mnist"), load("mnistm_test")

    def scaled(x):
        x = np.asarray(x, "float32") / 255
        return x.mean(-1, keepdims=True) if x.ndim == 4 else x[..., None]

    def outputs(seed):
        keras.utils.set_random_seed(seed)
        random = np.random.default_rng(seed)
        chosen = random.permutation(len(digits["y_train"]))[:DIGITS]
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Conv2D(16, 5, 2, activation="relu"),
                keras.layers.Conv2D(32, 3, 2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=False)
        x, y = scaled(digits["x_train"][chosen]), digits["y_train"][chosen]
        model.fit(x, y, epochs=EPOCHS, batch_size=50, verbose=0)
        return tuple(
            (model.predict(scaled(a["x_test"][:HELD_OUT]), verbose=0), y)
            for a in (digits, photographs)
            for y in [a["y_test"][:HELD_OUT].astype(int)]
        )

    return outputs


def measured(outputs, seed):
    """Return the measures of each method, and of sets and abstention, by domain."""
    (plain, labels), (shifted, others) = outputs
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out, rest = order[: len(order) // 2], order[len(order) // 2 :]
    domains = {"test": (plain[rest], labels[rest]), "shift": (shifted, others)}
    # The logits are computed once, so the classifier is a layer that returns them.
    model = keras.Sequential([keras.Input((10,)), keras.layers.Activation("linear")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, jit_compile=False)
    data, found = (plain[held_out], labels[held_out]), {}
    models = {"none": model}
    models |= {name: kt.calibrate(model, data, method=name) for name in OURS[1:]}
    for name, each in models.items():
        for domain, part in domains.items():
            error = kt.analysis.calibration_error(each, part).to_dict()
            found[name, domain] = [error[column] for column in COLUMNS]
    for name, method in PEER.items():
        given = FrozenEstimator(Given().fit(*data))
        peer = CalibratedClassifierCV(given, method=method).fit(*data)
        for domain, (x, y) in domains.items():
            shares = peer.predict_proba(x)
            error = kt.analysis.calibration_error(shares, y).to_dict()
            found[name, domain] = [error[column] for column in COLUMNS]
    for method in ("lac", "aps", "raps"):
        raps = RAPS if method == "raps" else None
        sets = kt.analysis.conformal(
            model, data, coverage=COVERAGE, method=method, raps=raps
        )
        for domain, part in domains.items():
            coverage = sets.measure(part)
            found[method, domain] = [coverage.coverage, coverage.mean_size]
    abstention = kt.analysis.abstention(model, data, risk=RISK)
    for domain, part in domains.items():
        found["abstention", domain] = abstention.measure(part)[:2]
    found["temperature", ""] = [models["temperature"].calibration.temperature]
    return found, models["temperature"].calibration


def show(runs, names, columns):
    """Print mean and standard deviation over the seeds, with a row for each method."""
    header = [
        f"{domain} {column}" for domain in ("test", "shift") for column in columns
    ]
    print(" ".join([f"{'':19}", *(f"{each:>18}" for each in header)]))
    for name in names:
        cells = []
        for domain in ("test", "shift"):
            values = np.array([run[name, domain] for run in runs], "float64")
            means, deviations = values.mean(0), values.std(0, ddof=1)
            pairs = zip(means, deviations, strict=True)
            cells += [f"{mean:.3f} ± {error:.3f}" for mean, error in pairs]
        print(" ".join([f"{name:19}", *(f"{cell:>18}" for cell in cells)]))


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    for title, make in (("CIFAR-10", cifar), ("MNIST", mnist)):
        start, outputs = time.time(), make()
        runs, last = [], None
        for seed in range(seeds):
            found, last = measured(outputs(seed), seed)
            runs.append(found)
        temperatures = [run["temperature", ""][0] for run in runs]
        print(f"\n{title}, {seeds} seeds, {time.time() - start:.0f} s")
        print(f"temperature {np.mean(temperatures):.2f} ± {np.std(temperatures):.2f}")
        show(runs, [*OURS, *PEER], COLUMNS)
        print(f"\nsets for a coverage of {COVERAGE}; abstention at a risk of {RISK}")
        show(runs, ["lac", "aps", "raps"], ["coverage", "size"])
        show(runs, ["abstention"], ["accepted", "risk"])
        if len(sys.argv) > 2:
            last.save(f"{sys.argv[2]}/{title}.png")


if __name__ == "__main__":
    main()
