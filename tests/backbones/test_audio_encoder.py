"""audio_encoder: the encoder of a Whisper with its positions cut."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.adapters import LoRA
from keras_transfer.backbones import audio_encoder
from keras_transfer.backbones import features
from keras_transfer.backbones import FrozenBackbone
from tests import tiny
from tests.backbones import whisper_oracle
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run


def spectrogram(seconds=1, rows=2):
    shape = (rows, 100 * seconds, 80)
    mask = np.arange(50 * seconds) < np.array([[50 * seconds], [7]])[:rows]
    return {
        "encoder_features": np.random.default_rng(0)
        .normal(size=shape)
        .astype("float32"),
        "padding_mask": mask.astype("int32"),
    }


def values_of(network):
    return {w.path: keras.ops.convert_to_numpy(w) for w in network.weights}


def disturbed(backbone):
    """Change all weights, because biases and scales start at 0 and 1."""
    rng = np.random.default_rng(1)
    for weight in backbone.weights:
        weight.assign_add(rng.normal(0, 0.1, weight.shape))
    return backbone


@pytest.mark.parametrize("seconds", [1, 2])
def test_equals_numpy_with_the_first_positions(seconds):
    backbone = disturbed(tiny.whisper(seconds=3))
    encoder = audio_encoder(backbone, seconds)
    x = spectrogram(seconds)
    wanted = whisper_oracle.encode(values_of(backbone), x["encoder_features"])
    assert wanted.shape == (2, 50 * seconds, 16)
    assert_close(run(encoder, x), wanted, 2e-5)
    assert (encoder.seconds, encoder.num_mels) == (seconds, 80)


def test_at_full_length_it_is_the_encoder_of_the_backbone():
    backbone = tiny.whisper(seconds=1)
    x = spectrogram()
    text = np.ones((2, 4), "int32")
    whole = {
        "encoder_features": x["encoder_features"],
        "decoder_token_ids": text,
        "decoder_padding_mask": text,
    }
    wanted = run(backbone, whole)["encoder_sequence_output"]
    assert_close(run(audio_encoder(backbone, 1), x), wanted, 1e-6)


def test_has_the_layers_of_the_backbone_without_the_decoder():
    backbone = tiny.whisper()
    encoder = audio_encoder(backbone, 1)
    own = [layer for layer in encoder.layers if layer.weights]
    assert all(layer is backbone.get_layer(layer.name) for layer in own)
    left_out = {id(weight) for weight in backbone.weights} - {
        id(weight) for weight in encoder.weights
    }
    paths = [weight.path for weight in backbone.weights if id(weight) in left_out]
    assert len(paths) > 30 and all("decoder" in path for path in paths)
    # The table of positions is not trainable in Whisper.
    frozen = [weight.path for weight in encoder.weights if not weight.trainable]
    assert frozen == ["encoder_position_embedding/embeddings"]


def test_features_are_the_mean_over_the_sound():
    encoder = audio_encoder(tiny.whisper(), 1)
    x = spectrogram()
    rows = arrays(run(encoder, x))[0]
    wanted = [rows[0].mean(0), rows[1, :7].mean(0)]
    assert_close(run(features(encoder), x), np.stack(wanted), 1e-5)


def test_groups_are_the_convolutions_and_the_blocks():
    groups = kt.layer_groups(audio_encoder(tiny.whisper(), 1))
    blocks = [f"transformer_encoder_layer_{number}" for number in range(2)]
    assert groups.names == ["stem", *blocks]
    assert [len(group.layers) for group in groups] == [3, 8, 9]  # with the last norm


def test_lora_adapts_query_and_value_and_the_backbone_has_it_too():
    backbone = tiny.whisper()
    encoder = audio_encoder(backbone, 1)
    model = kt.models.TransferClassifier(encoder, 2)
    LoRA(rank=2).attach(model, verbose=0)
    names = {v.path for v in model.trainable_variables if "lora" in v.path}
    assert len(names) == 2 * 2 * 2
    assert all("/query/" in name or "/value/" in name for name in names)
    shared = {id(weight) for weight in backbone.weights}
    lora = [v for v in model.trainable_variables if "lora" in v.path]
    assert all(id(variable) in shared for variable in lora)


def test_a_frozen_backbone_stays_frozen():
    encoder = audio_encoder(FrozenBackbone(tiny.whisper()), 1)
    assert isinstance(encoder, FrozenBackbone) and not encoder.trainable_variables
    assert features(encoder).output.shape == (None, 16)


def test_is_saved_without_the_decoder(tmp_path):
    backbone = tiny.whisper()
    encoder = audio_encoder(backbone, 1)
    encoder.save(tmp_path / "encoder.keras")
    x = spectrogram()
    again = fresh.load(tmp_path / "encoder.keras", x)
    assert_close(again.outputs, run(encoder, x))
    assert len(again.weights) == len(encoder.weights) < len(backbone.weights)
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    assert (loaded.seconds, loaded.num_mels) == (1, 80)


def test_errors_say_what_does_not_fit():
    backbone = tiny.whisper(seconds=2)
    for seconds in (0, 3, 1.5, True):
        with pytest.raises(ValueError, match=f"seconds={seconds}.*for 2 seconds"):
            audio_encoder(backbone, seconds)
    with pytest.raises(ValueError, match="no encoder of sounds.*WhisperBackbone"):
        audio_encoder(tiny.bert(), 1)
    with pytest.raises(ValueError, match="no encoder of sounds"):
        audio_encoder(tiny.mlp(), 1)
    with pytest.raises(ValueError, match="is an audio encoder already, of 2 seconds"):
        audio_encoder(audio_encoder(backbone, 2), 1)
    with pytest.raises(ValueError, match="max_encoder_sequence_length=12"):
        audio_encoder(tiny.whisper(max_encoder_sequence_length=12), 1)
    with pytest.raises(TypeError, match="already has a head"):
        audio_encoder(tiny.bert_classifier(), 1)
    with pytest.raises(TypeError, match="must be a keras.Model"):
        audio_encoder("whisper", 1)
