"""Cost and accuracy of `fine_tune`, compared with the same recipe in plain Keras.

Claim: the accuracy is equal within the spread of the seeds, and `fine_tune` needs less
CPU time. MiniLM trains on SST-2 with texts of 64 tokens for 3 epochs, in the phases of
`strategy="gradual"`: the head, the upper groups, all groups. Plain Keras sets
`trainable` and calls `compile` and `fit` three times, with a `MultiOptimizer` for the
rates of the groups. The two alternate for each seed. The times are process CPU times.
The folder of SST-2 is in $KERAS_TRANSFER_DATA.

    python benchmarks/fine_tune.py [labels] [seeds]
"""

import os
import pathlib
import re
import statistics
import sys
import time

import keras
import real_bert

import keras_transfer as kt

RATE = 1e-3
EPOCHS = 3
SIZE = 16
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Shifted(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that starts later, multiplied by a factor."""

    def __init__(self, schedule, step, factor):
        self.schedule, self.step, self.factor = schedule, step, factor

    def __call__(self, step):
        return self.factor * self.schedule(step + self.step)


def ours(data):
    """Return the model after one call of `fine_tune`."""
    model = real_bert.classifier()
    model.compile(keras.optimizers.AdamW(RATE), LOSS, metrics=["accuracy"])
    settings = dict(epochs=EPOCHS, strategy="gradual", batch_size=SIZE, verbose=0)
    kt.fine_tune(model, data, **settings)
    return model


def by_hand(data):
    """Return the model after three fits, each with a new `compile`."""
    x, y = data
    model = real_bert.classifier()
    steps = -(-len(y) // SIZE)
    schedule = kt.optimizers.SlantedTriangular(RATE, EPOCHS * steps)
    # The rates of the stem and of blocks 0 to 5, as in fine_tune.
    factors = [0.1 ** (2 - i / 6) for i in range(7)]
    for epoch, thawed in enumerate(((), range(2, 6), range(6))):
        model.backbone.trainable = True
        for layer in model.backbone.layers:
            number = layer.name.removeprefix("transformer_layer_")
            block = number != layer.name and int(number) in thawed
            layer.trainable = block or epoch == 2
        if epoch == 0:
            model.backbone.trainable = False
        rates = {
            name: keras.optimizers.AdamW(Shifted(schedule, epoch * steps, factor))
            for name, factor in zip(range(-1, 6), factors, strict=True)
        }
        head_rate = 10.0 if epoch == 0 else 1.0
        head = keras.optimizers.AdamW(Shifted(schedule, epoch * steps, head_rate))

        def choose(variable, rates=rates, head=head):
            if variable.path.startswith("logits"):
                return head
            found = re.search(r"transformer_layer_(\d)", variable.path)
            return rates[int(found[1]) if found else -1]

        optimizer = keras.optimizers.MultiOptimizer(choose)
        model.compile(optimizer, LOSS, metrics=["accuracy"])
        model.fit(x, y, batch_size=SIZE, verbose=0)
    return model


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


def main(labels=1000, seeds=3):
    times, scores = {}, {}
    for seed in range(seeds):
        train, test = load(labels, seed)
        for train_model in (ours, by_hand):
            keras.utils.set_random_seed(seed)
            name = train_model.__name__
            start = time.process_time()
            model = train_model(train)
            times.setdefault(name, []).append(time.process_time() - start)
            score = model.evaluate(*test, batch_size=64, verbose=0)[1]
            scores.setdefault(name, []).append(score)
            print(f"seed {seed} {name}: {times[name][-1]:.0f} s, {score:.4f}")
    print(f"{labels} labels, median CPU seconds; accuracy, mean and deviation")
    whole = statistics.median(times["by_hand"])
    for name, spent in times.items():
        mean, deviation = statistics.mean(scores[name]), statistics.pstdev(scores[name])
        seconds = statistics.median(spent)
        print(
            f"{name:8} {seconds:8.1f} {seconds / whole:6.3f} "
            f"{mean:8.4f} {deviation:7.4f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
