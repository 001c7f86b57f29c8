"""Accuracy of `fine_tune` with its default strategy, on twelve cells of real data.

Claim: the default is about as accurate as the best of the other ways to train, which
is known only afterward, and not clearly below a logistic regression. A cell is a data
set with 50 to 1,000 labels and a pretrained network. The other ways are each strategy
by name, scikit-learn's logistic regression on the frozen features, and the usual recipe
by hand: all weights of a text model at 5e-5 with a linear warm-up and decay; for
images, Keras's guide, which trains the head at 1e-3 and then all weights at 1e-5.

The labels are drawn by the seed, the same number of each class. A test part has at most
1,000 examples, the same for each seed, and is used for the final accuracy only. The
best row is found with the test part, so the regret of the default is estimated too
high. Seconds are those of the training call, with tracing, compiling and the search of
the default, but without loading weights. The real data are in $KERAS_TRANSFER_DATA.

    python benchmarks/outcomes.py [--cells ...] [--rows ...] [--seeds 3] [--minutes N]

Each finished run is a line in the file of `--results`, and is not repeated. `--report`
only prints the tables of this file. The seeds run one after the other, each over all
cells.
"""

import argparse
import functools
import gc
import json
import logging
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads use no CPU

import keras
import numpy as np
import outcomes_data
import outcomes_report

import keras_transfer as kt

# Each run makes functions of its own, and TensorFlow would warn that it traces them.
logging.getLogger("tensorflow").setLevel("ERROR")

SIZE = 16
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
GUIDE_EPOCHS, GUIDE_DROPOUT = (10, 6), 0.2
STRATEGIES = ("probe", "lora", "lp-ft", "full")


def new_model(cell, classes):
    """Return an untrained classifier on the pretrained backbone."""
    model = kt.models.TransferClassifier(outcomes_data.backbone(cell), classes)
    model.compile(keras.optimizers.AdamW(1e-3), LOSS, metrics=["accuracy"])
    return model


class FineTune:
    """A call of `fine_tune`."""

    def __init__(self, cell, classes, strategy=None):
        self.model = new_model(cell, classes)
        self.settings = dict(epochs=cell.epochs, batch_size=SIZE, verbose=0)
        if strategy:
            self.settings["strategy"] = strategy
        self.history = None

    def fit(self, x, y):
        self.history = kt.fine_tune(self.model, (x, y), **self.settings)

    def predict(self, x):
        return self.model.predict(x, batch_size=64, verbose=0).argmax(-1)

    def notes(self):
        """Return what the default has chosen, as far as the history shows it."""
        found = {"strategy": outcomes_report.chosen(self.model, self.history)}
        if getattr(self.history, "pilot", None) is not None:
            found["pilot"] = str(self.history.pilot)
        return found


