"""TransferClassifier: a head on any backbone, and saved trainable flags."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.backbones import features
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.models import TransferClassifier
from tests import tiny
from tests.backbones import families
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.model_contract import ModelContract

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LABELS = np.arange(8) % 3


def token_data():
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 60, size=(8, 12))
    mask = np.arange(12) < rng.integers(3, 12, size=(8, 1))
    x = dict(token_ids=ids, segment_ids=ids * 0, padding_mask=mask)
    return {name: value.astype("int32") for name, value in x.items()}


def images(shape=(16, 16, 3)):
    return np.random.default_rng(0).random((8, *shape), "float32")


class TestBertClassifier(ModelContract):
    loss = LOSS

    def make(self):
        return TransferClassifier(tiny.bert(num_layers=1, dropout=0.0), 3)

    def inputs(self):
        return token_data()

    def targets(self):
        return LABELS


class TestFrozenImageClassifier(ModelContract):
    representative = True
    loss = LOSS

    def make(self):
        backbone = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(),
                layers.Dropout(0.5),
            ],
            name="stem",
        )
        return TransferClassifier(FrozenBackbone(backbone), 3, activation="linear")

    def inputs(self):
        return images((8, 8, 3))

    def targets(self):
        return LABELS


@pytest.mark.parametrize(
    "make, wrap",
    [
        (tiny.hub_resnet, lambda x: x),
        (tiny.cv_resnet, FrozenBackbone),
        (tiny.applications_resnet, FrozenBackbone),
    ],
)
def test_image_backbones_fit_and_reload(tmp_path, make, wrap):
    backbone = make()
    x = images(backbone.input.shape[1:])
    model = TransferClassifier(wrap(backbone), 3, dropout=0.2)
    model.compile("adam", LOSS, jit_compile=False)
    fit(model, x, LABELS)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", x)
    assert_close(again.outputs, run(model, x))
    assert again.iterations == 2
    assert len(again.trainable) == len(model.trainable_variables)
    assert_close(again.optimizer_variables, model.optimizer.variables)


def test_the_logits_are_a_dense_layer_on_the_features():
    backbone = tiny.bert()
    model = TransferClassifier(backbone, 4, pooling="first", dropout=0.5)
    assert model.backbone is backbone
    assert model.layers[-1].name == "logits"
    x = token_data()
    kernel, bias = model.get_layer("logits").get_weights()
    vectors = arrays(run(features(backbone, pooling="first"), x))[0]
    assert_close(run(model, x), vectors @ kernel + bias, 1e-5)
    live = arrays(model(x, training=True))[0]
    assert np.abs(live - arrays(run(model, x))[0]).max() > 1e-3


def test_lists_each_weight_once():
    backbone = tiny.bert()
    model = TransferClassifier(backbone, 4)
    assert len(model.weights) == len(backbone.weights) + 2


def partly_frozen():
    """Return a BERT of three blocks with only the last block trainable."""
    backbone = tiny.bert()
    for layer in backbone.layers:
        layer.trainable = layer.name == "transformer_layer_2"
    return backbone


def test_keras_hub_loses_the_flags_of_layers():
    # The reason for the next test: without flags, the optimizer state is lost too.
    backbone = partly_frozen()
    again = type(backbone).from_config(backbone.get_config())
    assert len(backbone.trainable_variables) == 16
    assert len(again.trainable_variables) == len(again.weights)


def test_partly_frozen_backbone_reloads_with_optimizer_state(tmp_path):
    model = TransferClassifier(partly_frozen(), 3)
    model.compile("adam", LOSS, jit_compile=False)
    x = token_data()
    fit(model, x, LABELS, epochs=2)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", x)
    assert len(again.trainable) == 16 + 2
    assert again.trainable == [v.path for v in model.trainable_variables]
    assert again.iterations == 4
    assert_close(again.optimizer_variables, model.optimizer.variables)
    assert_close(again.outputs, run(model, x))


def idle_paths(model):
    """Return the paths of the weights that do not train."""
    known = {id(weight) for weight in model.trainable_weights}
    return [weight.path for weight in model.weights if id(weight) not in known]


@pytest.mark.slow
def test_weights_without_a_gradient_do_not_train():
    model = TransferClassifier(tiny.bert(num_layers=1), 3)
    model.compile("adam", LOSS, jit_compile=False)
    fit(model, token_data(), LABELS)  # warnings of Keras are errors in the tests
    assert idle_paths(model) == ["pooled_dense/kernel", "pooled_dense/bias"]
    parts = model.trainable_variables + model.non_trainable_variables
    assert sorted(map(id, parts)) == sorted(map(id, model.variables))
    # Only the model excludes them. Their flags are unchanged.
    assert all(weight.trainable for weight in model.weights)


@pytest.mark.slow
def test_the_decoder_does_not_train_if_the_encoder_gives_the_features():
    model = TransferClassifier(families.build("t5"), 3)
    idle = idle_paths(model)
    assert sum("decoder" in path for path in idle) > 10
    assert not any("encoder_layer" in path for path in idle)


def test_the_pooler_trains_if_it_is_used():
    model = TransferClassifier(tiny.bert(num_layers=1), 3, pooling="pooled")
    assert len(model.trainable_variables) == len(model.weights)


@pytest.mark.parametrize(
    "freeze",
    [
        lambda m: setattr(m, "trainable", False),
        lambda m: setattr(m.backbone, "trainable", False),
        lambda m: setattr(m.get_layer("logits"), "trainable", False),
        lambda m: setattr(m.get_layer("logits").bias, "trainable", False),
        # A trainable child in a frozen parent, with a frozen variable.
        lambda m: [
            setattr(m.backbone, "trainable", False),
            setattr(m.backbone.layers[1], "trainable", True),
            setattr(m.backbone.layers[1].kernel, "trainable", False),
        ],
    ],
)
def test_config_keeps_every_kind_of_flag(freeze):
    model = TransferClassifier(tiny.convnet(num_classes=5), 3)
    freeze(model)
    again = TransferClassifier.from_config(model.get_config())
    expected = [v.path for v in model.trainable_variables]
    assert [v.path for v in again.trainable_variables] == expected
    assert [w.trainable for w in again.weights] == [w.trainable for w in model.weights]


@keras.saving.register_keras_serializable(package="keras_transfer_tests")
class Twice(keras.Layer):
    """Two layers that share a third layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        shared = layers.Dense(6)
        self.parts = [layers.TimeDistributed(shared), layers.TimeDistributed(shared)]

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)

    def call(self, inputs):
        return self.parts[1](self.parts[0](inputs))

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_child_of_two_parents_keeps_its_own_flag(frozen):
    twice = Twice()
    backbone = keras.Sequential([keras.Input((4, 6)), twice])
    model = TransferClassifier(backbone, 3)
    twice.parts[frozen].trainable = False
    twice.parts[0].layer.trainable = True
    again = TransferClassifier.from_config(model.get_config())
    parts = again.backbone.layers[-1].parts
    assert [part.trainable for part in parts] == [frozen == 1, frozen == 0]
    assert parts[0].layer.trainable


