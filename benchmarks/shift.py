"""Does `ShiftMonitor` find shifts, and is it quiet without one?

Claims: at the level 0.05 at most 5 % of unshifted batches of MNIST are called shifted,
and the power grows with the number of examples as in Rabanser et al. 2019, where BBSDs
(class scores) needs the fewest. Their form is used: each test alone at the level 0.05,
batches of 10 to 1,000 examples, shifts of several strengths, random draws.

- MNIST: a small CNN learns 10,000 images. All 70,000 images are permuted first, because
  the files are in the order of their writers. Each of 50 references has 3,000 examples,
  and all batches come from the 57,000 images that are left.
- Shifts: Gaussian noise (standard deviation 1, 10, 100 of 255), rotation (10, 40, 90
  degrees), and class 0 knocked out (10, 50, 100 % of it), on all images of a batch.
- Natural shifts: reviews of books, then of electronics (sentiment); sentences of
  WNUT-17, then those of its test part, which is from later sources (does a sentence
  have an entity?). The features are MiniLM's, and the scores those of a logistic
  regression.

"all three" is the verdict of a report, where the three tests share the level.

    KERAS_TRANSFER_DATA=<folder> python benchmarks/shift.py [mnist] [reviews] [wnut]
"""

import os
import pathlib
import sys
import time

import keras
import numpy as np
import outcomes_data
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

import keras_transfer as kt
from keras_transfer.analysis.shift.score_kind import ScoreKind
from keras_transfer.export.shift_reference import make_reference

DATA = pathlib.Path(os.environ["KERAS_TRANSFER_DATA"])
SIZES = (10, 20, 50, 100, 200, 500, 1000)
ALPHA = 0.05 * np.pi**2 / 6  # so that the level of the first report is 0.05
REFERENCES, REPEATS = 50, 20  # unshifted batches of each reference
SEEDS = 5
SHARES = ("reference", "predicted", "bbse", "em")
TESTS = ("class scores", "features", "MMD", "all three")


class Outputs:
    """Scores, features and labels of examples, from which batches are drawn."""

    def __init__(self, scores, features, y):
        self.scores, self.features, self.y = scores, features, y

    def part(self, rows):
        return Outputs(self.scores[rows], self.features[rows], self.y[rows])

    def __len__(self):
        return len(self.y)


def reference_of(outputs, seed):
    """Return the reference of held-out examples."""
    size = outputs.scores.shape[1]
    names = [str(i) for i in range(size)]
    kind = ScoreKind("classes", False, size)
    arrays = outputs.scores, outputs.features, outputs.y
    return make_reference(kind, *arrays, names, seed, {})


def report(reference, batch, seed):
    """Return the report about a batch."""
    monitor = kt.ShiftMonitor(reference, alpha=ALPHA, seed=seed)
    monitor.update(outputs=batch.scores, features=batch.features)
    return monitor.report()


def found(reference, batch, seed):
    """Return whether each test alone finds a shift at 0.05, and whether the report."""
    made = report(reference, batch, seed)
    return [*(row["p_value"] <= 0.05 for row in made.table), made.shifted]


def table(title, rows, sizes):
    print(f"\n{title:<26}" + "".join(f"{size:>7}" for size in sizes))
    for name, values in rows.items():
        print(f"{name:<26}" + "".join(f"{value:>7.2f}" for value in values))


def mnist():
    """Measure the false alarms and the power on MNIST."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    with np.load(DATA / "mnist.npz", allow_pickle=False) as file:
        x = np.concatenate([file["x_train"], file["x_test"]])
        y = np.concatenate([file["y_train"], file["y_test"]]).astype("int64")
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 5, 2, activation="relu"),
            keras.layers.Conv2D(32, 3, 2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:10_000, ..., None], y[:10_000], epochs=3, verbose=0)
    both = keras.Model(model.inputs, [model.layers[-2].output, model.outputs[0]])

    def outputs(images, labels):
        images = images[..., None].astype("float32")
        features, scores = both.predict(images, batch_size=500, verbose=0)
        return Outputs(scores, features, labels)

    known = outputs(x[10_000:], y[10_000:])
    right = np.mean(known.scores.argmax(1) == known.y)
    print(f"MNIST: accuracy {right:.3f} on {len(known):,} held-out images")
    alarms = []
    for seed in range(REFERENCES):
        order = np.random.default_rng(seed).permutation(len(known))
        reference = reference_of(known.part(order[:3000]), seed)
        for i in range(REPEATS):
            rows = order[3000 + 100 * i :][:100]
            alarms.append(found(reference, known.part(rows), i))
    total = len(alarms)
    shares = np.mean(alarms, axis=0)
    said = ", ".join(f"{t} {s:.3f}" for t, s in zip(TESTS, shares, strict=True))
    print(f"False alarms of {total:,} unshifted batches of 100 at 0.05: {said}")
    shifts = {f"noise {s}": ("noise", s) for s in (1, 10, 100)}
    shifts |= {f"rotation {d}": ("rotation", d) for d in (10, 40, 90)}
    shifts |= {f"class 0 out {k:.0%}": ("out", k) for k in (0.1, 0.5, 1.0)}
    hits = {name: np.zeros((len(SIZES), len(TESTS))) for name in shifts}
    errors = []
    for seed in range(SEEDS):
        draw = np.random.default_rng(100 + seed)
        order = draw.permutation(len(known))
        reference = reference_of(known.part(order[:3000]), seed)
        for name, (kind, strength) in shifts.items():
            rows = order[3000:6000]
            if kind == "out":
                gone = (known.y[rows] == 0) & (draw.random(len(rows)) < strength)
                later = known.part(rows[~gone][: max(SIZES)])
            else:
                rows = rows[: max(SIZES)]
                images = x[10_000 + rows].astype("float32")
                if kind == "noise":
                    images += draw.normal(0, strength, images.shape)
                    images = np.clip(images, 0, 255)
                else:
                    axes = {"axes": (1, 2), "reshape": False, "order": 1}
                    images = ndimage.rotate(images, strength, **axes)
                later = outputs(images, known.y[rows])
            for i, size in enumerate(SIZES):
                hits[name][i] += found(reference, later.part(slice(size)), seed)
            if name == "class 0 out 100%":
                shares = report(reference, later, seed).class_shares
                true = np.bincount(later.y, minlength=10) / len(later)
                columns = [[row[key] for row in shares] for key in SHARES]
                errors.append(np.abs(np.array(columns) - true).max(1))
    power = {name: each / SEEDS for name, each in hits.items()}
    mean = np.mean(list(power.values()), axis=0)
    table("power, mean of the shifts", dict(zip(TESTS, mean.T, strict=True)), SIZES)
    table("power of all three", {k: v[:, 3] for k, v in power.items()}, SIZES)
    table("power of class scores", {k: v[:, 0] for k, v in power.items()}, SIZES)
    said = zip(SHARES, np.mean(errors, axis=0), strict=True)
    shown = ", ".join(f"{name} {error:.4f}" for name, error in said)
    print(f"\nLargest error of a class share without class 0, 1,000 examples: {shown}")


def minilm(texts):
    """Return MiniLM's features of texts."""
    network = kt.backbones.features(outcomes_data._minilm())
    return network.predict(outcomes_data._tokens(texts), batch_size=64, verbose=0)


