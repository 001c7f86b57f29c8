"""audio_encoder: the encoder of a Whisper, cut to the length of the sounds."""

from __future__ import annotations

import keras

from keras_transfer._arguments import whole_number
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.output_of import BackbonePart
from keras_transfer.backbones.output_of import part_of

FEATURES = "encoder_features"
MASK = "padding_mask"
OUTPUT = "encoder_sequence_output"
FRAMES = 100  # of the spectrogram in a second: a stride of 160 at 16,000 Hz
POSITIONS = FRAMES // 2  # of the network in a second, after a convolution of stride 2


@keras.saving.register_keras_serializable(package="keras_transfer")
class AudioEncoder(BackbonePart):
    """The encoder of a Whisper for sounds of a fixed length.

    `kt.backbones.audio_encoder` makes it. Its inputs are `encoder_features` and
    `padding_mask`, its output is a vector for each position, 50 in a second.
    """

    @property
    def seconds(self) -> int:
        """The length of the sounds."""
        return self.input[FEATURES].shape[1] // FRAMES

    @property
    def num_mels(self) -> int:
        """The number of mel frequencies of the spectrogram."""
        return self.input[FEATURES].shape[2]

    def get_config(self) -> dict:
        """Return the layers and their calls, with lists instead of tuples."""
        config = super().get_config()
        # keras-hub adds a tuple of tensors, which is a list after reload.
        for layer in config["layers"]:
            for call in layer["inbound_nodes"]:
                call["args"] = [
                    list(each) if isinstance(each, tuple) else each
                    for each in call["args"]
                ]
        return config


def audio_encoder(
    backbone: keras.Model | FrozenBackbone, seconds: int
) -> AudioEncoder | FrozenBackbone:
    """Return the encoder of a Whisper for sounds that are shorter than 30 seconds.

    Whisper pads each sound to 30 seconds, 1,500 positions, and has a decoder for text.
    To classify words, music or noises, the decoder is not needed, and most of the
    positions are silence. The encoder has `50 * seconds` positions, with the first
    vectors of Whisper's table of positions, and no decoder. Its layers are those of
    the backbone, not copies, so training it trains the backbone.

    Its outputs differ from those of the whole Whisper for the same sound, because no
    position attends to the silence after `seconds`. As in Whisper, the positions of
    the padding up to `seconds` take part in the attention. Only pooling leaves them
    out: `padding_mask` is 1 for the positions that have sound.

    The encoder is a backbone for `kt.models.AudioClassifier`, and for
    `kt.backbones.features`, `cache_features`, `kt.layer_groups` and the adapters.
    `kt.data.AudioPreprocessor` makes its inputs from waveforms.

    Args:
        backbone: `keras_hub.models.WhisperBackbone`, or a `FrozenBackbone` of one.
        seconds: Length of the longest sounds in seconds, a whole number from 1 to the
            length of the backbone, which is 30 for all presets.

    Returns:
        An `AudioEncoder`, a functional model with the attributes `seconds` and
        `num_mels`, or a `FrozenBackbone` of one. Inputs: a dictionary of
        `encoder_features`, the log-mel spectrogram `(batch, 100 * seconds, mels)`, and
        `padding_mask` `(batch, 50 * seconds)`. Output: `(batch, 50 * seconds, width)`.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        backbone = keras_hub.models.WhisperBackbone(64, 1, 2, 16, 32)
        encoder = kt.backbones.audio_encoder(backbone, seconds=2)
        assert encoder.output.shape == (None, 100, 16)
        assert encoder.count_params() < backbone.count_params()
        ```

    Raises:
        TypeError: If the backbone is not a model, or is a Task.
        ValueError: If the backbone is not a Whisper, or is shorter than `seconds`.

    Reference:
        Radford et al., 2022, "Robust Speech Recognition via Large-Scale Weak
        Supervision", arXiv:2212.04356.
    """
    network = unwrap(backbone)
    most = _longest(network)
    why = f"'{network.name}' has positions for {most} seconds"
    whole_number("seconds", seconds, most=most, why=why)
    part = part_of(network, OUTPUT)
    frames = int(seconds) * FRAMES
    width = part.input[FEATURES].shape[-1]
    features = keras.Input((frames, width), dtype="float32", name=FEATURES)
    mask = keras.Input((frames // 2,), dtype="int32", name=MASK)
    # The same layers, called once more, so that their outputs have a known length.
    replayed = keras.models.clone_model(
        part, input_tensors={FEATURES: features}, clone_function=lambda layer: layer
    )
    encoder = AudioEncoder(
        {FEATURES: features, MASK: mask},
        replayed.outputs[0],
        name=f"{network.name}_encoder",
    )
    if isinstance(backbone, FrozenBackbone):
        return FrozenBackbone(encoder, name=encoder.name)
    return encoder


def checked_encoder(backbone: keras.Model | FrozenBackbone) -> AudioEncoder:
    """Return the encoder inside any `FrozenBackbone`, after a check of its type.

    Raises:
        TypeError: If the backbone is not a model, or is a Task.
        ValueError: If it is not an audio encoder.
    """
    network = unwrap(backbone)
    if not isinstance(network, AudioEncoder):
        raise ValueError(
            f"The backbone '{network.name}' is a {type(network).__name__}, but an "
            "audio encoder is needed. Pass kt.backbones.audio_encoder(backbone, "
            "seconds=2), made from a keras_hub.models.WhisperBackbone."
        )
    return network


def _longest(network: keras.Model) -> int:
    """Return the whole seconds for which a Whisper has positions."""
    if isinstance(network, AudioEncoder):
        raise ValueError(
            f"'{network.name}' is an audio encoder already, of {network.seconds} "
            "seconds. Pass the WhisperBackbone from which it was made."
        )
    inputs, outputs = getattr(network, "input", None), getattr(network, "output", None)
    named = isinstance(inputs, dict) and isinstance(outputs, dict)
    frames = getattr(network, "max_encoder_sequence_length", None)
    if not named or FEATURES not in inputs or OUTPUT not in outputs or not frames:
        raise ValueError(
            f"The backbone '{network.name}' is a {type(network).__name__}, which has "
            f"no encoder of sounds: no input {FEATURES!r}, or no output {OUTPUT!r}. "
            "Pass a keras_hub.models.WhisperBackbone."
        )
    if frames < FRAMES:
        raise ValueError(
            f"'{network.name}' has max_encoder_sequence_length={frames}, but a second "
            f"has {FRAMES} frames. Make the backbone with {FRAMES} or more."
        )
    return frames // FRAMES
