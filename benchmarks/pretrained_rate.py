"""Accuracy of `fine_tune(strategy="lp-ft")` at several rates of the pretrained groups.

The default share of the learning rate is chosen on these figures. Training and held-out
examples are both from the train parts of the data of outcomes.py, so its test parts are
not used. The real data are in $KERAS_TRANSFER_DATA.

    python benchmarks/pretrained_rate.py [--cells ...] [--shares ...] [--seeds 1]
"""

import argparse

import keras
import numpy as np
import outcomes
import outcomes_data

import keras_transfer as kt
from keras_transfer.fine_tuning import rates

HELD_OUT = 600
CELLS = ["chem-300", "sst2-300", "cifar-mobilenet-300"]


def parts(cell, seed):
    """Return training and held-out examples, both from the train part."""
    (x, y), _ = outcomes_data.raw_parts(cell.data)
    if len(y) < HELD_OUT + cell.labels:
        raise SystemExit(f"{cell.data} has only {len(y)} examples in its train part.")
    rng = np.random.default_rng(100 + seed)
    held_out, pool = np.split(rng.permutation(len(y)), [HELD_OUT])
    classes = np.unique(y)
    count = cell.labels // len(classes)
    train = np.concatenate([pool[y[pool] == each][:count] for each in classes])
    rng.shuffle(train)
    if cell.is_text:
        x = np.asarray(x, dtype=object)
    prepare = outcomes_data.NETWORKS[cell.network].prepare
    return [(prepare(x[rows]), y[rows]) for rows in (train, held_out)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.2, 0.3])
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    options = parser.parse_args()
    for seed in range(options.seeds):
        for name in options.cells:
            cell = outcomes_data.CELLS[name]
            (x, y), (x_held_out, y_held_out) = parts(cell, seed)
            for share in options.shares:
                keras.backend.clear_session()
                keras.utils.set_random_seed(seed)
                rates.PRETRAINED_SHARE = share
                model = outcomes.new_model(cell, len(np.unique(y)))
                settings = dict(epochs=cell.epochs, batch_size=outcomes.SIZE)
                kt.fine_tune(model, (x, y), strategy="lp-ft", verbose=0, **settings)
                outputs = model.predict(x_held_out, batch_size=64, verbose=0)
                accuracy = (outputs.argmax(-1) == y_held_out).mean()
                print(f"{name} seed {seed} share {share}: {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
