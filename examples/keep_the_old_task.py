"""Keep the old tasks: five tasks one after the other, and what is forgotten of each.

Learned: how to measure forgetting with `kt.analysis.Forgetting`, and how to lower it
with L2-SP, EWC, learning without forgetting (LwF) and replay. A small network learns
the ten digits under five fixed orders of their pixels, one after the other, and is
tested on all five. Data: MNIST (`--data mnist.npz`), 10,000 digits for each task. Time:
TIME
Expect EXPECT

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
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--epochs", type=int, default=2, help="epochs on each task")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
METHODS = ("plain", "L2-SP", "EWC", "LwF", "replay")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PER_TASK, KEPT = 10_000, 200  # examples of a task, and old ones that replay keeps


def load():
    """Return images from 0 to 1 as rows of 784 pixels, and labels, in two parts."""
    if options.smoke:
        draw = np.random.default_rng(0)
        parts = []
        for count in (200, 100):
            y = draw.integers(10, size=count)
            x = draw.random((count, 784)) / 4
            x[np.arange(count), 20 * y] = 4.0  # one bright pixel tells the class
            parts.append((x.astype("float32"), y))
        return parts
    with np.load(options.data) as arrays:
        pairs = [
            (arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")
        ]
    parts = []
    for (x, y), count in zip(pairs, (PER_TASK, 2_000)):
        order = np.random.default_rng(0).permutation(len(x))[:count]
        x = x[order].reshape(count, 784).astype("float32") / 255
        parts.append((x, y[order].astype("int64")))
    return parts


def make_tasks(seed):
    """Return a dict from each task to its train and test part; the first is plain."""
    draw, tasks = np.random.default_rng(seed), {}
    for number in range(options.tasks):
        order = draw.permutation(784) if number else np.arange(784)
        tasks[f"task {number + 1}"] = [(x[:, order], y) for x, y in load()]
    return tasks


def network():
    """Return a network of two hidden layers."""
    dense = [keras.layers.Dense(100, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((784,)), *dense, keras.layers.Dense(10)])
    return compiled(model)


def compiled(model):
    """Return the model, compiled with a new optimizer for each task."""
    model.compile(keras.optimizers.SGD(0.1, momentum=0.5), LOSS, jit_compile=False)
    return model


def run(method, seed):
    """Learn the tasks in order, and return the table of what was forgotten."""
    keras.utils.set_random_seed(seed)
    tasks = make_tasks(seed)
    forgetting = kt.analysis.Forgetting({k: test for k, (_, test) in tasks.items()})
    settings = dict(epochs=options.epochs, verbose=0, callbacks=[forgetting])
    model, kept = network(), []
    for number, (x, y) in enumerate(train for train, _ in tasks.values()):
        if number == 0 or method in ("plain", "L2-SP", "EWC"):
            model.fit(x, y, batch_size=32, **settings)
        elif method == "LwF":
            # All tasks have the same ten classes, so the head is both old and new.
            old = keras.ops.softmax(model.predict(x, verbose=0) / 2.0)
            compiled(model).fit(x, mixed_targets(y, old), batch_size=32, **settings)
        else:
            old = tuple(np.concatenate(each) for each in zip(*kept, strict=True))
            model.fit(kt.data.replay((x, y), old, share=0.5, seed=seed), **settings)
        if method == "L2-SP":
            again(model)
        elif method == "EWC":
            kt.regularizers.EWC(STRENGTH).attach(model, x[:KEPT], seed=seed)
        kept.append((x[:KEPT], y[:KEPT]))
    return forgetting
