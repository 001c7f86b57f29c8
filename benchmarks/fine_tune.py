"""Cost and accuracy of `fine_tune`, compared with two usual recipes in plain Keras.

Claim: the default strategy is as accurate as the better recipe, within the spread of
the seeds, and no rate has to be chosen. MiniLM trains on SST-2 with texts of 64 tokens
for 4 epochs. "guide" is Keras's guide to transfer learning: two epochs of the head
alone at 1e-3, then two of all weights at 1e-5. "bert" trains all weights at 5e-5 with
a linear warm-up and decay, as in the paper. The rows alternate for each seed. The times
are process CPU times. The folder of SST-2 is in $KERAS_TRANSFER_DATA.

    python benchmarks/fine_tune.py [labels] [seeds]
"""

import functools
import os
import pathlib
import statistics
import sys
import time

import keras
import real_bert

import keras_transfer as kt

EPOCHS = 4
SIZE = 16
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def ours(data, strategy):
    """Return the model after one call of `fine_tune`."""
    model = real_bert.classifier()
    model.compile(keras.optimizers.AdamW(1e-3), LOSS, metrics=["accuracy"])
    settings = dict(epochs=EPOCHS, strategy=strategy, batch_size=SIZE, verbose=0)
    kt.fine_tune(model, data, **settings)
    return model


def guide(data):
    """Return the model after a fit of the head, and a fit of everything."""
    model = real_bert.classifier()
    for trainable, rate in ((False, 1e-3), (True, 1e-5)):
        model.backbone.trainable = trainable
        model.compile(keras.optimizers.AdamW(rate), LOSS, metrics=["accuracy"])
        model.fit(*data, batch_size=SIZE, epochs=EPOCHS // 2, verbose=0)
    return model


def bert(data):
    """Return the model after one fit of everything, at the usual rate of BERT."""
    model = real_bert.classifier()
    steps = -(-len(data[1]) // SIZE) * EPOCHS
    schedule = kt.optimizers.LinearWarmupDecay(5e-5, steps)
    model.compile(keras.optimizers.AdamW(schedule), LOSS, metrics=["accuracy"])
    model.fit(*data, batch_size=SIZE, epochs=EPOCHS, verbose=0)
    return model


ROWS = {
    "fine_tune": functools.partial(ours, strategy="auto"),
    "probe": functools.partial(ours, strategy="probe"),
    "guide": guide,
    "bert": bert,
}


def load(labels, seed):
    """Return tokens and labels of a part of the training set and of the dev set."""
    import keras_hub

    folder = os.environ.get("KERAS_TRANSFER_DATA")
    if not folder:
        raise SystemExit(f"KERAS_TRANSFER_DATA is not set.\n{__doc__}")
    preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(
        real_bert.folder(), sequence_length=64
    )
    parts = []
    for name in ("sst2_train.tsv", "sst2_dev.tsv"):
        texts, y, _ = kt.data.from_tsv(pathlib.Path(folder) / name)
        if name == "sst2_train.tsv":
            texts, y = kt.data.few_labels((texts, y), labels // 2, seed=seed).labeled
        x = preprocessor(texts)
        parts.append((keras.tree.map_structure(keras.ops.convert_to_numpy, x), y))
    return parts


def main(labels=400, seeds=2):
    times, scores = {}, {}
    for seed in range(seeds):
        train, test = load(labels, seed)
        for name, train_model in ROWS.items():
            keras.utils.set_random_seed(seed)
            start = time.process_time()
            model = train_model(train)
            times.setdefault(name, []).append(time.process_time() - start)
            score = model.evaluate(*test, batch_size=64, verbose=0)[1]
            scores.setdefault(name, []).append(score)
            print(f"seed {seed} {name}: {times[name][-1]:.0f} s, {score:.4f}")
    print(f"{labels} labels: CPU seconds, median and ratio; accuracy, mean ± deviation")
    whole = statistics.median(times["bert"])
    for name, spent in times.items():
        mean, deviation = statistics.mean(scores[name]), statistics.pstdev(scores[name])
        seconds = statistics.median(spent)
        ratio = seconds / whole
        print(f"{name:10} {seconds:8.1f} {ratio:6.3f} {mean:8.4f} ± {deviation:.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
