"""AudioPreprocessor: spectrograms of keras-hub, and the mask of the sound."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data import AudioPreprocessor
from keras_transfer.data import resample


def converter(seconds=1, **kwargs):
    import keras_hub

    return keras_hub.layers.WhisperAudioConverter(max_audio_length=seconds, **kwargs)


def sound(samples, seed=0):
    noise = np.random.default_rng(seed).normal(size=samples)
    return (noise / 10).astype("float32")


def test_spectrogram_is_the_start_of_that_of_whisper():
    waveform = sound(8000)
    x = AudioPreprocessor(converter(1)).encode(waveform[None], 16000)
    whole = keras.ops.convert_to_numpy(converter(30)(waveform[None]))
    assert whole.shape == (1, 3000, 80) and x["encoder_features"].shape == (1, 100, 80)
    np.testing.assert_allclose(x["encoder_features"], whole[:, :100], atol=1e-5)


def test_mask_has_the_positions_with_sound():
    # A position is 320 samples.
    sounds = [sound(each) for each in (1, 320, 321, 16000)]
    sounds.append(np.zeros(16000, "float32"))  # silence keeps one position
    sounds.append(np.pad(sound(640), (320, 9000)))  # zeros at the start are sound
    x = AudioPreprocessor(converter()).encode(sounds, 16000)
    assert x["padding_mask"].sum(1).tolist() == [1, 1, 2, 50, 1, 3]
    assert (np.diff(x["padding_mask"]) <= 0).all()
    assert np.isfinite(x["encoder_features"]).all()


def test_other_rates_are_resampled():
    preprocessor = AudioPreprocessor(converter())
    waveforms = np.stack([sound(4000), sound(4000, 1)])
    at_8000 = preprocessor.encode(waveforms, 8000)
    at_16000 = preprocessor.encode(resample(waveforms, 8000), 16000)
    for name, each in at_8000.items():
        np.testing.assert_array_equal(each, at_16000[name])
    as_int16 = preprocessor.encode(np.round(waveforms * 2**15).astype("int16"), 8000)
    close = np.abs(as_int16["encoder_features"] - at_8000["encoder_features"])
    assert np.median(close) < 1e-2


def test_what_is_too_long_is_cut_and_counted():
    preprocessor = AudioPreprocessor(converter())
    sounds = [sound(16000), sound(24000), np.pad(sound(8000), (0, 16000))]
    with pytest.warns(UserWarning, match="1 of 3 waveforms .* 1 seconds .* 0.5 secon"):
        x = preprocessor.encode(sounds, 16000)
    cut = preprocessor.encode([each[:16000] for each in sounds], 16000)
    for name, each in x.items():
        np.testing.assert_array_equal(each, cut[name])


@pytest.mark.parametrize("samples", [1, 500, 16000, 20000])
def test_the_graph_computes_what_encode_computes(samples):
    preprocessor = AudioPreprocessor(converter())
    waveforms = np.stack([sound(samples), np.pad(sound(1), (0, samples - 1))])
    signature = [tf.TensorSpec((None, None), "float32")]
    traced = tf.function(preprocessor, input_signature=signature)(waveforms)
    x = preprocessor.encode(waveforms[:, :16000], 16000)
    np.testing.assert_array_equal(traced["padding_mask"], x["padding_mask"])
    np.testing.assert_allclose(
        traced["encoder_features"], x["encoder_features"], atol=1e-4
    )


def test_a_request_without_samples_is_silence():
    x = AudioPreprocessor(converter())(tf.zeros((2, 0)))
    assert np.asarray(x["padding_mask"]).sum(1).tolist() == [1, 1]


def test_a_batch_is_as_its_rows():
    preprocessor = AudioPreprocessor(converter())
    waveforms = np.stack([sound(999, seed) for seed in range(70)])  # over 64 rows
    x = preprocessor.encode(waveforms, 16000)
    one = preprocessor.encode(waveforms[69:], 16000)
    np.testing.assert_allclose(x["encoder_features"][69:], one["encoder_features"])


def test_errors_say_what_does_not_fit():
    with pytest.raises(TypeError, match="must be a keras_hub.layers.WhisperAudioConv"):
        AudioPreprocessor(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="max_audio_length=1.5 .* must be an int"):
        AudioPreprocessor(converter(1.5))
    preprocessor = AudioPreprocessor(converter())
    assert (preprocessor.sampling_rate, preprocessor.seconds) == (16000, 1)
    with pytest.raises(ValueError, match=r"single waveform.*waveform\[None\]"):
        preprocessor.encode(sound(100), 16000)
    with pytest.raises(ValueError, match="sampling_rate=0"):
        preprocessor.encode(sound(100)[None], 0)
