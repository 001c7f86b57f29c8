"""The weights that the outputs of a network do not depend on, found without a batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer._keras import flat_layers
from keras_transfer.adapters.default_targets import LINEAR
from keras_transfer.adapters.targets import biased_layers
from keras_transfer.adapters.targets import find as targeted
from keras_transfer.backbones import features
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.backbones import layer_groups
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.used_weights import idle_weights
from keras_transfer.backbones.used_weights import unreached_weights
from keras_transfer.models import TransferClassifier
from tests import tiny
from tests.backbones import families

pytestmark = [
    # keras-hub's T5 drops the mask without declaring this to Keras.
    pytest.mark.filterwarnings("ignore:Layer '.*_attention':UserWarning"),
]

DECODERS = ["t5", "bart", "whisper"]
# Weights without a use in layers that are used otherwise.
SINGLE = {
    "llama": ["token_embedding/reverse_embeddings"],
    "xlnet": ["encoder_block_attn_mask_layer/mask_emb"],
    "dinov2": ["embeddings/mask_token"],
    "bert": ["pooled_dense/kernel", "pooled_dense/bias"],
    "gemma": [],  # its embedding is tied
    "albert_of_one": ["pooled_dense/kernel", "pooled_dense/bias"],
}


def batch(model, rows=2, positions=6):
    """Return random inputs of a model, without padding."""
    rng = np.random.default_rng(0)

    def one(name, tensor):
        shape = [rows, *(side or positions for side in tensor.shape[1:])]
        if "mask" in name:
            return np.ones(shape, "int32")
        if "segment" in name:
            return np.zeros(shape, "int32")
        if "int" in tensor.dtype:
            return rng.integers(1, 9, size=shape).astype("int32")
        return rng.random(shape, "float32")

    inputs = model.input
    if not isinstance(inputs, dict):
        return one("", inputs)
    return {name: one(name, tensor) for name, tensor in inputs.items()}


def without_gradient(model):
    """Return the paths of the trainable weights that get no gradient in a step."""
    variables = [weight for weight in model.weights if weight.trainable]
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(model(batch(model), training=True) ** 2)
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    pairs = zip(variables, gradients, strict=True)
    return [variable.path for variable, gradient in pairs if gradient is None]


@pytest.mark.slow
@pytest.mark.parametrize("family", [*DECODERS, *SINGLE])
def test_weights_without_a_gradient_do_not_train(family):
    model = TransferClassifier(families.build(family), 2)
    training = {id(variable) for variable in model.trainable_variables}
    able = [weight for weight in model.weights if weight.trainable]
    idle = [weight.path for weight in able if id(weight) not in training]
    assert idle == without_gradient(model)
    if family in SINGLE:
        assert idle == SINGLE[family]
    else:
        bias = "self_attention/embeddings"  # T5's relative positions lack a prefix
        assert len(idle) > 10
        assert all("decoder" in path for path in idle if path != bias)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "whisper"])
def test_an_unused_decoder_does_not_count_as_depth(family):
    backbone = families.build(family)
    model = TransferClassifier(backbone, 2)
    encoder = [n for n in layer_groups(backbone).names if "encoder_layer" in n]
    groups = layer_groups(model)
    assert groups.names == ["unused", "stem", *encoder, "head"]
    optimizer = kt.optimizers.discriminative(
        keras.optimizers.AdamW(), model, layer_decay=0.5
    )
    optimizer.build(model.trainable_variables)
    assert optimizer.rates["transformer_encoder_layer_1"] == 0.5
    assert optimizer.rates["stem"] == 0.125


def own_classifier(frozen=False):
    """Return a functional model that reads the encoder of T5."""
    backbone = families.build("t5")
    outputs = (FrozenBackbone(backbone) if frozen else backbone)(backbone.input)
    x = keras.layers.GlobalAveragePooling1D()(outputs["encoder_sequence_output"])
    return keras.Model(backbone.input, keras.layers.Dense(2)(x))


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_a_user_defined_model_works_too(frozen):
    model = own_classifier(frozen)
    groups = layer_groups(model)
    assert groups.names[0] == "unused" and groups.names[1] == "stem"
    idle = {id(variable) for variable in groups[0].variables}
    assert idle == unreached_weights(model)
    layers = [layer for layer in flat_layers(model) if "decoder_layer" in layer.name]
    assert idle == {id(weight) for layer in layers for weight in layer.weights} | {
        id(weight) for weight in find(model, "decoder_output_layer_norm").weights
    }


def find(model, name):
    return next(layer for layer in flat_layers(model) if layer.name == name)


@pytest.mark.slow
def test_unused_weights_are_in_no_phase():
    model = own_classifier()
    model.compile("adam", "mse", jit_compile=False)
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    assert [phase.groups[0] for phase in unfreezing.phases] == [
        "head",
        "transformer_encoder_layer_1",
        "transformer_encoder_layer_0",
        "unused",  # all groups; only the stem is new
    ]
    last = unfreezing.phases.variables(unfreezing.phases[3])
    assert not any("decoder" in variable.path for variable in last)


@pytest.mark.slow
def test_unused_layers_get_no_adapter():
    model = own_classifier()
    for targets in (None, "all-linear", "query"):
        paths = [target.path for target in targeted(model, targets, LINEAR, "LoRA")]
        assert paths and not any("decoder" in path for path in paths)
    layers = located(model).items()
    query = next(layer for path, layer in layers if "cross_attention/query" in path)
    for target in ("decoder.*query", query):
        with pytest.raises(ValueError, match="outputs of the model do not depend"):
            kt.adapters.LoRA(rank=2, targets=target).attach(model)
    assert not any("decoder" in layer.name for layer in biased_layers(model))


@pytest.mark.slow
def test_both_outputs_are_used_in_the_backbone_itself():
    backbone = families.build("t5")
    assert unreached_weights(backbone) == set()
    assert "unused" not in layer_groups(backbone).names
    assert idle_weights(backbone, backbone.outputs) == []


def test_layers_after_the_output_are_idle():
    # As in DeepLabV3, which contains an image encoder and uses an inner level of it.
    encoder = tiny.hub_resnet()
    cut = keras.Model(encoder.input, encoder.pyramid_outputs["P2"], name="cut")
    cut.image_encoder = encoder
    model = TransferClassifier(cut, 3)
    training = {id(variable) for variable in model.trainable_variables}
    idle = {w.path.split("/")[0] for w in model.weights if id(w) not in training}
    idle = {name for name in idle if not name.endswith("bn")}  # statistics
    assert idle and all(name.startswith("stack1") for name in idle)


def test_layers_outside_of_the_graph_may_be_used_by_a_loss():
    model = tiny.mlp()
    model.extra = keras.layers.Dense(2, name="extra")
    model.extra.build((None, 4))
    assert unreached_weights(model) == set()


def test_a_tied_weight_is_used_if_one_of_its_layers_is_used():
    inputs = keras.Input((4,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(9, 3, tie_weights=False)
    x = table(inputs)
    both = keras.Model(inputs, {"rows": x, "words": table(x, reverse=True)})
    idle = idle_weights(both, [both.output["rows"]])
    assert [weight.name for weight in idle] == ["reverse_embeddings"]
    assert idle_weights(both, [both.output["words"]]) == []


@keras.saving.register_keras_serializable(package="keras_transfer_tests")
class Stubborn(keras.Layer):
    """A layer whose call cannot be traced a second time."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")
        self.spare = self.add_weight(shape=(2,), name="spare")
        self.calls = 0

    def call(self, inputs):
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("once only")
        return inputs @ self.kernel