def test_config_of_another_version_raises():
    model = TransferClassifier(tiny.mlp(), 3)
    config = model.get_config()
    config["trainable_weights"] = config["trainable_weights"][:-1]
    with pytest.raises(ValueError, match="another version"):
        TransferClassifier.from_config(config)
    config = model.get_config()
    del config["trainable_layers"], config["trainable_weights"]
    again = TransferClassifier.from_config(config)
    assert len(again.trainable_variables) == 8


def test_batch_norm_trains_and_freezes_as_in_keras():
    backbone = tiny.hub_resnet()
    model = TransferClassifier(backbone, 3)
    model.compile("sgd", LOSS, jit_compile=False)
    still = [w for w in backbone.weights if "moving" in w.path]
    before = arrays(still)
    fit(model, images(), LABELS)
    assert any((a != b).any() for a, b in zip(arrays(still), before, strict=True))
    backbone.trainable = False
    model.compile("sgd", LOSS, jit_compile=False)
    before = backbone.get_weights()
    fit(model, images(), LABELS)
    assert_close(backbone.get_weights(), before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_and_the_policy_reloads(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = TransferClassifier(tiny.hub_resnet(), 3, dropout=0.1)
    x = images()
    assert run(model, x).dtype == "float32"
    assert model.get_layer("pooling").compute_dtype == policy.removeprefix("mixed_")
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", x, compile=False)
    assert_close(again.outputs, run(model, x))


def test_activation_reloads():
    model = TransferClassifier(tiny.mlp(), 3, activation="softmax")
    x = np.ones((2, 6), "float32")
    np.testing.assert_allclose(arrays(run(model, x))[0].sum(1), 1, atol=1e-6)
    again = TransferClassifier.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert_close(run(again, x), run(model, x))


@pytest.mark.parametrize("num_classes", [0, -1, 2.5, "3", True, None])
def test_wrong_num_classes_raises(num_classes):
    with pytest.raises(ValueError, match="num_classes"):
        TransferClassifier(tiny.mlp(), num_classes)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 2, float("nan")])
def test_wrong_dropout_raises(dropout):
    with pytest.raises(ValueError, match="dropout"):
        TransferClassifier(tiny.mlp(), 3, dropout=dropout)


def test_wrong_backbones_raise():
    with pytest.raises(TypeError, match="must be a keras.Model"):
        TransferClassifier(layers.Dense(3), 3)
    with pytest.raises(TypeError, match=r"\.backbone"):
        TransferClassifier(tiny.bert_classifier(), 3)
    with pytest.raises(ValueError, match="not built"):
        TransferClassifier(keras.Sequential([layers.Dense(3)]), 3)
    with pytest.raises(ValueError, match="does not fit"):
        TransferClassifier(tiny.mlp(), 3, pooling="mean")
