"""The spectrogram in the graph, for signatures that take waveforms."""

from __future__ import annotations

import tensorflow as tf

from keras_transfer.data.audio_preprocessor import AudioPreprocessor
from keras_transfer.export.request import Entry
from keras_transfer.export.request import fitted
from keras_transfer.export.request import raw_entry

NAME = "waveform"


def audio_entry(preprocessor: AudioPreprocessor, plain: Entry) -> Entry:
    """Return the entry for waveforms of a model whose own entry is `plain`.

    Its input is `waveform`, float32 `(batch, samples)` from -1 to 1, at the sampling
    rate of the preprocessor. Shorter sounds of a batch end in zeros. A sound that is
    too long is cut off.
    """

    def prepare(tensors: dict[str, tf.Tensor]) -> object:
        return fitted(preprocessor(tensors[NAME]), plain, "The AudioPreprocessor")

    spec = tf.TensorSpec((None, None), tf.float32, name=NAME)
    return raw_entry({NAME: spec}, prepare)