def test_a_call_that_cannot_be_traced_uses_all():
    inputs = keras.Input((4,))
    network = keras.Model(inputs, Stubborn()(inputs))
    assert idle_weights(network, network.outputs) == []


def test_weights_behind_a_stopped_gradient_are_idle():
    class Detached(keras.Layer):
        def build(self, input_shape):
            self.kept = self.add_weight(shape=(4,), name="kept")
            self.stopped = self.add_weight(shape=(4,), name="stopped")
            self.rounded = self.add_weight(shape=(4,), name="rounded")

        def call(self, x):
            whole = keras.ops.cast(x * self.rounded, "int32")
            x = x + self.kept + keras.ops.stop_gradient(x * self.stopped)
            return x + keras.ops.cast(whole, x.dtype)

    inputs = keras.Input((4,))
    network = keras.Model(inputs, Detached()(inputs))
    idle = idle_weights(network, network.outputs)
    assert [weight.name for weight in idle] == ["stopped", "rounded"]


def test_a_weight_of_an_added_loss_trains():
    class Codebook(keras.Layer):
        """A layer that trains only on its own loss, as in a VQ-VAE."""

        def build(self, input_shape):
            self.code = self.add_weight(shape=(4,), name="code", initializer="ones")
            self.spare = self.add_weight(shape=(4,), name="spare")

        def call(self, x):
            still = keras.ops.stop_gradient
            self.add_loss(keras.ops.mean((still(x) - self.code) ** 2))
            return x + still(self.code - x)

    inputs = keras.Input((4,))
    layer = Codebook()
    model = TransferClassifier(keras.Model(inputs, layer(inputs)), 2)
    assert [weight.name for weight in model.idle_weights()] == ["spare"]
    before = keras.ops.convert_to_numpy(layer.code).copy()
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0)
    assert not np.allclose(before, keras.ops.convert_to_numpy(layer.code))


def test_an_adapter_that_is_off_is_not_idle():
    backbone = tiny.bert(num_layers=1)
    kt.adapters.LoRA(rank=2).attach(backbone, name="first")
    kt.adapters.LoRA(rank=2).attach(backbone, name="second")
    model = TransferClassifier(backbone, 2)
    paths = [weight.path for weight in model.idle_weights()]
    assert paths == ["pooled_dense/kernel", "pooled_dense/bias"]


@pytest.mark.slow
def test_features_of_a_part_leave_the_rest_unused():
    model = features(families.build("bart"))
    assert layer_groups(model).names[0] == "unused"


@pytest.mark.slow
def test_the_idle_weights_are_saved_with_a_model():
    model = TransferClassifier(families.build("llama"), 2)
    config = model.get_config()
    names = [model.weights[place].name for place in config["idle_weights"]]
    assert names == ["reverse_embeddings"]
    again = TransferClassifier.from_config(dict(config))
    assert [weight.name for weight in again.idle_weights()] == names
    # As in a version without idle weights: the optimizer in the file needs them.
    for other in ({**config, "idle_weights": []}, without(config, "idle_weights")):
        again = TransferClassifier.from_config(other)
        assert again.idle_weights() == []
        assert len(again.trainable_variables) == len(model.trainable_variables) + 1


def without(config, key):
    return {name: value for name, value in config.items() if name != key}
