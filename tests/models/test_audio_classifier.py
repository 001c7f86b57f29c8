"""AudioClassifier: from waveforms to classes, and to a server."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.backbones import audio_encoder
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.models import AudioClassifier
from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.model_contract import ModelContract
from tests.export import plain_tensorflow

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
CLASSES = ("low", "high", "noise")  # not in alphabetical order
RATE = 8000


def sounds(count=24, seed=0):
    """Return tones and noise of 0.2 to 0.6 seconds, and their classes."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        time = np.arange(rng.integers(1600, 4800)) / RATE
        noise = rng.normal(0, 0.05, len(time))
        pitch = (250, 2500)[number % 3 % 2] * rng.uniform(0.9, 1.1)
        tone = (number % 3 < 2) * np.sin(2 * np.pi * pitch * time)
        found.append((0.3 * tone + noise).astype("float32"))
    return found, [CLASSES[number % 3] for number in range(count)]


def classifier(**kwargs):
    return AudioClassifier(audio_encoder(tiny.whisper(), 1), CLASSES, **kwargs)


def compiled(model):
    optimizer = keras.optimizers.AdamW(1e-3)
    model.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=False)
    return model


@pytest.fixture(scope="module")
def trained():
    """A classifier that has learned the sounds. Tests must not change it."""
    keras.utils.set_random_seed(0)
    model = compiled(classifier())
    waveforms, names = sounds()
    x = model.audio_preprocessor.encode(waveforms, RATE)
    kt.fine_tune(model, (x, names), epochs=2, strategy="probe", verbose=0)
    return model


class TestContract(ModelContract):
    loss = LOSS

    def make(self):
        return AudioClassifier(audio_encoder(tiny.whisper(num_layers=1), 1), CLASSES)

    def inputs(self):
        return self.make().audio_preprocessor.encode(sounds(8)[0], RATE)

    def targets(self):
        return np.arange(8) % 3


def test_logits_are_a_dense_layer_on_the_mean_over_the_sound():
    model = classifier()
    x = model.audio_preprocessor.encode(sounds(3)[0], RATE)
    kernel, bias = model.get_layer("logits").get_weights()
    rows = arrays(run(model.backbone, x))[0]
    counts = x["padding_mask"].sum(1)
    means = [row[:count].mean(0) for row, count in zip(rows, counts, strict=True)]
    assert_close(run(model, x), np.stack(means) @ kernel + bias, 1e-5)


def test_learns_names_and_classifies_waveforms(trained):
    waveforms, names = sounds(12, seed=1)
    assert trained.classify(waveforms, RATE) == names
    as_int16 = [np.round(each * 2**15).astype("int16") for each in waveforms]
    assert trained.classify(as_int16, RATE) == names
    faster = kt.data.resample(waveforms, RATE, 44100)
    assert trained.classify(faster, 44100, batch_size=5) == names


def test_silence_and_long_sounds_have_a_class(trained):
    silence = np.zeros((1, 4000), "float32")
    x = trained.audio_preprocessor.encode(silence, RATE)
    assert np.isfinite(trained.predict(x, verbose=0)).all()
    long = np.tile(sounds(2)[0][1], 20)[None]
    with pytest.warns(UserWarning, match="1 of 1 waveforms are longer than the 1 sec"):
        assert trained.classify(long, RATE) == ["high"]


@pytest.mark.parametrize("strategy", ["lp-ft", "lora"])
def test_fine_tunes(strategy):
    model = compiled(classifier())
    waveforms, names = sounds()
    x = model.audio_preprocessor.encode(waveforms, RATE)
    history = kt.fine_tune(model, (x, names), epochs=2, strategy=strategy, verbose=0)
    assert history.class_names == CLASSES
    assert history.history["accuracy"][-1] == 1.0
    others, names = sounds(6, seed=1)
    assert model.classify(others, RATE) == names


def test_frozen_backbones_and_lora_train_few_weights():
    frozen = AudioClassifier(FrozenBackbone(audio_encoder(tiny.whisper(), 1)), CLASSES)
    assert len(frozen.trainable_variables) == 2
    model = classifier()
    adapters.LoRA(rank=2).attach(model, verbose=0)
    lora = [v.path for v in model.trainable_variables if "lora" in v.path]
    assert len(lora) == 8 and len(model.trainable_variables) == 10
    blocks = [f"transformer_encoder_layer_{number}" for number in range(2)]
    assert kt.layer_groups(model).names == ["stem", *blocks, "head"]


def test_reloads_in_a_fresh_process_without_the_decoder(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    waveforms, names = sounds(6)
    x = trained.audio_preprocessor.encode(waveforms, RATE)
    again = fresh.load(tmp_path / "model.keras", x)
    assert_close(again.outputs, run(trained, x))
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.classify(waveforms, RATE) == names and loaded.classes == CLASSES
    assert not any("decoder" in weight.path for weight in loaded.weights)


def test_serves_waveforms_of_any_length(trained, tmp_path):
    waveforms, names = sounds(6)
    waveforms = kt.data.resample(waveforms, RATE)
    padded = np.zeros((6, 16000), "float32")
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    folder = kt.export_serving(trained, tmp_path, samples=padded[:3], features=True)
    requests = [{"waveform": padded}]
    requests += [{"waveform": each[None]} for each in waveforms]
    requests += [{"waveform": np.pad(padded, ((0, 0), (0, 999)))}]
    answers = plain_tensorflow.serve(
        folder, [("serving_default", request) for request in requests]
    )
    x = trained.audio_preprocessor.encode(waveforms, 16000)
    right = trained.predict(x, verbose=0)
    assert [label.decode() for label in answers[0]["label"]] == names
    np.testing.assert_allclose(answers[0]["outputs"], right, atol=1e-3)
    np.testing.assert_allclose(answers[-1]["outputs"], right, atol=1e-3)
    for row, answer in zip(right, answers[1:-1], strict=True):
        np.testing.assert_allclose(answer["outputs"][0], row, atol=1e-3)


def test_serves_its_own_inputs_and_another_preprocessor(trained, tmp_path):
    x = trained.audio_preprocessor.encode(sounds(3)[0], RATE)
    folder = kt.export_serving(trained, tmp_path / "own", preprocessor=False, samples=x)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = serve(**{name: tf.constant(each) for name, each in x.items()})
    np.testing.assert_allclose(
        answer["outputs"], trained.predict(x, verbose=0), atol=1e-4
    )
    plain = keras.Model(trained.input, trained.output)  # without its preprocessor
    folder = kt.export_serving(
        plain, tmp_path / "plain", preprocessor=trained.audio_preprocessor
    )
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {"serving_default", "preprocessed"}


def test_errors_say_what_does_not_fit():
    encoder = audio_encoder(tiny.whisper(), 1)
    with pytest.raises(ValueError, match=r"Pass kt.backbones.audio_encoder\(backbone"):
        AudioClassifier(tiny.whisper(), CLASSES)
    with pytest.raises(ValueError, match="an audio encoder is needed"):
        AudioClassifier(tiny.bert(), CLASSES)
    with pytest.raises(ValueError, match="classes="):
        AudioClassifier(encoder, ["low", "low"])
    with pytest.raises(ValueError, match="batch_size=0"):
        classifier().classify(sounds(2)[0], RATE, 0)
    with pytest.raises(ValueError, match="pooling='average' does not fit"):
        AudioClassifier(encoder, CLASSES, pooling="average")
