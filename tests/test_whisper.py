"""A real pretrained Whisper: parity with NumPy, a transcript, spoken digits."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import real_whisper
from tests.backbones import whisper_oracle
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

DIGITS = [str(digit) for digit in range(10)]
START = [50257, 50362]  # <|startoftranscript|> and <|notimestamps|> of tiny.en
END = 50256


@pytest.fixture(scope="module")
def whisper(whisper_folder):
    """Return the real WhisperBackbone. Tests must not change it."""
    return real_whisper.backbone(whisper_folder)


@pytest.fixture(scope="module")
def recordings(data_folder):
    """Return 1,200 recordings, their digits and their speakers."""
    with np.load(data_folder / "fsdd_small.npz") as file:
        pairs = zip(file["wav"], file["length"], strict=True)
        sounds = [wav[: int(length)] for wav, length in pairs]
        return sounds, file["digit"].astype(int), file["speaker"]


def test_equals_numpy_with_the_first_positions(whisper, whisper_folder, recordings):
    encoder = kt.backbones.audio_encoder(whisper, seconds=1)
    model = kt.models.AudioClassifier(encoder, DIGITS)
    x = model.audio_preprocessor.encode(recordings[0][:2], 8000)
    found = real_whisper.read_variables(whisper_folder / "model.bin")
    values = {
        name: each.astype("float64")
        for name, each in real_whisper.keras_names(found).items()
    }
    for name in list(values):  # keras-hub has an axis for the heads
        if name.endswith(("query/kernel", "key/kernel", "value/kernel")):
            values[name] = values[name].reshape(384, 6, 64)
        elif name.endswith(("query/bias", "value/bias")):
            values[name] = values[name].reshape(6, 64)
        elif name.endswith("attention_output/kernel"):
            values[name] = values[name].reshape(6, 64, 384)
    wanted = whisper_oracle.encode(values, x["encoder_features"])
    assert_close(run(encoder, x), wanted, 2e-3)


def test_writes_the_digits_that_are_spoken(whisper, whisper_folder, recordings):
    import keras_hub

    sounds, digits, speakers = recordings
    spoken = [np.flatnonzero((digits == d) & (speakers == 0))[0] for d in (3, 4, 5)]
    pause = np.zeros(2000, "int16")
    waveform = np.concatenate([np.append(sounds[i], pause) for i in spoken])
    converter = keras_hub.layers.WhisperAudioConverter()  # of 30 seconds
    x = kt.data.AudioPreprocessor(converter).encode(waveform[None], 8000)
    heard = run(kt.backbones.audio_encoder(whisper, seconds=30), x)
    heard = keras.ops.convert_to_numpy(heard)
    names = ("decoder_token_ids", "decoder_padding_mask")
    inputs = [whisper.output["encoder_sequence_output"]]
    inputs += [whisper.input[name] for name in names]
    decoder = keras.Model(inputs, whisper.output["decoder_sequence_output"])
    tokens = list(START)
    table = keras.ops.convert_to_numpy(whisper.token_embedding.embeddings)
    while tokens[-1] != END and len(tokens) < 16:
        ids = np.array([tokens])
        state = decoder([heard, ids, np.ones_like(ids)])
        last = keras.ops.convert_to_numpy(state)[0, -1]
        tokens.append(int((table @ last).argmax()))
    words = (whisper_folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    text = "".join(words[token] for token in tokens[2:-1]).replace("Ġ", " ")
    assert text == " 3 4 5"


def test_recognizes_digits_of_speakers_it_has_not_heard(whisper, recordings):
    sounds, digits, speakers = recordings
    chosen = np.flatnonzero(np.arange(len(digits)) % 4 == 0)
    sounds = [sounds[number] for number in chosen]
    digits, train = digits[chosen], speakers[chosen] < 4
    encoder = kt.backbones.audio_encoder(whisper, seconds=1)
    frozen = kt.backbones.FrozenBackbone(encoder)
    model = kt.models.AudioClassifier(frozen, DIGITS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    x = model.audio_preprocessor.encode(sounds, 8000)
    inside = {name: each[train] for name, each in x.items()}
    kt.fine_tune(model, (inside, digits[train]), strategy="probe", verbose=0)
    outside = [sound for sound, known in zip(sounds, train, strict=True) if not known]
    found = np.array(model.classify(outside, 8000)) == digits[~train].astype(str)
    assert found.mean() > 0.9  # 1.0 when written; chance is 0.1
