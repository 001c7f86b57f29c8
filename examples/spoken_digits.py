"""Spoken digits of unseen speakers with the encoder of a Whisper, by `fine_tune`.

Learned: how waveforms at any sampling rate become the inputs of a Whisper encoder that
is cut to the length of the sounds; what its frozen features give over a spectrogram
without a pretrained network; how a server answers raw waveforms. Data: a folder of WAV
files named DIGIT_SPEAKER_TAKE.wav, as in the Free Spoken Digit Dataset; two speakers
are held out. Time: 2 minutes of CPU for `probe` on 1,200 recordings of Whisper tiny.en,
and 4 minutes or more for 200 recordings with `lp-ft` and `lora`. Expect an accuracy of
0.92 to 0.99 from `probe`, by speaker, and 0.32 to 0.51 from the mean spectrogram, as
measured by benchmarks/spoken_digits.py; only the short form of this file was run:
`--smoke`, a tiny, random Whisper on generated tones.

    python examples/spoken_digits.py --data recordings --test theo yweweler
"""

import argparse
import pathlib
import tempfile
import time

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from scipy.io import wavfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", default="whisper_tiny_en", help="name or folder")
parser.add_argument("--data", help="folder of files DIGIT_SPEAKER_TAKE.wav")
parser.add_argument("--test", nargs="+", default=["theo", "yweweler"])
parser.add_argument("--seconds", type=int, default=1, help="of the longest sound")
parser.add_argument("--strategies", nargs="+", default=["probe", "lp-ft", "lora"])
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()


def make_smoke():
    """Write a tiny Whisper and tones of three speakers, and set the options to them."""
    folder = pathlib.Path(tempfile.mkdtemp())
    keras_hub.models.WhisperBackbone(
        vocabulary_size=32,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_encoder_sequence_length=100,
    ).save_to_preset(folder / "whisper")
    random = np.random.default_rng(0)
    for speaker in ("ada", "bob", "eve"):
        for number in range(24):
            seconds = np.arange(random.integers(2000, 6000)) / 8000
            pitch = (250, 800, 2500)[number % 3] * random.uniform(0.9, 1.1)
            tone = np.sin(2 * np.pi * pitch * seconds)
            noise = random.normal(0, 0.1, len(seconds))
            values = (8000 * (tone + noise)).astype("int16")
            name = f"{number % 3}_{speaker}_{number // 3}.wav"
            wavfile.write(folder / name, 8000, values)
    options.preset, options.data = str(folder / "whisper"), folder
    options.test, options.epochs, options.strategies = ["eve"], 2, ["lp-ft"]


def load():
    """Return the waveforms, the digits and the speakers, and the sampling rate."""
    sounds, digits, speakers, rates = [], [], [], set()
    for path in sorted(pathlib.Path(options.data).glob("*_*_*.wav")):
        rate, waveform = wavfile.read(path)
        digit, speaker, _ = path.stem.split("_")
        sounds.append(waveform[: options.seconds * rate])
        digits.append(digit)
        speakers.append(speaker)
        rates.add(rate)
    if len(rates) != 1:
        parser.error(f"{options.data} has sampling rates {sorted(rates)}, not one")
    return sounds, np.array(digits), np.isin(speakers, options.test), rates.pop()


def build():
    """Return a new, compiled classifier on the pretrained encoder."""
    whisper = keras_hub.models.WhisperBackbone.from_preset(options.preset)
    encoder = kt.backbones.audio_encoder(whisper, seconds=options.seconds)
    model = kt.models.AudioClassifier(encoder, sorted(set(digits)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    return model


if options.smoke:
    make_smoke()
elif not options.data:
    parser.error("pass --data, or --smoke")
sounds, digits, held_out, rate = load()
x = build().audio_preprocessor.encode(sounds, rate)  # once, for all rows
inside = {name: each[~held_out] for name, each in x.items()}
table = Table(f"{held_out.sum()} test recordings", "accuracy", "trained", "CPU s")

mel = x["encoder_features"].mean(1)
baseline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
baseline.fit(mel[~held_out], digits[~held_out])
accuracy = baseline.score(mel[held_out], digits[held_out])
table.add_row("mean spectrogram", f"{accuracy:.3f}", "", "")
test = [sound for sound, held in zip(sounds, held_out) if held]
for strategy in options.strategies:
    keras.utils.set_random_seed(0)
    model = build()
    began = time.process_time()
    data = inside, digits[~held_out]
    history = kt.fine_tune(model, data, epochs=options.epochs, strategy=strategy)
    seconds = time.process_time() - began
    accuracy = np.mean(model.classify(test, rate) == digits[held_out])
    trained = history.history["trainable_parameters"][-1]
    table.add_row(strategy, f"{accuracy:.3f}", f"{trained:,.0f}", f"{seconds:.0f}")

# A server takes raw waveforms, of any length up to `seconds`, at 16,000 Hz.
waveform = kt.data.resample(test[0], rate)[None]
folder = kt.export_serving(model, pathlib.Path(tempfile.mkdtemp()), samples=waveform)
serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
answer = serve(waveform=tf.constant(waveform))
print("served:", answer["label"].numpy()[0].decode(), "for", digits[held_out][0])
Console(width=90).print(table)
