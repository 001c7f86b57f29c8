"""Domain adaptation from plain digits to digits on photographs.

Learned: how to train on two domains in one `fit`; the two baselines of a method;
negative transfer; scores without target labels; features before and after adaptation.
Data: labeled plain digits of scikit-learn, 400 unlabeled digits on photographs, and 550
of these to test on, without a download. Time: 3 to 6 minutes on 2 cores. Expect 0.50
from the source only and from DANN, which needs more images. Expect 0.80 from
randomization, and 0.82 from labels of the target. `--smoke` only checks that the
example runs.
"""

import sys
import time

import keras

import keras_transfer as kt

SMOKE = "--smoke" in sys.argv
SEEDS = (0,) if SMOKE else (0, 1)
EPOCHS = 1 if SMOKE else 25
SIZE = 64
began = time.perf_counter()
source = kt.data.digits.load_source()
target = kt.data.digits.load_target(labels_per_class=40)  # only one row uses the labels
unlabeled = target.train[0]
steps = 2 if SMOKE else -(-len(source.train[0]) // SIZE)


def network(randomize):
    """Return a small feature extractor and a label head."""
    extractor = keras.Sequential([keras.Input((16, 16, 3))], name="extractor")
    if randomize:  # random light, color, polarity and patches in training
        extractor.add(kt.layers.DomainRandomization())
    for filters in (32, 48):
        extractor.add(
            keras.layers.Conv2D(filters, 5, padding="same", activation="relu")
        )
        extractor.add(keras.layers.MaxPooling2D())
    extractor.add(keras.layers.Flatten())
    hidden = keras.layers.Dense(100, activation="relu")
    return extractor, keras.Sequential([hidden, keras.layers.Dense(10)], name="labels")


def fit(method, labeled, seed, randomize=False, **settings):
    """Return the trained model of a method."""
    keras.utils.set_random_seed(seed)
    model = method(*network(randomize), **settings)
    rate = kt.optimizers.GaninDecay(1e-3, EPOCHS * steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    data = kt.data.domain_dataset(labeled, unlabeled, SIZE, seed=seed, steps=steps)
    model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0)
    return model


models = kt.models
rows = {
    "source only": (models.SourceOnly, source.train),
    "MDD": (models.MDD, source.train),
    "DANN": (models.DANN, source.train),
    "randomization": (models.SourceOnly, source.train),
    "DANN + randomization": (models.DANN, source.train),
    "trained on target": (models.SourceOnly, target.train),
}
if SMOKE:
    del rows["MDD"], rows["randomization"]
accuracies = {row: [] for row in rows}
features = {}
print(f"{'row':22}{'seed':>5}{'target':>9}{'source':>9}{'information':>13}")
for seed in SEEDS:
    for row, (method, labeled) in rows.items():
        settings = {"strength": 0.1} if row == "DANN + randomization" else {}
        randomize = "randomization" in row
        model = fit(method, labeled, seed, randomize, **settings)
        accuracy, on_source = (
            model.evaluate(*part.test, batch_size=550, verbose=0)[1]
            for part in (target, source)
        )
        accuracies[row].append(accuracy)
        outputs = model.predict(unlabeled, verbose=0)
        score = kt.analysis.information_maximization(outputs, from_logits=True)
        print(f"{row:22}{seed:5}{accuracy:9.3f}{on_source:9.3f}{score:13.2f}")
        extractor = model.feature_extractor
        features[row] = [
            extractor.predict(part.test[0], verbose=0) for part in (source, target)
        ]

low, high = (accuracies.pop(row) for row in ("source only", "trained on target"))
print(kt.analysis.AdaptationTable(accuracies, source_only=low, on_target=high))
panels = {row: features[row] for row in ("source only", "DANN", "DANN + randomization")}
for row, pair in panels.items():
    print(f"{row}: proxy A-distance {kt.analysis.proxy_a_distance(*pair):.2f}")
labels = (source.test[1], target.test[1])
kt.analysis.plot_domains(panels, labels=labels, path="dann_digits.png")
print(f"saved dann_digits.png after {time.perf_counter() - began:.0f} s")
