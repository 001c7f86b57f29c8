"""features(output=): one of several outputs of a backbone, by name."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.backbones import features
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.backbones import layer_groups
from keras_transfer.models import TransferClassifier
from tests import tiny
from tests.backbones import families
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

IMAGES = np.random.default_rng(0).random((2, 16, 16, 3), "float32")


@pytest.fixture(scope="module")
def clip():
    from keras_hub import models
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

    size = dict(hidden_dim=16, num_layers=2, num_heads=2, intermediate_dim=32)
    vision = CLIPVisionEncoder(patch_size=8, image_shape=(16, 16, 3), **size)
    text = CLIPTextEncoder(
        vocabulary_size=64, embedding_dim=16, max_sequence_length=12, **size
    )
    return models.CLIPBackbone(vision, text, projection_dim=8)


def pair():
    """Return a model with two inputs and two named outputs."""
    image, word = keras.Input((4, 4, 3), name="image"), keras.Input((2,), name="word")
    grid = layers.Conv2D(5, 2, name="conv")(image)
    both = layers.GlobalAveragePooling2D()(grid)
    both = layers.Dense(3, name="mixed")(layers.Concatenate()([both, word]))
    return keras.Model({"image": image, "word": word}, {"grid": grid, "both": both})


def test_an_output_by_its_name():
    backbone = pair()
    x = {"image": np.ones((2, 4, 4, 3)), "word": np.ones((2, 2))}
    expected = arrays(run(backbone, x))
    model = features(backbone, output="both")
    assert list(model.input) == ["image", "word"]
    assert_close(run(model, x), expected[0])
    model = features(backbone, output="grid")
    assert list(model.input) == ["image"]
    assert_close(run(model, {"image": x["image"]}), expected[1].mean((1, 2)), 1e-6)


def test_a_layer_by_its_name():
    backbone = tiny.mlp()
    model = features(backbone, output="dense_1")
    x = np.ones((2, 6), "float32")
    below = keras.Model(backbone.input, backbone.get_layer("dense_1").output)
    assert_close(run(model, x), run(below, x))
    assert len(model.weights) == 4  # without the layers after it


def test_the_layers_are_shared_with_the_backbone():
    backbone = pair()
    kernel = backbone.get_layer("conv").kernel
    assert features(backbone, output="grid").weights[0] is kernel
    frozen = features(FrozenBackbone(pair()), output="grid")
    assert frozen.trainable_variables == []


def test_the_error_names_the_usable_outputs(clip):
    with pytest.raises(ValueError, match=r"output=.*\['grid', 'both'\]"):
        features(pair())
    # The outputs of CLIP are similarities within a batch.
    with pytest.raises(ValueError, match=r"\['vision_projection', 'text_projection'\]"):
        features(clip)
    with pytest.raises(ValueError, match="no fixed number of features"):
        features(clip, output="vision_logits")
    with pytest.raises(ValueError, match="most similar names are.*'both'"):
        features(pair(), output="boht")
    with pytest.raises(TypeError, match="not a string"):
        features(pair(), output=1)


def test_a_layer_that_is_called_twice_raises():
    inputs = keras.Input((3,))
    dense = layers.Dense(3, name="twice")
    model = keras.Model(inputs, layers.ReLU()(dense(dense(inputs))))
    with pytest.raises(ValueError, match="returns 2 tensors"):
        features(model, output="twice")


@pytest.mark.slow
def test_clip_classifies_images(tmp_path, clip):
    model = TransferClassifier(features(clip, output="vision_projection"), 3)
    groups = layer_groups(model)
    assert groups.names == ["stem", "encoder_block_0", "encoder_block_1", "head"]
    # The projection is pretrained, so it is not a head.
    assert [layer.name for layer in groups["head"].layers] == ["logits"]
    x = {"images": IMAGES}
    expected = run(model, x)
    model.save(tmp_path / "model.keras")
    assert_close(run(keras.saving.load_model(tmp_path / "model.keras"), x), expected)


def test_one_level_of_a_feature_pyramid():
    backbone = families.build("hgnet")
    model = features(backbone, output="stage1")
    assert model.output_shape == (None, 16)
