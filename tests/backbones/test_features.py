"""features: one vector per example out of every family of backbone."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.backbones import features
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.backbones.pooling import LastToken
from keras_transfer.backbones.pooling import MaskedMean
from tests import tiny
from tests.backbones import families
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.layer_contract import LayerContract

# One of each form of inputs and outputs. The other families have the same.
TEXT = ["bert", "distilbert", "deberta_v3", "xlnet", "gpt2", "t5"]
IMAGES = ["hub_resnet", "hub_vgg", "cv_densenet", "cv_mobilenet_v3", "MobileNetV2"]


def text_inputs(backbone, lengths=(3, 12)):
    """Return random tokens; row i has lengths[i] tokens and then padding."""
    rng = np.random.default_rng(0)
    keep = np.arange(12) < np.array(lengths)[:, None]
    x = {}
    for name in backbone.input:
        x[name] = rng.integers(1, 60, size=(len(lengths), 12))
        if name.endswith("padding_mask"):
            x[name] = keep
        if name.startswith("segment"):
            x[name] = x[name] * 0
        x[name] = x[name].astype("int32")
    return x, keep


def tokens_of(backbone, x):
    """Return the token rows of a text backbone as an array."""
    out = run(backbone, x)
    if isinstance(out, dict):
        out = out.get("sequence_output", out.get("encoder_sequence_output"))
    return arrays(out)[0]


@pytest.mark.parametrize("family", TEXT)
def test_text_families(family):
    backbone = families.build(family)
    x, keep = text_inputs(backbone)
    rows = tokens_of(backbone, x)
    mean = [row[mask].mean(0) for row, mask in zip(rows, keep, strict=True)]
    assert_close(run(features(backbone), x), np.stack(mean), 1e-5)
    assert_close(run(features(backbone, pooling="first"), x), rows[:, 0])
    last = np.stack([rows[0, 2], rows[1, 11]])
    assert_close(run(features(backbone, pooling="last"), x), last)


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_pooled_is_the_output_of_the_backbone(family):
    backbone = families.build(family)
    x, _ = text_inputs(backbone)
    pooled = run(backbone, x)["pooled_output"]
    assert_close(run(features(backbone, pooling="pooled"), x), pooled)


def test_whisper_uses_the_encoder_without_the_decoder_mask():
    backbone = families.build("whisper")
    x = dict(
        encoder_features=np.random.default_rng(0).normal(size=(2, 12, 8)),
        decoder_token_ids=np.ones((2, 12), "int32"),
        decoder_padding_mask=np.zeros((2, 12), "int32"),
    )
    rows = tokens_of(backbone, x)
    assert_close(run(features(backbone), x), rows.mean(1), 1e-5)


@pytest.mark.parametrize("family", IMAGES)
def test_image_families_average_the_grid(family):
    backbone = families.build(family)
    shape = (side or 32 for side in backbone.input.shape[1:])
    x = np.random.default_rng(0).random((2, *shape), "float32")
    grid = arrays(run(backbone, x))[0]
    assert grid.ndim == 4
    assert_close(run(features(backbone), x), grid.mean((1, 2)), 1e-5)


def test_average_can_be_asked_for():
    backbone = tiny.hub_resnet()
    x = np.random.default_rng(0).random((2, 16, 16, 3), "float32")
    expected = run(features(backbone), x)
    assert_close(run(features(backbone, pooling="average"), x), expected)


def test_vit_has_tokens():
    backbone = families.build("hub_vit")
    x = np.random.default_rng(0).random((2, 16, 16, 3), "float32")
    rows = arrays(run(backbone, x))[0]
    assert_close(run(features(backbone), x), rows.mean(1), 1e-5)
    assert_close(run(features(backbone, "first"), x), rows[:, 0])


def test_channels_first_averages_the_right_axes():
    # Layers of the default format, such as Resizing, must not mislead it.
    inputs = keras.Input((3, 5, 7))
    x = layers.Rescaling(2.0)(inputs)
    x = layers.ZeroPadding2D(0, data_format="channels_last")(x)
    x = layers.UpSampling2D(1, data_format="channels_first")(x)
    backbone = keras.Model(inputs, x)
    image = np.random.default_rng(0).random((2, 3, 5, 7), "float32")
    assert_close(run(features(backbone), image), 2 * image.mean((2, 3)), 1e-5)


def test_video_grids():
    backbone = keras.Sequential([keras.Input((2, 4, 4, 3)), layers.Conv3D(5, 2)])
    assert features(backbone).output_shape == (None, 5)


def test_vectors_stay_unchanged():
    backbone = tiny.mlp()
    x = np.ones((2, 6), "float32")
    for pooling in ("auto", None):
        assert_close(run(features(backbone, pooling=pooling), x), run(backbone, x))


def test_keras_masks_are_used_without_a_padding_input():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, layers.Embedding(9, 3, mask_zero=True)(inputs))
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 6]])
    table = backbone.get_weights()[0]
    expected = np.stack([table[x[0, :2]].mean(0), table[x[1]].mean(0)])
    for each in (backbone, FrozenBackbone(backbone)):
        assert_close(run(features(each), x), expected, 1e-6)


def test_a_frozen_backbone_gives_the_same_features():
    backbone = tiny.bert(num_layers=1)
    x, _ = text_inputs(backbone)
    expected = run(features(backbone), x)
    frozen = features(FrozenBackbone(backbone))
    assert_close(frozen(x, training=True), expected)
    assert frozen.trainable_variables == []
    again = features(FrozenBackbone(FrozenBackbone(backbone)))
    assert_close(run(again, x), expected)


def test_the_backbone_is_shared_and_not_copied():
    backbone = tiny.mlp()
    model = features(backbone)
    backbone.set_weights([w + 1 for w in backbone.get_weights()])
    assert_close(model.get_weights(), backbone.get_weights())


@pytest.mark.parametrize("pooling", ["last", "pooled"])
def test_reloads_in_a_fresh_process(tmp_path, pooling):
    backbone = FrozenBackbone(tiny.bert(num_layers=1))
    model = features(backbone, pooling=pooling)
    assert model.name == f"{backbone.name}_features"
    x, _ = text_inputs(model)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", x, compile=False)
    assert_close(again.outputs, run(model, x))
    assert again.trainable == []


def test_a_row_of_padding_gives_zeros():
    backbone = tiny.bert(num_layers=1)
    x, _ = text_inputs(backbone, lengths=(0, 5))
    for pooling in ("mean", "last"):
        out = arrays(run(features(backbone, pooling=pooling), x))[0]
        assert (out[0] == 0).all()
        assert np.isfinite(out).all() and (out[1] != 0).any()


class TestMaskedMean(LayerContract):
    mask = "dropped"

    def make(self):
        return MaskedMean()

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 5, 4)).astype("float32")


def test_the_last_token_has_no_mask():
    masked = layers.Masking()(np.ones((2, 5, 4), "float32"))
    assert getattr(LastToken()(masked), "_keras_mask", None) is None


def test_padding_may_contain_any_value():
    x = np.array([[[1.0], [3.0], [np.nan], [np.inf]]], "float32")
    mask = np.array([[1, 1, 0, 0]])
    assert_close(MaskedMean()(x, mask=mask), np.array([[2.0]]))
    assert_close(LastToken()(x, mask=mask), np.array([[3.0]]))


def test_masked_mean_does_not_overflow_in_float16():
    x = np.full((1, 2000, 1), 60.0, "float16")  # the sum is 120000
    mean = MaskedMean(dtype="float16")(x, mask=np.ones((1, 2000)))
    assert keras.backend.standardize_dtype(mean.dtype) == "float16"
    assert_close(keras.ops.cast(mean, "float32"), np.array([[60.0]]))
    with np.errstate(over="ignore"):
        assert np.isinf(x.sum(1, dtype="float16")).all()


def test_last_token_with_padding_on_the_left():
    x = np.arange(4.0).reshape(1, 4, 1)
    assert_close(LastToken()(x, mask=np.array([[0, 1, 1, 0]])), np.array([[2.0]]))
    assert_close(LastToken()(x), np.array([[3.0]]))


@pytest.mark.parametrize(
    "make, pooling",
    [
        (tiny.mlp, "mean"),
        (tiny.mlp, "average"),
        (tiny.hub_resnet, "mean"),
        (tiny.hub_resnet, "first"),
        (tiny.hub_resnet, None),
        (tiny.bert, "average"),
        (tiny.bert, None),
    ],
)
def test_a_pooling_that_does_not_fit_raises(make, pooling):
    with pytest.raises(ValueError, match="does not fit the output"):
        features(make(), pooling=pooling)


def test_bad_backbones_raise():
    with pytest.raises(ValueError, match="must be one of"):
        features(tiny.mlp(), pooling="max")
    with pytest.raises(ValueError, match="pooled_output"):
        features(tiny.mlp(), pooling="pooled")
    with pytest.raises(ValueError, match="keras.Input"):
        features(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(TypeError, match="must be a keras.Model"):
        features(FrozenBackbone(layers.Dense(2)))
    with pytest.raises(TypeError, match=r"\.backbone"):
        features(tiny.bert_classifier())
    inputs = keras.Input((2,))
    with pytest.raises(ValueError, match="2 outputs"):
        features(keras.Model(inputs, [inputs, inputs]))
    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        features(keras.Model(inputs, dict(a=inputs, b=inputs)))


def test_a_sequential_used_elsewhere_keeps_its_own_inputs():
    backbone = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    other = keras.Input((2,))
    backbone(layers.Dense(4)(other))
    assert features(backbone).input_shape == (None, 4)
