"""AudioPreprocessor: waveforms as spectrograms and masks of an AudioClassifier."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.resample import resample
from keras_transfer.data.waveforms import checked_waveforms

BATCH_SIZE = 64  # sounds whose spectrogram is computed at once
FEATURES = "encoder_features"
MASK = "padding_mask"


class AudioPreprocessor:
    """Converts waveforms to the inputs of a Whisper encoder.

    The log-mel spectrogram is that of keras-hub's converter, which pads or cuts each
    sound to its `max_audio_length`. The mask is 1 for the positions of the encoder that
    have sound: up to the last sample that is not exactly 0, and at least the first
    position, so that silence has features too. A position is 320 samples, 1/50 of a
    second.

    `kt.models.AudioClassifier` makes this object, as its attribute
    `audio_preprocessor`. Use `encode` for arrays at any sampling rate. Called with a
    tensor of waveforms at the rate of the converter, it runs in a graph, for
    `kt.export_serving` and `tf.data`.

    Args:
        converter: `keras_hub.layers.WhisperAudioConverter`, with `max_audio_length` in
            whole seconds and the `num_mels` of the backbone.

    Example:
        ```python
        import keras_hub
        import numpy as np
        import keras_transfer as kt

        converter = keras_hub.layers.WhisperAudioConverter(max_audio_length=2)
        preprocessor = kt.data.AudioPreprocessor(converter)
        sounds = [np.ones(8000, "int16"), np.ones(4000, "int16")]
        x = preprocessor.encode(sounds, sampling_rate=8000)
        assert x["encoder_features"].shape == (2, 200, 80)
        assert x["padding_mask"].sum(1).tolist() == [50, 25]
        ```

    Raises:
        TypeError: If `converter` is not a WhisperAudioConverter.
        ValueError: If its `max_audio_length` is not a whole number.

    Reference:
        Radford et al., 2022, "Robust Speech Recognition via Large-Scale Weak
        Supervision", arXiv:2212.04356, section 2.2.
    """

    def __init__(self, converter: keras.layers.Layer):
        import keras_hub

        if not isinstance(converter, keras_hub.layers.WhisperAudioConverter):
            raise TypeError(
                f"converter is a {type(converter).__name__}, but it must be a "
                "keras_hub.layers.WhisperAudioConverter."
            )
        if not isinstance(converter.num_samples, int):
            raise ValueError(
                f"max_audio_length={converter.max_audio_length!r} of the converter "
                "must be an int, because it is the number of whole seconds."
            )
        self.converter = converter
        self._step = 2 * converter.stride  # samples of a position

    @property
    def sampling_rate(self) -> int:
        """The samples in a second of the waveforms that the model takes."""
        return self.converter.sampling_rate

    @property
    def seconds(self) -> int:
        """The length to which sounds are padded or cut."""
        return self.converter.max_audio_length

    def __call__(self, waveforms: Any) -> dict[str, tf.Tensor]:
        """Return the inputs of the model for waveforms at the rate of the converter.

        Args:
            waveforms: Float tensor `(batch, samples)` from -1 to 1, with zeros after
                the end of shorter sounds. What is too long is cut off.

        Returns:
            A dictionary: `encoder_features`, float32 `(batch, frames, mels)`, and
            `padding_mask`, int32 `(batch, positions)`.
        """
        waveforms = tf.cast(waveforms, "float32")[:, : self.converter.num_samples]
        place = tf.range(1, tf.shape(waveforms)[1] + 1)
        sounding = tf.cast(tf.not_equal(waveforms, 0.0), "int32")
        # A request can have no samples, whose largest place is the least of int32.
        ends = tf.maximum(tf.reduce_max(sounding * place, axis=1), 1)
        positions = tf.range(self.converter.num_samples // self._step)
        mask = tf.cast(positions * self._step < ends[:, None], "int32")
        return {FEATURES: self.converter(waveforms), MASK: mask}

    def encode(self, waveforms: Any, sampling_rate: int) -> dict[str, np.ndarray]:
        """Return the inputs of the model as arrays.

        Waveforms at another rate are resampled as by `kt.data.resample`. What is longer
        than `seconds` is cut off at the end, and a warning tells how much.

        Args:
            waveforms: Array `(batch, samples)`, or a list of arrays `(samples,)` of any
                lengths: floats from -1 to 1, int16 or int32, with one channel.
            sampling_rate: Samples in a second of the waveforms.

        Returns:
            A dictionary: `encoder_features`, float32 `(batch, frames, mels)`, and
            `padding_mask`, int32 `(batch, positions)`.

        Raises:
            TypeError: If the waveforms are not floats, int16 or int32.
            ValueError: If there is a single waveform instead of a batch, or as in
                `kt.data.resample`.
        """
        checked = checked_waveforms(waveforms)
        if isinstance(checked, np.ndarray) and checked.ndim == 1:
            raise ValueError(
                f"The waveforms have the shape {checked.shape}, which is a single "
                "waveform. Pass a batch: `waveform[None]`, or a list of waveforms."
            )
        found = resample(checked, sampling_rate, self.sampling_rate)
        rows = np.zeros((len(found), self.converter.num_samples), "float32")
        lost = []
        for row, waveform in zip(rows, found, strict=True):
            # Zeros at the end are padding.
            lost.append(len(np.trim_zeros(waveform[len(row) :], "b")))
            row[: len(waveform)] = waveform[: len(row)]
        if any(lost):
            seconds = sum(lost) / self.sampling_rate
            warnings.warn(
                f"{np.count_nonzero(lost)} of {len(rows)} waveforms are longer than "
                f"the {self.seconds} seconds of the model, and {seconds:.1f} seconds "
                "at their ends were left out. Make the encoder for more seconds, or "
                "cut the waveforms yourself.",
                stacklevel=2,
            )
        starts = range(0, len(rows), BATCH_SIZE)
        parts = [self(rows[start : start + BATCH_SIZE]) for start in starts]
        return {
            name: np.concatenate([_array(part[name]) for part in parts])
            for name in (FEATURES, MASK)
        }


def _array(x: Any) -> np.ndarray:
    if keras.ops.is_tensor(x):
        return keras.ops.convert_to_numpy(x)
    return np.asarray(x)
