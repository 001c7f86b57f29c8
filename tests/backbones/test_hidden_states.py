"""hidden_states: the states of all families, masks, mixes of them, and fine-tuning."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as kt
from keras_transfer.backbones import hidden_states
from keras_transfer.backbones.marked_state import MarkedState
from tests import tiny
from tests.backbones import families
from tests.contracts.layer_contract import LayerContract

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# One of each kind: transformer, shared layers, blocks inside a layer, images. The other
# families are slow.
FAST = ("bert", "albert", "hub_vit", "hub_resnet")
# Their graphs are built like one of the others.
SIMILAR = {"bert_of_one", "roberta", "distilbert", "xlm_roberta", *families.CV}
SIMILAR |= {*families.APPLICATIONS} - {"InceptionV3", "MobileNetV2"}
OUTPUTS = {"hgnet": "stage2"}
KEYS = ("sequence_output", "encoder_sequence_output", "stage2")


def example(tensor):
    """Return two random examples of an input."""
    random = np.random.default_rng(0)
    shape = [2, *(8 if size is None else size for size in tensor.shape[1:])]
    if "mask" in tensor.name:
        mask = np.ones(shape, "int32")
        mask[:, -2:] = 0
        return mask
    if "int" in tensor.dtype:
        return random.integers(1, 2 if "segment" in tensor.name else 60, shape)
    return random.random(shape).astype("float32")


def blocks_of(backbone):
    """Return the groups of a backbone, without decoders that come after an encoder."""
    groups = kt.layer_groups(backbone).names
    return [each for each in groups if "transformer_decoder" not in each]


def tokens(count=16):
    """Return inputs of BERT with two positions of padding, and labels."""
    ids = np.random.default_rng(0).integers(3, 60, (count, 8))
    ids[:, 6:] = 0
    mask = (ids > 0).astype("int32")
    x = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": mask}
    return x, np.arange(count) % 2


def mixed(states, **settings):
    """Return the backbone that mixes these states."""
    mix = kt.layers.ScalarMix(name="mix", **settings)
    return keras.Model(states.input, mix(states.outputs), name="mixed")


class TestMarkedState(LayerContract):
    def make(self):
        return MarkedState()

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 3, 4)).astype("float32")


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in families.NAMES
        if name not in SIMILAR
    ],
)
@pytest.mark.filterwarnings("ignore:Layer '.*' .of type WindowAttention")
def test_states_of_all_families(name, tmp_path):
    backbone = families.build(name)
    states = hidden_states(backbone, output=OUTPUTS.get(name))
    if name.startswith("albert"):
        assert len(states.outputs) == 5  # the embeddings and four applications
    else:
        assert states.output_names == [
            f"{each.replace('/', '_')}_state" for each in blocks_of(backbone)
        ]
    assert {id(w) for w in states.weights} <= {id(w) for w in backbone.weights}
    x = keras.tree.map_structure(example, backbone.input)
    outputs, reference = states(x), backbone(x)
    if isinstance(reference, dict):
        reference = next(reference[key] for key in KEYS if key in reference)
    np.testing.assert_allclose(outputs[-1], reference, rtol=1e-5, atol=1e-5)
    if name.startswith(("deberta", "llama", "hub_vit", "bert", "hgnet")):
        states.save(tmp_path / "states.keras")
        again = keras.models.load_model(tmp_path / "states.keras")(x)
        for one, two in zip(again, outputs, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_states_of_bert_are_those_of_its_layers():
    backbone = tiny.bert()
    x, _ = tokens(2)
    first, *others = hidden_states(backbone)(x)
    run = keras.Model(backbone.input, backbone.get_layer("embeddings_dropout").output)
    state = run(x)
    np.testing.assert_array_equal(first, state)
    for number, found in enumerate(others):
        layer = backbone.get_layer(f"transformer_layer_{number}")
        state = layer(state, padding_mask=x["padding_mask"])
        np.testing.assert_allclose(found, state, rtol=1e-5, atol=1e-6)


def test_blocks_are_chosen_by_name_in_the_order_of_the_network(tmp_path):
    backbone = tiny.bert()
    names = ["transformer_layer_2", "stem"]
    states = hidden_states(backbone, names)
    assert states.output_names == ["stem_state", "transformer_layer_2_state"]
    states.save(tmp_path / "states.keras")
    again = keras.models.load_model(tmp_path / "states.keras")
    assert again.output_names == states.output_names
    for wrong in (["stem", "top"], [], ["stem", "stem"], "top"):
        with pytest.raises(ValueError, match="different names of .*'stem'"):
            hidden_states(backbone, wrong)


def test_padding_never_counts_in_a_mix():
    x, _ = tokens(4)
    changed = x | {"token_ids": np.where(x["padding_mask"], x["token_ids"], 7)}
    mix = mixed(hidden_states(tiny.bert(num_layers=1)))
    assert mix(x)._keras_mask is not None
    averaged = layers.GlobalAveragePooling1D()(mix.output)
    averaged = keras.Model(mix.input, averaged)
    pooled = kt.backbones.features(mix)
    short = {name: values[:, :6] for name, values in x.items()}
    expected = pooled(short)
    for model in (averaged, pooled):
        for inputs in (x, changed):
            np.testing.assert_allclose(model(inputs), expected, rtol=1e-5, atol=1e-6)


def test_own_masks_are_kept():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(12, 4, mask_zero=True, name="embedding")(inputs)
    for number in range(2):
        x = layers.Dense(4, "tanh", name=f"block_{number}")(x)
    states = hidden_states(keras.Model(inputs, x))
    ids = np.array([[3, 4, 0, 0, 0, 0]])
    for state in states(ids):
        np.testing.assert_array_equal(state._keras_mask, ids > 0)
    mean = layers.GlobalAveragePooling1D()(kt.layers.ScalarMix()(states(ids)))
    short = [np.mean(each[:, :2], axis=(0, 1)) for each in states(ids)]
    np.testing.assert_allclose(mean[0], np.mean(short, axis=0), rtol=1e-5, atol=1e-6)


def test_pooled_states_of_images_have_one_vector_each():
    backbone = tiny.hub_resnet()
    states = hidden_states(backbone, pooling="auto")
    image = np.random.default_rng(0).random((2, 16, 16, 3)).astype("float32")
    assert [x.shape[1:] for x in states(image)] == [(64,)] * 3
    np.testing.assert_allclose(
        states(image)[-1], np.mean(backbone(image), (1, 2)), rtol=1e-5
    )
    with pytest.raises(ValueError, match="pooling='mean' does not fit the output"):
        hidden_states(backbone, pooling="mean")
    with pytest.raises(ValueError, match="equal shape"):
        mixed(hidden_states(backbone))


def test_a_nested_model_is_opened():
    inner = tiny.mlp()
    outer = keras.Sequential([keras.Input((6,)), layers.Rescaling(0.5), inner])
    states = hidden_states(outer)
    assert len(states.outputs) == 3
    x = np.random.default_rng(0).random((2, 6)).astype("float32")
    first, _, last = states(x)
    np.testing.assert_allclose(first, inner.layers[1](x / 2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, outer(x), rtol=1e-5, atol=1e-6)


def test_a_mix_has_the_states_of_its_backbone():
    states = hidden_states(tiny.bert())
    again = hidden_states(mixed(states))
    assert again.output_names == [*states.output_names, "head_state"]
    x, _ = tokens(2)
    for one, two in zip(again(x), states(x), strict=False):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_a_frozen_nested_model_stays_frozen():
    inner = kt.backbones.FrozenBackbone(tiny.mlp())
    outer = keras.Sequential([keras.Input((6,)), inner, layers.Dense(3, name="top")])
    states = hidden_states(outer)
    assert len(states.outputs) == 4
    assert len(states.trainable_variables) == 2


def test_a_mix_is_fine_tuned_in_groups(tmp_path):
    x, y = tokens()
    mix = mixed(hidden_states(tiny.bert(num_layers=2)), layer_dropout=0.1)
    model = kt.models.TransferClassifier(mix, 2)
    groups = kt.layer_groups(model)
    names = ["stem", "transformer_layer_0", "transformer_layer_1", "head"]
    assert groups.names == names
    head = {variable.path for variable in groups["head"].variables}
    assert head == {"mix/scores", "mix/gamma", "logits/kernel", "logits/bias"}
    sgd = keras.optimizers.SGD(1.0)
    optimizer = kt.optimizers.discriminative(sgd, model, layer_decay=0.5)
    model.compile(optimizer, LOSS, jit_compile=False)
    before = mix.get_layer("mix").block_weights
    model.fit(x, y, verbose=0, callbacks=[kt.callbacks.GradualUnfreezing(model)])
    assert np.abs(mix.get_layer("mix").block_weights - before).max() > 1e-5
    model.save(tmp_path / "model.keras")
    again = kt.resume(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-6)
    assert kt.layer_groups(again).names == groups.names


@pytest.mark.slow
def test_fine_tune_takes_a_mix():
    x, y = tokens()
    states = hidden_states(tiny.bert(num_layers=1))
    model = kt.models.TransferClassifier(mixed(states), 2)
    model.compile(keras.optimizers.SGD(1e-3), LOSS, jit_compile=False)
    history = kt.fine_tune(model, (x, y), strategy="lp-ft", epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_cached_states_of_a_frozen_backbone_train_a_mix():
    x, y = tokens()
    backbone = kt.backbones.FrozenBackbone(tiny.bert(num_layers=1))
    states = hidden_states(backbone, pooling="auto")
    assert states.trainable_variables == []
    cached = kt.backbones.cache_features(states, (x, y), verbose=0)
    inputs = [keras.Input((16,)) for _ in states.outputs]
    logits = layers.Dense(2, name="logits")(kt.layers.ScalarMix(name="mix")(inputs))
    head = keras.Model(inputs, logits, name="head")
    head.compile("sgd", LOSS, jit_compile=False)
    head.fit(cached.shuffle(16).batch(4), epochs=2, shuffle=False, verbose=0)
    model = kt.backbones.stitch(states, head)
    expected = head(states(x))
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    # The mean of the mix is the mix of the means.
    mix = mixed(hidden_states(backbone))
    mix.get_layer("mix").set_weights(head.get_layer("mix").get_weights())
    whole = head.get_layer("logits")(kt.backbones.features(mix)(x))
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_mix_with_lora_is_loaded_with_its_flags(tmp_path):
    x, y = tokens(4)
    states = hidden_states(tiny.bert(num_layers=1))
    model = kt.models.TransferClassifier(mixed(states), 2)
    kt.adapters.LoRA(rank=1).attach(model)
    model.compile("sgd", LOSS, jit_compile=False)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(again.trainable_variables) == len(model.trainable_variables) == 8
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-6)


def test_flags_of_a_plain_model_are_kept(tmp_path):
    backbone = tiny.bert(num_layers=2)
    backbone.get_layer("transformer_layer_0").trainable = False
    model = mixed(hidden_states(backbone))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(again.trainable_variables) == len(model.trainable_variables)


def test_wrong_backbones_raise():
    with pytest.raises(TypeError, match="already has a head"):
        hidden_states(tiny.bert_classifier())
    with pytest.raises(TypeError, match="must be a keras.Model"):
        hidden_states(layers.Dense(2))
    with pytest.raises(ValueError, match="no output and no layer 'top'"):
        hidden_states(tiny.bert(), output="top")
