"""Keep the old tasks: five tasks one after the other, and what is forgotten of each.

Learned: how to measure forgetting with `kt.analysis.Forgetting`, and how to lower it
with L2-SP, EWC, learning without forgetting (LwF) and replay. A small network learns
the ten digits under five fixed orders of their pixels, one after the other, and is
tested on all five. LwF has a head for each task, and the test uses the right one. The
others have one head. Data: MNIST (`--data mnist.npz`), 10,000 digits for each
task. Time: perhaps 15 minutes of CPU for all methods and seeds. Expect an average
accuracy of about 0.88 of EWC and 0.86 of L2-SP after the five tasks, as measured with
one seed, `--seeds 9 --methods EWC`, on which both strengths were chosen. The other
methods and seeds were run only in the short form, `--smoke`.

    python examples/keep_the_old_task.py --data mnist.npz
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=pathlib.Path, help="mnist.npz, as Keras has it")
parser.add_argument("--tasks", type=int, default=5)
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--epochs", type=int, default=2, help="epochs on each task")
METHODS = ("plain", "L2-SP", "EWC", "LwF", "replay")
parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
parser.add_argument("--alpha", type=float, default=0.03, help="strength of L2-SP")
parser.add_argument("--strength", type=float, default=30.0, help="strength of EWC")
parser.add_argument("--old-weight", type=float, default=1.0, help="weight of LwF")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PER_TASK, KEPT = 10_000, 200  # examples of a task, and those that EWC and replay use


def load():
    """Return images from 0 to 1 as rows of 784 pixels, with labels: train and test."""
    if options.smoke:
        draw = np.random.default_rng(0)
        y = draw.integers(10, size=(2, 200))
        return [(np.eye(784, dtype="float32")[20 * each], each) for each in y]
    with np.load(options.data) as arrays:
        pairs = [(arrays[f"x_{x}"], arrays[f"y_{x}"]) for x in ("train", "test")]
    parts = []
    for (x, y), count in zip(pairs, (PER_TASK, 2_000)):
        rows = np.random.default_rng(0).permutation(len(x))[:count]
        pixels = x[rows].reshape(count, 784).astype("float32") / 255
        parts.append((pixels, y[rows].astype("int64")))
    return parts


def make_tasks(seed):
    """Return a dict from a task to its train and test part; each has its own pixels."""
    draw, parts = np.random.default_rng(seed), load()
    orders = [draw.permutation(784) for _ in range(options.tasks)]
    return {
        f"task {number}": [(x[:, order], y) for x, y in parts]
        for number, order in enumerate(orders, 1)
    }


def compiled(model):
    """Return the model with a new optimizer."""
    model.compile(keras.optimizers.SGD(0.1, momentum=0.5), LOSS)
    return model


def run(method, seed):
    """Learn the tasks in order, and return the table of what was forgotten."""
    keras.utils.set_random_seed(seed)
    tasks = make_tasks(seed)
    forgetting = kt.analysis.Forgetting(
        {name: test for name, (_, test) in tasks.items()}
    )
    settings = dict(epochs=options.epochs, verbose=0, callbacks=[forgetting])
    dense = [keras.layers.Dense(100, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((784,)), *dense, keras.layers.Dense(10)])
    compiled(model)
    kept = []
    for name, ((x, y), _) in tasks.items():
        if method == "replay" and kept:
            old = tuple(np.concatenate(each) for each in zip(*kept, strict=True))
            mixed = kt.data.replay((x, y), old, share=0.25, seed=seed)
            model.fit(mixed, shuffle=False, **settings)
        elif method == "LwF" and forgetting.models:
            model = kt.models.LearningWithoutForgetting(
                model, 10, old_weight=options.old_weight
            )
            compiled(model).warm_up((x, y), epochs=1)
            model.fit(*model.record((x, y)), **settings)
        else:
            model.fit(x, y, **settings)
        kept.append((x[:KEPT], y[:KEPT]))
        if method == "LwF":
            forgetting.models[name] = keras.Model(model.inputs[0], model.outputs[0])
        elif method == "EWC":
            kt.regularizers.EWC(options.strength).attach(model, x[:KEPT])
        elif method == "L2-SP":
            if len(kept) > 1:
                kt.regularizers.detach(model)
            kt.regularizers.L2SP(options.alpha, 0.0).attach(model, head=[])
    return forgetting


if options.smoke:
    options.tasks, options.seeds, options.epochs = 2, [0], 1
    options.methods = ("L2-SP", "EWC", "LwF", "replay")
elif options.data is None:
    parser.error("pass --data mnist.npz, or --smoke")
rows = []
for method in options.methods:
    tables = [run(method, seed) for seed in options.seeds]
    print(f"{method}, seed {options.seeds[0]}\n{tables[0]}\n", flush=True)
    average = [table.average_accuracy for table in tables]
    backward = [table.backward_transfer for table in tables]
    last = [table.accuracies[-1, -1] for table in tables]
    shown = (
        f"{np.mean(each):{sign}.3f} ± {np.std(each, ddof=len(each) > 1):.3f}"
        for each, sign in ((average, ""), (backward, "+"), (last, ""))
    )
    rows.append((method, *shown))
names = ("method", "average accuracy", "backward transfer", "last task")
for method, *cells in (names, *rows):
    print(method.ljust(8), *(cell.rjust(17) for cell in cells), sep="  ")
