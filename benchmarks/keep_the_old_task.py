"""What a second task costs the first: full fine-tuning, LoRA, L2-SP and EWC.

MiniLM learns SST-2 (sentiment), and then whether a biomedical sentence names a
chemical, each with the same number of labels. After the second task, both classifiers
read the same backbone, and the old classifier is tested on SST-2 again. Nothing was
tuned: L2-SP and LoRA have their defaults, and EWC has two strengths. LoRA is tested
with its adapter in use. With the adapter switched off, it costs nothing.

    KERAS_TRANSFER_DATA=<folder> python benchmarks/keep_the_old_task.py [labels] [seed]
"""

import sys
import time

import keras
import numpy as np
from outcomes_data import backbone as pretrained
from outcomes_data import Cell
from outcomes_data import test_part
from outcomes_data import train_part

import keras_transfer as kt

LABELS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 0
OLD, NEW = (Cell(name, LABELS, "MiniLM") for name in ("sst2", "chem"))
TESTED, EPOCHS, RATE = 300, 3, 1e-4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
METHODS = ("full", "L2-SP", "EWC 1e5", "LoRA", "EWC 1e3")


def learn(model, cell, rate=RATE):
    """Train a classifier on the labels of a cell, and return the seconds."""
    schedule = kt.optimizers.LinearWarmupDecay(rate, EPOCHS * -(-LABELS // 16))
    model.compile(keras.optimizers.Adam(schedule), LOSS, metrics=["accuracy"])
    start = time.perf_counter()
    x, y = train_part(cell, SEED)
    model.fit(x, y, batch_size=16, epochs=EPOCHS, verbose=0)
    return time.perf_counter() - start


def accuracy(model, cell):
    """Return the accuracy on the first test examples."""
    x, y = test_part(cell)
    x = {name: rows[:TESTED] for name, rows in x.items()}
    logits = keras.Model(model.inputs, model.outputs).predict(x, verbose=0)
    logits = logits[0] if isinstance(logits, list) else logits
    return np.mean(logits.argmax(1) == y[:TESTED])


def main():
    """Print a row for each method."""
    keras.utils.set_random_seed(SEED)
    backbone = pretrained(OLD)
    old = kt.models.TransferClassifier(backbone, 2, pooling="mean", dropout=0.1)
    learn(old, OLD)
    before, weights = accuracy(old, OLD), old.get_weights()
    print(f"{LABELS} labels of each task, seed {SEED}, {TESTED} test examples")
    print(f"after SST-2: {before:.3f} on SST-2\n")
    print("method    SST-2 after   lost  chemicals  seconds", flush=True)
    for method in METHODS:
        old.set_weights(weights)
        keras.utils.set_random_seed(SEED + 1)
        new = kt.models.TransferClassifier(backbone, 2, pooling="mean", dropout=0.1)
        start, rate = time.perf_counter(), RATE
        if method == "LoRA":
            kt.adapters.LoRA().attach(new, verbose=0)
            rate = 5 * RATE
        elif method == "L2-SP":
            kt.regularizers.L2SP().attach(new)
        elif method.startswith("EWC"):
            x, _ = train_part(OLD, SEED)
            x = {name: rows[:100] for name, rows in x.items()}
            penalty = kt.regularizers.EWC(float(method.split()[1]))
            penalty.attach(new, x, task_model=old)
        learn(new, NEW, rate)
        seconds = time.perf_counter() - start
        if method == "LoRA":
            kt.adapters.refresh(old)
        after, found = accuracy(old, OLD), accuracy(new, NEW)
        print(
            f"{method:8}  {after:11.3f}  {before - after:+.3f}  {found:9.3f}  "
            f"{seconds:7.0f}",
            flush=True,
        )
        if method == "LoRA":
            kt.adapters.detach(new)
            kt.adapters.refresh(old)
        elif method != "full":
            kt.regularizers.detach(new)


if __name__ == "__main__":
    main()
