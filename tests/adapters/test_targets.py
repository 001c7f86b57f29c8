"""The target layers of a recipe, the layers that are left out, and the errors."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests import tiny
from tests.adapters import models
from tests.contracts.compare import array
from tests.contracts.compare import assert_close

L = keras.layers


def convnext():
    """Return three blocks as in ConvNeXt, and one block with a full convolution."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 2, name="stem_conv")(inputs)
    for i in range(3):
        y = L.Conv2D(8, 3, padding="same", groups=8, name=f"block_{i}_depthwise")(x)
        y = L.LayerNormalization(name=f"block_{i}_norm")(y)
        y = L.Dense(16, "gelu", name=f"block_{i}_wide")(y)
        x = L.Add(name=f"block_{i}_add")([x, L.Dense(8, name=f"block_{i}_narrow")(y)])
    x = L.Conv2D(8, 2, name="block_3_conv")(x)
    return keras.Model(inputs, L.GlobalAveragePooling2D(name="pool")(x))


def mobilenet():
    """Return blocks as in MobileNet."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 2, name="stem_conv")(inputs)
    for i in range(3):
        x = L.Conv2D(8, 1, name=f"block_{i}_expand")(x)
        x = L.DepthwiseConv2D(3, padding="same", name=f"block_{i}_depthwise")(x)
        x = L.Conv2D(4, 1, name=f"block_{i}_project")(x)
    return keras.Model(inputs, L.GlobalAveragePooling2D(name="pool")(x))


def paths(model):
    return [path for path, _, _ in places(model)]


RECIPES = {
    "LoRA": adapters.LoRA(rank=2),
    "RsLoRA": adapters.RsLoRA(rank=2),
    "DoRA": adapters.DoRA(rank=2),
    "LoHa": adapters.LoHa(rank=2),
    "IA3": adapters.IA3(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_grouped_convolutions_are_left_out_by_default(kind, capsys):
    model = convnext()
    RECIPES[kind].attach(model)
    wide = [f"block_{i}_{x}" for i in range(3) for x in ("wide", "narrow")]
    assert paths(model) == [*wide, "block_3_conv"]
    assert "7 layers of" in (text := capsys.readouterr().out)
    assert "3 left out: depthwise, grouped" in text
    x = np.ones((2, 8, 8, 3), "float32")
    models.disturb(model)
    y = array(model(x))
    adapters.merge(model)
    assert_close(model(x), y, 1e-4)
    model = mobilenet()
    RECIPES[kind].attach(model)
    assert len(paths(model)) == 6 and not any("depthwise" in x for x in paths(model))
    assert "3 left out" in capsys.readouterr().out


def test_nothing_is_printed_if_nothing_is_left_out(capsys):
    adapters.LoRA(rank=2).attach(tiny.bert(num_layers=1))
    adapters.LoRA(rank=2).attach(tiny.hub_resnet())
    assert "left out" not in capsys.readouterr().out


def narrow():
    """Return a model with two layers that do not fit rank 3, `two` and `each`."""
    layers = [
        L.Dense(8, name="one"),
        L.Dense(2, name="two"),
        L.Reshape((2, 1)),
        L.EinsumDense("bcd,ce->bce", (2, 8), name="each"),
        L.EinsumDense("bce,cef->bf", 8, name="three"),
        L.Activation("tanh"),
    ]
    return keras.Sequential([keras.Input((6,)), *layers])


def test_all_linear_leaves_out_layers_that_do_not_fit(capsys):
    model = narrow()
    adapters.LoRA(rank=3, targets="all-linear", bias="lora_only").attach(model)
    assert paths(model) == ["one", "three"]
    assert "2 left out" in capsys.readouterr().out
    assert not model.get_layer("two").bias.trainable
    recipe = adapters.attached(model)["default"]
    assert recipe.targets == "all-linear"


def test_named_layers_are_never_left_out():
    model = narrow()
    with pytest.raises(ValueError, match="is not a matrix"):
        adapters.LoRA(rank=1, targets="each").attach(model)
    for targets in ("two", ["one", "two"], [model.get_layer("two")]):
        with pytest.raises(ValueError, match="rank=3 is too large for the layer 'two'"):
            adapters.LoRA(rank=3, targets=targets).attach(model)
    with pytest.raises(ValueError, match="rank=9 is too large"):
        adapters.LoRA(rank=9, targets="all-linear").attach(model)  # no layer is left
    assert adapters.attached(model) == {}


def test_files_leave_out_the_same_layers(tmp_path):
    model = mobilenet()
    adapters.LoRA(rank=2).attach(model)
    models.disturb(model)
    kt.save_adapter(model, tmp_path / "a.safetensors")
    model.save(tmp_path / "model.keras")
    x = np.ones((2, 8, 8, 3), "float32")
    y = array(model(x))
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again(x), y)
    with adapters.disabled(again):
        assert np.abs(again(x) - y).max() > 0
    adapters.detach(model)
    kt.load_adapter(model, tmp_path / "a.safetensors")
    assert_close(model(x), y)
    assert adapters.attached(model)["default"].targets is None


# The errors.


def test_the_error_says_why_a_layer_cannot_be_a_target():
    model = tiny.bert(num_layers=1)
    norm = model.get_layer("embeddings_layer_norm")
    for targets in ("norm$", ["query", "embeddings_layer_norm"], [norm]):
        with pytest.raises(ValueError, match="of the class LayerNormalization, which "):
            adapters.LoRA(rank=2, targets=targets).attach(model)
    with pytest.raises(ValueError, match="'embeddings_layer_norm'.* LoRA cannot adapt"):
        adapters.LoRA(rank=2, targets="norm$").attach(model)
    with pytest.raises(ValueError, match="it adapts .*Conv2D, .*Dense, .*LSTMCell"):
        adapters.LoRA(rank=2, targets="norm$").attach(model)
    with pytest.raises(ValueError, match="of the class Embedding, which VeRA cannot"):
        adapters.VeRA(rank=2, targets="segment_embedding").attach(model)
    with pytest.raises(ValueError, match="which has no biases"):
        adapters.BitFit(targets="token_embedding").attach(model)
    with pytest.raises(ValueError, match="matches no layer. The nearest are"):
        adapters.LoRA(rank=2, targets="nrm$").attach(model)
    with pytest.raises(ValueError, match="is not in the model"):
        adapters.LoRA(rank=2, targets=[L.Dense(3)]).attach(model)


def test_the_error_mentions_an_overridden_call():
    class Doubled(L.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((4,)), Doubled(4, name="doubled")])
    words = "Doubled .a Dense that overrides .call.., which LoRA cannot adapt"
    with pytest.raises(ValueError, match=words):
        adapters.LoRA(rank=2, targets="doubled").attach(model)


@pytest.mark.parametrize(
    "recipe",
    [adapters.Bottleneck(2), adapters.PfeifferBottleneck(2), adapters.BitFit()],
)
def test_the_error_names_techniques_for_a_convolutional_network(recipe):
    words = "for it are AdaLoRA, DoRA, IA3, LoHa, LoKr, LoRA, NormTuning, RsLoRA"
    with pytest.raises(ValueError, match=words):
        recipe.attach(tiny.hub_resnet())


def test_the_error_names_techniques_that_fit():
    with pytest.raises(ValueError, match="for it are BitFit"):
        adapters.NormTuning().attach(tiny.mlp())
    bare = keras.Sequential([keras.Input((4,)), L.Dense(3, use_bias=False)])
    with pytest.raises(ValueError, match="Give 'all-linear'"):
        adapters.BitFit().attach(bare)
