"""Pairs of convolutions: each equals the plain layer with the summed kernel."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import tensorflow_only

L = keras.layers
LINE, IMAGE, BODY = (9, 4), (7, 7, 4), (5, 5, 5, 3)
LAYERS = {
    "line": (LINE, lambda: L.Conv1D(6, 3, strides=2, activation="relu")),
    "causal": (LINE, lambda: L.Conv1D(6, 3, padding="causal", dilation_rate=2)),
    "body": (BODY, lambda: L.Conv3D(4, 2, padding="same")),
    "grouped": (IMAGE, lambda: L.Conv2D(6, 3, groups=2, strides=2)),
    "grouped depthwise": (IMAGE, lambda: L.Conv2D(4, 3, groups=4, padding="same")),
    "depthwise": (
        IMAGE,
        lambda: L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"),
    ),
    "depthwise line": (LINE, lambda: L.DepthwiseConv1D(3, strides=2, padding="same")),
    "separable": (
        IMAGE,
        lambda: L.SeparableConv2D(6, 3, depth_multiplier=2, strides=2),
    ),
    "separable line": (LINE, lambda: L.SeparableConv1D(6, 3, dilation_rate=2)),
    "transposed": (
        IMAGE,
        lambda: L.Conv2DTranspose(
            6, 3, strides=2, padding="same", output_padding=1, activation="tanh"
        ),
    ),
    "transposed line": (LINE, lambda: L.Conv1DTranspose(6, 3, strides=2)),
    "transposed body": (BODY, lambda: L.Conv3DTranspose(2, 2, strides=2)),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)


def made(kind):
    """Return a model of one layer of this kind, the layer, and four examples."""
    shape, make = LAYERS[kind]
    keras.utils.set_random_seed(0)
    layer = make()
    model = keras.Sequential([keras.Input(shape), layer])
    return model, layer, np.random.default_rng(0).normal(size=(4, *shape))


def attached(kind, name="default", **kwargs):
    model, layer, x = made(kind)
    settings = dict(rank=2, alpha=3, targets=[layer]) | kwargs
    adapters.LoRA(**settings).attach(model, name)
    return model, layer, x


@each_layer
def test_it_starts_as_the_layer_and_folds_into_it(kind):
    model, layer, x = made(kind)
    plain = type(layer)
    y = array(model(x))
    adapters.LoRA(rank=2, alpha=3, targets=[layer]).attach(model)
    assert_close(model(x), y)
    assert {v.name for v in model.trainable_weights} == {"lora_a", "lora_b"}
    models.disturb(model)
    changed = array(model(x))
    assert np.abs(changed - y).max() > 0.1
    adapters.merge(model)
    assert type(layer) is plain
    assert_close(model(x), changed, 2e-6)
    adapters.unmerge(model)
    assert_close(model(x), changed)
    with adapters.disabled(model):
        assert_close(model(x), y)


@each_layer
def test_sums_and_files_keep_the_outputs(kind, tmp_path):
    model, layer, x = attached(kind, "one")
    adapters.LoRA(rank=1, alpha=1, targets=[layer]).attach(model, "two")
    models.disturb(model)
    y = {name: None for name in ("one", "two")}
    layer.activation, activation = keras.activations.linear, layer.activation
    for name in y:
        adapters.use(model, name)
        y[name] = array(model(x))
    with adapters.disabled(model):
        base = array(model(x))
    adapters.add_weighted(model, "sum", {"one": 0.5, "two": 2.0})
    wanted = base + 0.5 * (y["one"] - base) + 2 * (y["two"] - base)
    assert_close(model(x), wanted, 1e-5)
    layer.activation = activation
    wanted = array(model(x))
    kt.save_adapter(model, tmp_path / "sum.safetensors", name="sum")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again(x), wanted)
    adapters.detach(model)
    kt.load_adapter(model, tmp_path / "sum.safetensors")
    assert_close(model(x), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["line", "body", "grouped", "depthwise line", "separable", "transposed"]
)
def test_it_trains_the_same_under_xla_and_in_half_precision(kind, tmp_path):
    values = {}
    for xla in (False, True):
        model, _, x = attached(kind)
        model.compile("sgd", "mse", jit_compile=xla, run_eagerly=not xla)
        y = np.ones((4, *model.output_shape[1:]))
        fit(model, x, y, epochs=2)
        values[xla] = arrays(model.weights)
    assert_close(values[True], values[False], 1e-5)
    model.export(tmp_path / "served", verbose=False)
    full = array(model(x))
    keras.config.set_dtype_policy("mixed_bfloat16")
    half, _, _ = attached(kind)
    half.set_weights(values[True])
    assert_close(np.asarray(half(x)).astype("float32"), full, 0.1)


def test_dropout_is_on_the_inputs_of_a():
    for kind in ("line", "grouped", "depthwise", "separable", "transposed"):
        model, _, x = attached(kind, dropout=0.5)
        models.disturb(model)
        assert np.array_equal(model(x), model(x))
        assert not np.array_equal(model(x, training=True), model(x, training=True))


def test_the_shapes_of_a_and_b():
    shapes = {
        "line": [(3, 4, 2), (2, 6)],
        "body": [(2, 2, 2, 3, 2), (2, 4)],
        "grouped": [(3, 3, 2, 2), (2, 6)],
        "depthwise": [(3, 3, 2), (2, 4, 2)],
        "separable": [(8, 2), (2, 6)],
        "transposed": [(4, 2), (2, 3, 3, 6)],
    }
    for kind, wanted in shapes.items():
        model = attached(kind)[0]
        assert [tuple(v.shape) for v in model.trainable_weights] == wanted


def test_a_full_convolution_has_two_convolutions_as_in_peft():
    model, layer, x = attached("body")
    models.disturb(model)
    (_, _, part), *_ = places(model)
    base = layer.convolution_op(x.astype("float32"), layer.kernel) + layer.bias
    hidden = layer.convolution_op(x.astype("float32"), part.lora_a)
    assert_close(model(x), base + 1.5 * (hidden @ part.lora_b), 1e-5)


def test_a_rank_above_the_size_of_the_window_raises():
    model, _, _ = made("depthwise")
    with pytest.raises(ValueError, match="rank=10 is too large.*at rank 8"):
        adapters.LoRA(rank=10, targets="depthwise").attach(model)


@pytest.mark.parametrize("kind", ["line", "causal", "body", "grouped"])
@pytest.mark.parametrize("technique", [adapters.DoRA, adapters.LoHa, adapters.IA3])
def test_other_techniques_fold_into_full_and_grouped_convolutions(kind, technique):
    model, layer, x = made(kind)
    settings = {} if technique is adapters.IA3 else dict(rank=2)
    y = array(model(x))
    technique(targets=[layer], **settings).attach(model)
    assert_close(model(x), y, 1e-6)
    models.disturb(model)
    changed = array(model(x))
    assert np.abs(changed - y).max() > 1e-2
    adapters.merge(model)
    assert_close(model(x), changed, 1e-5)


def test_channels_first():
    # On a CPU TensorFlow runs channels_first only under XLA, so only the shape of the
    # kernel's change is checked.
    for kind in (L.Conv1D, L.Conv3D):
        size = (5,) * (1 if kind is L.Conv1D else 3)
        layer = kind(3, 2, data_format="channels_first", name="conv")
        model = keras.Sequential([keras.Input((4, *size)), layer])
        adapters.LoRA(rank=2, targets="conv").attach(model)
        assert model.compute_output_shape((2, 4, *size))[1] == 3
        models.disturb(model)
        (_, _, part), *_ = places(model)
        delta = part.delta(layer)
        assert delta.shape == tuple(layer.kernel.shape)


@tensorflow_only("a graph with many adapters is TensorFlow's")
def test_grouped_and_depthwise_pairs_cannot_be_exported_together(tmp_path):
    model, _, _ = attached("grouped")
    with pytest.raises(ValueError, match="groups of channels"):
        kt.export_serving(model, tmp_path / "served", adapters=["default"])
    model, _, _ = attached("depthwise")
    with pytest.raises(ValueError, match="does not add a product"):
        kt.export_serving(model, tmp_path / "served", adapters=["default"])
