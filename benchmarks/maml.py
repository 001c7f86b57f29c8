"""Few gradient steps on a new task: MAML, first-order MAML and ANIL.

Questions: how low is the error of a sine after some steps on 5 or 10 points, next to a
network that was trained on all sines (the figure of the MAML paper)? And how many
characters of held-out alphabets are right after some steps on 1 or 5 examples?

    PYTHONPATH=. python benchmarks/maml.py sine
    KERAS_TRANSFER_DATA=<folder> PYTHONPATH=. python benchmarks/maml.py omniglot \\
        --rows maml first_order anil scratch prototypes

Sines: amplitude 0.1 to 5, phase 0 to pi, x from -5 to 5, two layers of 40 units, inner
rate 0.01, one step in training, Adam 0.001, 25 tasks a step, as in the paper. Omniglot:
the data and held-out alphabets of examples/few_shot_omniglot.py, four blocks of 16
filters, inner rate 0.4 and one step in training, 3 steps in tests, 600 test episodes.
"""

import argparse
import math
import os
import pathlib
import time

import keras
import numpy as np

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("part", choices=["sine", "omniglot"])
parser.add_argument("--rows", nargs="+", help="rows of omniglot")
parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
parser.add_argument("--steps", type=int, help="training steps")
parser.add_argument("--tests", type=int, default=600, help="test tasks")
options = parser.parse_args()
RATE, STEPS, TESTED = 0.4, 1, 3
KINDS = {
    "maml": (kt.models.MAML, {}),
    "first_order": (kt.models.MAML, {"first_order": True}),
    "anil": (kt.models.ANIL, {}),
}
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def sines(count, shots, queries, seed):
    """Return tasks with their own amplitude and phase, and the targets of queries."""
    random = np.random.default_rng(seed)
    height, phase = random.uniform((0.1, 0), (5, math.pi), (count, 2)).T
    x = random.uniform(-5, 5, (count, shots + queries, 1))
    y = height[:, None, None] * np.sin(x - phase[:, None, None])
    x, y = x.astype("float32"), y.astype("float32")
    support = {"support": x[:, :shots], "support_y": y[:, :shots]}
    return support | {"query": x[:, shots:]}, y[:, shots:]


def run_sine(steps):
    """Print the mean squared error after 0, 1, 5 and 10 steps."""
    for shots in (5, 10):
        for row in ("pretrained", "first_order", "maml"):
            keras.utils.set_random_seed(0)
            layers = [keras.layers.Dense(40, "relu") for _ in range(2)]
            model = keras.Sequential([keras.Input((1,)), *layers])
            model.add(keras.layers.Dense(1))
            train, targets = sines(25 * steps, shots, shots, seed=1)
            adam = keras.optimizers.Adam(0.001)
            began = time.process_time()
            if row == "pretrained":
                # The same points: support and query set of 25 tasks are a batch.
                model.compile(adam, "mse", jit_compile=False)
                x = np.concatenate([train["support"], train["query"]], 1)
                y = np.concatenate([train["support_y"], targets], 1)
                batch = 25 * 2 * shots
                model.fit(x.reshape(-1, 1), y.reshape(-1, 1), batch, verbose=0)
            else:
                maml = KINDS[row][0](model, 0.01, 1, **KINDS[row][1])
                maml.compile(adam, "mse", jit_compile=False)
                maml.fit(train, targets, batch_size=25, shuffle=False, verbose=0)
            took = time.process_time() - began
            test, asked = sines(options.tests, shots, 100, seed=2)
            answers = model.predict(test["query"].reshape(-1, 1), verbose=0)
            errors = [np.square(answers.reshape(asked.shape) - asked).mean((1, 2))]
            for count in (1, 5, 10):
                maml = kt.models.MAML(model, 0.01, count)
                maml.compile("sgd", "mse", jit_compile=False)
                answers = maml.predict(test, batch_size=100, verbose=0)
                errors.append(np.square(answers - asked).mean((1, 2)))
            print(f"K={shots} {row}, {took:.0f} s:", *map(interval, errors), flush=True)


def conv_net(way=None):
    """Return four blocks of 16 filters, and a head for classes."""
    stack, layers = [keras.Input((28, 28, 1))], keras.layers
    for _ in range(4):
        stack += [layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)]
        stack += [layers.BatchNormalization(), layers.ReLU()]
    stack += [layers.Flatten(), *([layers.Dense(way)] if way else [])]
    return keras.Sequential(stack)


def characters():
    """Return images and classes for training, and those of held-out alphabets."""
    folder = os.environ.get("KERAS_TRANSFER_DATA")
    if not folder:
        raise SystemExit(f"KERAS_TRANSFER_DATA is not set.\n{__doc__}")
    data = np.load(pathlib.Path(folder) / "omniglot.npz")
    x, y = data["x"][..., None].astype("float32") / 255, data["character"].astype(int)
    unseen = np.isin(data["alphabet_names"][data["alphabet"]], ["Sanskrit", "Tagalog"])
    rest, test = kt.data.hold_out_classes(x, y, np.unique(y[unseen]))
    turned = np.concatenate([np.rot90(rest[0], k, (1, 2)) for k in range(4)])
    return (turned, np.concatenate([rest[1] + 1000 * k for k in range(4)])), test


def run_omniglot(steps, rows):
    """Print the accuracy of 5-way tasks of held-out characters."""
    train, test = characters()
    settings = dict(num_episodes=options.tests, batch_size=10, shuffle=False, seed=1)
    for shot in options.shots:
        episodes = kt.data.episodes(
            *train, 5, shot, 5, num_episodes=4 * steps, batch_size=4
        )
        asked = kt.data.episodes(*test, 5, shot, 15, **settings)
        for row in rows:
            keras.utils.set_random_seed(0)
            began = time.process_time()
            if row == "prototypes":
                model = kt.models.PrototypicalNetwork(conv_net())
                model.compile(keras.optimizers.Adam(0.001), jit_compile=False)
                model.fit(episodes, shuffle=False, verbose=0)
                tested = model
            elif row == "scratch":
                tested = kt.models.MAML(conv_net(5), 0.1, 50)
            else:
                kind, more = KINDS[row]
                maml = kind(conv_net(5), RATE, STEPS, **more)
                adam = keras.optimizers.Adam(0.001)
                maml.compile(adam, SPARSE, jit_compile=False)
                maml.fit(episodes, shuffle=False, verbose=0)
                tested = kind(maml.model, RATE, TESTED, **more)
            took = time.process_time() - began
            tested.compile("sgd", SPARSE, jit_compile=False)
            scores = tested.predict(asked, verbose=0)
            right = scores.argmax(-1) == np.repeat(np.arange(5), 15)
            cell = interval(100 * right.mean(1), digits=1)
            spent = time.process_time() - began
            print(f"{shot}-shot {row}: {cell}, {took:.0f} s, with test {spent:.0f} s")


def interval(values, digits=2):
    """Return a mean with its 95 % interval over tasks."""
    spread = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {spread:.{digits}f}"


if options.part == "sine":
    run_sine(options.steps or 5000)
else:
    run_omniglot(options.steps or 500, options.rows or [*KINDS, "scratch"])
