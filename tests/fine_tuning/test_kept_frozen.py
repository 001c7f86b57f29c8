"""Layers that the user froze, or names in `frozen`, train in no phase."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.fine_tuning.kept_frozen import kept_frozen
from tests.contracts.compare import assert_close

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
Y = np.arange(12) % 2


def make(*frozen):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="block_1")(inputs)
    x = layers.Dense(4, name="block_2_a")(x)
    x = layers.BatchNormalization(name="block_2_norm")(x)
    x = layers.Dense(4, name="block_2_b")(x)
    x = layers.Dense(4, name="block_3")(x)
    model = keras.Model(inputs, layers.Dense(2, name="logits")(layers.Flatten()(x)))
    for name in frozen:
        model.get_layer(name).trainable = False
    return compiled(model)


def compiled(model):
    model.compile(keras.optimizers.Adam(0.01), SPARSE, jit_compile=False)
    return model


def moved(model, **settings):
    """Return the names of the layers that a run changed, and the History."""
    before = {layer.name: layer.get_weights() for layer in model.layers}
    settings = dict(epochs=3, batch_size=6, verbose=0) | settings
    history = kt.fine_tune(model, (X, Y), **settings)
    names = [
        layer.name
        for layer in model.layers
        if any(map(np.any, map(np.subtract, layer.get_weights(), before[layer.name])))
    ]
    return names, history


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "gradual", "lp-ft"])
def test_layers_that_the_user_froze_stay_frozen_and_are_printed(how, capsys):
    model = make("block_1", "block_2_a")
    names, _ = moved(model, strategy=how, verbose=2)
    assert names == ["block_2_b", "block_3", "logits"]
    assert not model.get_layer("block_1").trainable
    said = capsys.readouterr().out
    expected = "because layer.trainable is False: block_1, block_2_a of block_2"
    assert expected in said


def test_a_single_frozen_weight_stays_frozen(capsys):
    model = make()
    kernel = model.get_layer("block_3").kernel
    kernel.trainable = False
    before = _keras.value(kernel)
    names, _ = moved(model, strategy="full", verbose=2)
    assert names == ["block_1", "block_2_a", "block_2_b", "block_3", "logits"]
    assert_close(_keras.value(kernel), before)
    assert "kept frozen" not in capsys.readouterr().out


@pytest.mark.slow
def test_layers_frozen_by_an_earlier_run_are_unfrozen_but_not_the_users():
    model = make("block_2_b")
    assert moved(model, strategy="probe")[0] == ["logits"]
    names, _ = moved(compiled(model), strategy="full")
    assert names == ["block_1", "block_2_a", "block_3", "logits"]
    compiled(model).get_layer("block_1").trainable = False
    assert moved(compiled(model), strategy="full")[0] == names[1:]


def test_a_completely_frozen_backbone_is_probed_or_raises():
    model = make("block_1", "block_2_a", "block_2_norm", "block_2_b", "block_3")
    for strategy in ("full", "gradual", "lp-ft"):
        with pytest.raises(ValueError, match=f"{strategy}.*trainable is False.*= True"):
            moved(model, strategy=strategy)
    names, history = moved(model, strategy="auto")
    assert names == ["logits"] and history.history["phase"] == [0, 0, 0]
    model.trainable = False
    with pytest.raises(
        ValueError, match="The whole model .* is frozen .kept frozen, b"
    ):
        moved(compiled(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    "frozen, expected, said",
    [
        (
            "block_1",
            ["block_2_a", "block_2_b", "block_3", "logits"],
            "frozen=: block_1",
        ),
        (["block_1", "block_3"], ["block_2_a", "block_2_b", "logits"], "_1, block_3"),
        ("_a$", ["block_1", "block_2_b", "block_3", "logits"], "block_2_a of block_2"),
        (("block_[12]",), ["block_3", "logits"], "frozen=: block_1, block_2"),
    ],
)
def test_groups_and_paths_in_frozen_stay_frozen(frozen, expected, said, capsys):
    model = make()
    assert moved(model, strategy="gradual", frozen=frozen, verbose=2)[0] == expected
    assert said in capsys.readouterr().out
    assert moved(compiled(model), strategy="full")[0][0] == "block_1"


def test_unknown_names_raise():
    groups = kt.layer_groups(make())
    with pytest.raises(ValueError, match="frozen='blok_9' names no .* mean 'block_"):
        kept_frozen(groups, "blok_9")
    with pytest.raises(TypeError, match="Pass names of layer groups"):
        kept_frozen(groups, [3])
    with pytest.raises(ValueError, match="'full' unfreezes the backbone, but"):
        moved(make(), strategy="full", frozen="block")


@pytest.mark.slow
def test_batch_norm_train_trains_batch_norm_below_the_head():
    assert "block_2_norm" in moved(make(), strategy="full", batch_norm="train")[0]
    model = make("block_2_norm")
    assert "block_2_norm" not in moved(model, strategy="full", batch_norm="train")[0]
    with pytest.raises(ValueError, match="batch_norm='thawed' must be"):
        moved(make(), batch_norm="thawed")


@pytest.mark.slow
def test_statistics_of_a_frozen_layer_without_weights_do_not_change():
    def build(frozen):
        inputs = keras.Input((6,))
        x = keras.layers.Dense(5, name="block_1")(inputs)
        norm = keras.layers.BatchNormalization(center=False, scale=False, name="norm")
        x = keras.layers.Dense(4, name="block_2")(norm(x))
        model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
        norm.trainable = not frozen
        return compiled(model)

    for frozen in (False, True):
        names, _ = moved(build(frozen), strategy="full", batch_norm="train")
        assert ("norm" in names) != frozen