def natural(title, train, held_out, same, other, sizes):
    """Print how often batches of the same and of another source are called shifted.

    Args:
        train: Texts and labels of the classifier.
        held_out: Texts and labels of the same source, as many as in a reference.
        same: More of them. Both are mixed, and divided again for each draw.
        other: Texts and labels of the other source.
    """
    parts = [train, held_out, same, other]
    counts = np.cumsum([len(each[0]) for each in parts])[:-1]
    features = np.split(minilm([text for each in parts for text in each[0]]), counts)
    head = LogisticRegression(max_iter=1000).fit(features[0], train[1])
    made = [
        Outputs(head.predict_proba(each), each, np.asarray(part[1]))
        for each, part in zip(features, parts, strict=True)
    ]
    right = [np.mean(each.scores.argmax(1) == each.y) for each in made[2:]]
    print(f"\n{title}: accuracy {right[0]:.3f}, on the other source {right[1]:.3f}")
    both = Outputs(
        np.concatenate([each.scores for each in made[1:3]]),
        np.concatenate([each.features for each in made[1:3]]),
        np.concatenate([each.y for each in made[1:3]]),
    )
    hits = np.zeros((2, len(sizes), len(TESTS)))
    for seed in range(20):
        # A new reference each time: one reference can differ from its source by chance.
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(both))
        reference = reference_of(both.part(order[: len(made[1])]), seed)
        rest = both.part(order[len(made[1]) :])
        for i, size in enumerate(sizes):
            for k, pool in enumerate((rest, made[3])):
                rows = draw.choice(len(pool), size, replace=False)
                hits[k, i] += found(reference, pool.part(rows), seed)
    for name, each in zip(("same source", "other source"), hits / 20, strict=True):
        table(name, dict(zip(TESTS, each.T, strict=True)), sizes)


def shuffled(texts, y, seed=0):
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order], np.asarray(y)[order]


def cut(data, *counts):
    """Return parts of texts and labels with these counts."""
    ends = np.cumsum([0, *counts])
    return [tuple(each[a:b] for each in data) for a, b in zip(ends, ends[1:])]


def reviews():
    """Measure reviews of books, then of electronics."""
    read = {
        name: shuffled(*kt.data.from_tsv(DATA / f"amazon_{name}.tsv")[:2])
        for name in ("books_train", "books_test", "electronics_test")
    }
    train, held_out = cut(read["books_train"], 700, 850)
    pools = read["books_test"], read["electronics_test"]
    natural("Reviews", train, held_out, *pools, (10, 20, 50, 100, 200))


def wnut():
    """Measure sentences of WNUT-17, then those of its test part."""

    def read(part):
        found = kt.data.from_conll(DATA / f"wnut17_{part}.tsv")
        texts = [" ".join(words) for words in found[0]]
        entity = [int(any(tag != "O" for tag in tags)) for tags in found[1]]
        return shuffled(texts, entity)

    train, held_out, same = cut(read("train"), 1000, 1000, 500)
    (other,) = cut(read("test"), 500)
    natural("WNUT-17", train, held_out, same, other, (10, 20, 50, 100, 200))


if __name__ == "__main__":
    parts = {"mnist": mnist, "reviews": reviews, "wnut": wnut}
    for part in sys.argv[1:] or parts:
        begun = time.process_time()
        parts[part]()
        print(f"({part}: {time.process_time() - begun:.0f} s of CPU)")
