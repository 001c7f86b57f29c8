"""Spoken digits of unseen speakers: spectrograms, frozen Whisper features, fine-tuning.

Claim: on the mean of Whisper's outputs over the positions that have sound, a logistic
regression recognizes digits of speakers who are not in the training data, where the
spectrogram itself is little help. The data are 1,200 recordings at 8,000 Hz of at most
a second, by 6 speakers (a part of the Free Spoken Digit Dataset). Two speakers are held
out with their 400 recordings. Of the others, some takes of each digit train: all 20,
which are 800 recordings, or 5, which are 200. The rows are

- `mel_mean`, `mel_all`: scikit-learn's logistic regression on the log-mel spectrogram,
  as the mean over the frames that have sound, and as all 100 frames.
- `frozen`: scikit-learn's logistic regression on `kt.backbones.features`.
- `frozen_padded`: the same on the mean over all positions, also those of the padding.
- `frozen_2s`: as `frozen`, with an encoder of 2 seconds instead of 1.
- `probe`, `lp-ft`, `lora`: `kt.fine_tune` with 5 epochs at AdamW(1e-3).

Nothing is chosen on the held-out speakers. Whisper is tiny.en, read from a package by
tests/real_whisper.py:

    KERAS_TRANSFER_DATA=<folder> PYTHONPATH=. python benchmarks/spoken_digits.py

The encoder takes about 30 CPU seconds for all recordings, a row of `lp-ft` with 200
recordings 220, and with 800 recordings more than 350. Choose rows by `--rows`, held-out
pairs by `--pairs`, and takes by `--takes`.
"""

import argparse
import itertools
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import keras_transfer as kt
from tests import real_whisper

DIGITS = ["zero", "one", "two", "three", "four"]
DIGITS += ["five", "six", "seven", "eight", "nine"]
PAIRS = ((0, 1), (2, 3), (4, 5))  # each speaker is held out once
STRATEGIES = ["probe", "lp-ft", "lora"]
BASELINES = ["mel_mean", "mel_all", "frozen", "frozen_padded", "frozen_2s"]
ROWS = BASELINES + STRATEGIES


def data():
    """Return the recordings without their padding, the digits and the speakers."""
    folder = pathlib.Path(os.environ.get("KERAS_TRANSFER_DATA", "../shared/data"))
    with np.load(folder / "fsdd_small.npz") as file:
        pairs = zip(file["wav"], file["length"], strict=True)
        sounds = [wav[: int(length)] for wav, length in pairs]
        names = [str(name) for name in file["speaker_names"]]
        return sounds, file["digit"].astype(int), file["speaker"], file["take"], names


def regression(x, y, train, test):
    """Return the accuracy of a logistic regression on the rows of `test`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(x[train], y[train]).score(x[test], y[test])


def masked_mean(x):
    """Return the mean of the frames of a spectrogram that have sound."""
    mask = np.repeat(x["padding_mask"], 2, axis=1)[..., None]
    return (x["encoder_features"] * mask).sum(1) / mask.sum(1)


def fine_tuned(strategy, x, y, train, test):
    """Return the accuracy of `kt.fine_tune` on the rows of `test`."""
    keras.utils.set_random_seed(0)
    encoder = kt.backbones.audio_encoder(whisper(), seconds=1)
    model = kt.models.AudioClassifier(encoder, DIGITS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    inside = {name: each[train] for name, each in x.items()}
    outside = {name: each[test] for name, each in x.items()}
    kt.fine_tune(model, (inside, y[train]), strategy=strategy, verbose=0)
    return (model.predict(outside, verbose=0).argmax(1) == y[test]).mean()


def whisper():
    """Return a new WhisperBackbone with the weights of tiny.en."""
    return real_whisper.backbone(real_whisper.folder())


def features(sounds, seconds):
    """Return the inputs of an encoder, and its features."""
    encoder = kt.backbones.audio_encoder(whisper(), seconds=seconds)
    x = kt.models.AudioClassifier(encoder, DIGITS).audio_preprocessor.encode(
        sounds, sampling_rate=8000
    )
    return x, kt.backbones.features(encoder)


def main():
    """Print a line for each pair and row, and the means at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--pairs", nargs="*", type=int, default=range(len(PAIRS)))
    parser.add_argument("--takes", nargs="*", type=int, default=[5, 20])
    options = parser.parse_args()
    sounds, y, speakers, takes, names = data()
    began = time.process_time()
    x, network = features(sounds, 1)
    print(f"spectrograms: {time.process_time() - began:.0f} CPU s", flush=True)
    vectors = {
        "mel_mean": masked_mean(x),
        "mel_all": x["encoder_features"].reshape(len(y), -1),
    }
    if "frozen" in options.rows:
        began = time.process_time()
        vectors["frozen"] = network.predict(x, verbose=0)
        print(f"features: {time.process_time() - began:.0f} CPU s", flush=True)
    if "frozen_padded" in options.rows:
        full = x | {"padding_mask": np.ones_like(x["padding_mask"])}
        vectors["frozen_padded"] = network.predict(full, verbose=0)
    if "frozen_2s" in options.rows:
        longer, network = features(sounds, 2)
        vectors["frozen_2s"] = network.predict(longer, verbose=0)
    found = {}
    for number, most in itertools.product(options.pairs, options.takes):
        pair = PAIRS[number]
        test = np.isin(speakers, pair)
        train = ~test & (takes < most)
        who = " and ".join(names[each] for each in pair)
        for row in options.rows:
            began = time.process_time()
            if row in STRATEGIES:
                accuracy = fine_tuned(row, x, y, train, test)
            else:
                accuracy = regression(vectors[row], y, train, test)
            seconds = time.process_time() - began
            found.setdefault((most, row), []).append(accuracy)
            start = f"{who}, {train.sum()} recordings: {row:14}"
            print(f"{start} {accuracy:.3f}, {seconds:.0f} CPU s", flush=True)
    print(f"takes {'row':14} mean   per pair")
    for (most, row), values in sorted(found.items()):
        each = "  ".join(f"{value:.3f}" for value in values)
        print(f"{most:5} {row:14} {np.mean(values):.3f}  {each}")


if __name__ == "__main__":
    main()
