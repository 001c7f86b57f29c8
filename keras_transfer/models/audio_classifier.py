"""AudioClassifier: classes of sounds, from the encoder of a Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer._arguments import unique_names
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.audio_encoder import AudioEncoder
from keras_transfer.backbones.audio_encoder import checked_encoder
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.data.audio_preprocessor import AudioPreprocessor
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.models.transfer_classifier import TransferClassifier

BATCH_SIZE = 32


@keras.saving.register_keras_serializable(package="keras_transfer")
class AudioClassifier(TransferClassifier):
    """Classifies sounds: words, speakers, noises or music, with a Whisper encoder.

    `logits = W dropout(pool(h)) + b`, where `h` are the outputs of the encoder, and
    `pool` is the mean over the positions that have sound. Whisper was trained on
    680,000 hours of speech, so a head needs few labels. The encoder is cut to the
    length of the sounds, and has no decoder, in memory or in the saved file.

    It is a `TransferClassifier` whose `audio_preprocessor` makes its inputs from
    waveforms, once, before training. Train it by `fit` or `kt.fine_tune`, on these
    inputs and on labels that are names of classes or their numbers. `classify` takes
    waveforms. Adapters, layer groups, frozen backbones and discriminative rates work as
    for texts. `kt.export_serving` exports it with raw waveforms of any length up to
    `seconds`, and returns the label.

    Args:
        backbone: An encoder that `kt.backbones.audio_encoder` returned, or a
            `FrozenBackbone` of one.
        classes: Names of the classes, in the order of the logits.
        pooling: How the positions become one vector, as in `kt.backbones.features`.
            Defaults to `"mean"`, without the padding.
        dropout: Float in [0, 1), the dropout rate before the last layer. Defaults to
            0.0.
        dtype: Dtype policy of pooling and dropout. Defaults to None, the policy of the
            backbone. The logits are always float32.
        name: Name of the model.

    Input shape:
        A dictionary that `audio_preprocessor.encode` returns: `encoder_features`
        `(batch, 100 * seconds, mels)` and `padding_mask` `(batch, 50 * seconds)`.

    Output shape:
        `(batch, classes)`.

    Example:
        ```python
        import keras
        import keras_hub
        import numpy as np
        import keras_transfer as kt

        backbone = keras_hub.models.WhisperBackbone(64, 1, 2, 16, 32)
        encoder = kt.backbones.audio_encoder(backbone, seconds=1)
        model = kt.models.AudioClassifier(encoder, ["low", "high"])
        time = np.arange(8000) / 8000
        sounds = [np.sin(2 * np.pi * pitch * time) for pitch in (200, 2000)]
        x = model.audio_preprocessor.encode(sounds, sampling_rate=8000)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        model.fit(x, np.array([0, 1]), verbose=0)
        assert len(model.classify(sounds, sampling_rate=8000)) == 2
        ```

    Raises:
        TypeError: If the backbone is not a model, or is a Task that already has a head.
        ValueError: If the backbone is not an audio encoder, if `classes` are not
            different names, or if another argument is out of range.

    Reference:
        Radford et al., 2022, "Robust Speech Recognition via Large-Scale Weak
        Supervision", arXiv:2212.04356.
    """

    def __init__(
        self,
        backbone: AudioEncoder | FrozenBackbone,
        classes: Sequence[str],
        *,
        pooling: str | None = "mean",
        dropout: float = 0.0,
        dtype: object = None,
        name: str | None = None,
    ):
        import keras_hub

        encoder = checked_encoder(backbone)
        classes = tuple(map(str, unique_names("classes", classes)))
        super().__init__(
            backbone,
            len(classes),
            pooling=pooling,
            dropout=dropout,
            dtype=dtype,
            name=name,
        )
        self.classes = classes
        # Not the global policy: a spectrogram in float16 loses the quiet frequencies.
        converter = keras_hub.layers.WhisperAudioConverter(
            num_mels=encoder.num_mels, max_audio_length=encoder.seconds, dtype="float32"
        )
        self.audio_preprocessor = AudioPreprocessor(converter)
        remember_class_names(self, classes)

    def classify(
        self, waveforms: Any, sampling_rate: int, batch_size: int = BATCH_SIZE
    ) -> list[str]:
        """Return the name of the most probable class of each sound.

        Args:
            waveforms: Array `(batch, samples)`, or a list of arrays `(samples,)` of any
                lengths: floats from -1 to 1, int16 or int32. A sound that is too long
                is cut, and a warning tells how much.
            sampling_rate: Samples in a second of the waveforms.
            batch_size: Number of sounds that run at once. Defaults to 32.

        Raises:
            TypeError: If the waveforms are not floats, int16 or int32.
            ValueError: If the waveforms are not a batch, or as in `kt.data.resample`.
        """
        whole_number("batch_size", batch_size)
        x = self.audio_preprocessor.encode(waveforms, sampling_rate)
        numbers = self.predict(x, batch_size=batch_size, verbose=0).argmax(1)
        return [self.classes[number] for number in numbers]

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        config = super().get_config()
        config["classes"] = list(self.classes)
        for name in ("num_classes", "activation", "class_names"):
            config.pop(name, None)
        return config