class ByHand(FineTune):
    """The usual recipe in plain Keras."""

    def __init__(self, cell, classes):
        self.is_text, self.epochs = cell.is_text, cell.epochs
        if cell.is_text:
            self.model = new_model(cell, classes)
            return
        self.backbone = outcomes_data.backbone(cell)
        inputs = keras.Input(self.backbone.input_shape[1:])
        x = self.backbone(inputs, training=False)  # BatchNorm in inference mode
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dropout(GUIDE_DROPOUT)(x)
        self.model = keras.Model(inputs, keras.layers.Dense(classes)(x))

    def fit(self, x, y):
        if self.is_text:
            steps = -(-len(y) // SIZE) * self.epochs
            rate = kt.optimizers.LinearWarmupDecay(5e-5, steps)
            self.model.compile(keras.optimizers.AdamW(rate), LOSS)
            self.model.fit(x, y, batch_size=SIZE, epochs=self.epochs, verbose=0)
            return
        phases = zip((False, True), (1e-3, 1e-5), GUIDE_EPOCHS, strict=True)
        for trainable, rate, epochs in phases:
            self.backbone.trainable = trainable
            self.model.compile(keras.optimizers.Adam(rate), LOSS)
            self.model.fit(x, y, batch_size=SIZE, epochs=epochs, verbose=0)

    def notes(self):
        return {}


class Logistic:
    """Logistic regression on frozen features. Its penalty is cross-validated."""

    def __init__(self, cell, classes):
        from sklearn.linear_model import LogisticRegressionCV
        from sklearn.model_selection import StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self.features = kt.backbones.features(outcomes_data.backbone(cell))
        self.regression = make_pipeline(
            StandardScaler(),
            LogisticRegressionCV(
                Cs=np.logspace(-4, 1, 11),
                cv=StratifiedKFold(5, shuffle=True, random_state=0),
                scoring="neg_log_loss",
                max_iter=2000,
                l1_ratios=(0,),
                use_legacy_attributes=False,
            ),
        )

    def fit(self, x, y):
        features = self.features.predict(x, batch_size=64, verbose=0)
        self.regression.fit(features, y)

    def predict(self, x):
        features = self.features.predict(x, batch_size=64, verbose=0)
        return self.regression.predict(features)

    def notes(self):
        return {}


ROWS = {
    "auto": FineTune,
    **{name: functools.partial(FineTune, strategy=name) for name in STRATEGIES},
    "logistic": Logistic,
    "by-hand": ByHand,
}


def run(cell, row, seed):
    """Return the results of one run."""
    keras.backend.clear_session()
    gc.collect()
    x, y = outcomes_data.train_part(cell, seed)
    x_test, y_test = outcomes_data.test_part(cell)
    keras.utils.set_random_seed(seed)
    method = ROWS[row](cell, len(np.unique(y)))
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        method.fit(x, y)
    except ValueError as error:  # such as a network that has no place for LoRA
        return {"not_possible": str(error).split(". ")[0]}
    seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    correct = method.predict(x_test) == y_test
    accuracy = float(correct.mean())
    return {
        "accuracy": accuracy,
        "standard_error": (accuracy * (1 - accuracy) / len(correct)) ** 0.5,
        **{name: round(value, 2) for name, value in seconds.items()},
        **method.notes(),
        "examples": len(correct),
        "correct": outcomes_report.to_hex(correct),
    }


def estimate(cell, seed, rows, measured):
    """Return the CPU seconds of the rows, if each of them trained all weights.

    `measured` has the seconds of the first step and of the next one, and the number of
    tokens or pixels, for each network. The seconds of a step grow with this number.
    """
    x, y = outcomes_data.train_part(cell, seed)
    rows = [row for row in rows if row != "logistic"]
    if not rows:
        return 0.0
    places = keras.tree.flatten(x)[0].shape[1]
    if cell.network not in measured:
        keras.backend.clear_session()
        model = new_model(cell, len(np.unique(y)))
        batch = keras.tree.map_structure(lambda array: array[:SIZE], (x, y))
        seconds = []
        for _ in range(2):  # the first step traces and compiles
            start = time.process_time()
            model.train_on_batch(*batch)
            seconds.append(time.process_time() - start)
        measured[cell.network] = (*seconds, places)
    first, step, measured_places = measured[cell.network]
    steps = -(-len(y) // SIZE) * cell.epochs
    return len(rows) * (first + steps * step * places / measured_places)


def run_all(options, results):
    """Run what is not in the results yet, and return what there was no time for."""
    end = time.monotonic() + 60 * options.minutes
    # What was not possible is tried again: it fails early, and may be possible now.
    finished = [each for each in results if "not_possible" not in each]
    done = {(each["cell"], each["row"], each["seed"]) for each in finished}
    left_out, measured = [], {}
    for seed in range(options.seeds):
        for name in options.cells:
            cell = outcomes_data.CELLS[name]
            rows = [row for row in options.rows if (name, row, seed) not in done]
            if rows and time.monotonic() < end:
                cost = estimate(cell, seed, rows, measured)
                print(f"{name} seed {seed}: up to about {cost:.0f} CPU seconds")
            for row in rows:
                if time.monotonic() >= end:
                    left_out.append(f"{name} {row} seed {seed}")
                    continue
                found = {"cell": name, "row": row, "seed": seed, **run(cell, row, seed)}
                results.append(found)
                with open(options.results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
                text = found.get("not_possible") or (
                    f"{found['accuracy']:.4f}, {found['cpu']:.1f} CPU s, "
                    f"{found['wall']:.1f} s {found.get('strategy', '')}"
                )
                print(f"{name} seed {seed} {row:9} {text}", flush=True)
    return left_out


def main():
    parser = argparse.ArgumentParser()
    cells, rows = list(outcomes_data.CELLS), list(ROWS)
    parser.add_argument("--cells", nargs="+", choices=cells, default=cells)
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--results", default="outcomes.jsonl", help="file of the runs")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--report", action="store_true", help="only print the tables")
    options = parser.parse_args()
    path, results = pathlib.Path(options.results), []
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        results = [json.loads(line) for line in lines]
    left_out = [] if options.report else run_all(options, results)
    outcomes_report.show(results, cells, rows)
    if not options.report:
        print("\nLeft out for lack of time:", ", ".join(left_out) or "nothing")


if __name__ == "__main__":
    main()
