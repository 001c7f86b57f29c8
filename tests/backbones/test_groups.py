import functools
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_transfer._keras import flat_layers
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.backbones import layer_groups
from keras_transfer.backbones import LayerGroup
from keras_transfer.backbones import LayerGroups
from tests import tiny
from tests.backbones import families

pytestmark = [
    # keras-hub's T5 and Swin drop the mask without declaring this to Keras.
    pytest.mark.filterwarnings("ignore:Layer '(.*_attention|attn)':UserWarning"),
]

# Written by hand from the papers and the names in the code of each network: the
# groups in order and the number of variables in each. A row (name, count, numbers)
# stands for one group per number.
EXPECTED = {
    "bert": [
        ("stem", 5),  # three embeddings, layer norm
        ("transformer_layer_{}", 16, range(2)),
        ("transformer_layer_2", 18),  # with the pooler
    ],
    "bert_of_one": [("stem", 5), ("transformer_layer_0", 18)],
    "roberta": [("stem", 4), ("transformer_layer_{}", 16, range(3))],
    "distilbert": [("stem", 4), ("transformer_layer_{}", 16, range(3))],
    "albert": [("stem", 7), ("group_0", 16), ("group_1", 18)],
    "albert_of_one": [("stem", 7), ("group_0", 34)],
    "deberta_v3": [  # the relative embedding and its norm are embeddings
        ("stem", 6),
        ("disentangled_attention_encoder_layer_{}", 16, range(3)),
    ],
    "xlm_roberta": [("stem", 4), ("transformer_layer_{}", 16, range(3))],
    "electra": [
        ("stem", 7),
        ("transformer_layer_{}", 16, range(2)),
        ("transformer_layer_2", 18),
    ],
    "xlnet": [("stem", 2), ("xlnet_encoder_{}", 17, range(3))],
    "esm": [
        ("stem", 1),
        ("transformer_layer_{}", 16, range(2)),
        ("transformer_layer_2", 18),  # with the final norm
    ],
    "gpt2": [
        ("stem", 2),
        ("transformer_layer_{}", 16, range(2)),
        ("transformer_layer_2", 18),  # with the final norm
    ],
    "llama": [
        ("stem", 2),  # embedding and its untied reverse, one layer
        ("transformer_layer_{}", 9, range(2)),
        ("transformer_layer_2", 10),
    ],
    "gemma": [("stem", 1), ("decoder_block_{}", 9, range(2)), ("decoder_block_2", 10)],
    "bart": [
        ("stem", 7),
        ("transformer_encoder_layer_{}", 16, range(2)),
        ("transformer_decoder_layer_{}", 26, range(2)),
    ],
    "t5": [  # the first layer of each stack has the relative position bias
        ("stem", 1),
        ("transformer_encoder_layer_0", 10),
        ("transformer_encoder_layer_1", 10),  # 9 and the final norm
        ("transformer_decoder_layer_0", 15),
        ("transformer_decoder_layer_1", 15),  # 14 and the final norm
    ],
    "whisper": [  # keys have no bias
        ("stem", 7),
        ("transformer_encoder_layer_0", 15),
        ("transformer_encoder_layer_1", 17),
        ("transformer_decoder_layer_0", 24),
        ("transformer_decoder_layer_1", 26),
    ],
    "hub_resnet": [
        ("stem", 5),
        ("stack0_block{}", 10, range(2)),
        ("stack1_block0", 15),
    ],
    "hub_resnet_v2": [
        ("stem", 1),
        ("stack0_block0", 16),
        ("stack0_block1", 15),
        ("stack1_block0", 20),  # with post_bn
    ],
    "hub_densenet": [
        ("stem", 5),
        ("stack1_block1", 10),
        ("stack1_block2", 15),  # with the transition
        ("stack2_block1", 10),
        ("stack2_block2", 14),  # with the last norm
    ],
    "hub_vgg": [("block1", 4), ("block2", 2), ("block3", 2)],
    "hub_mobilenet": [
        ("stem", 5),
        ("block_0_0", 10),
        ("block_1_0", 19),
        ("block_2_{}", 15, range(2)),
        ("block_3_0", 19),
        ("block_4_0", 5),
    ],
    "hub_efficientnet": [
        ("stem", 5),
        ("block1a", 10),
        ("block2a", 19),
        ("block2b", 19),
        ("block3a", 24),  # with top_conv and top_bn
    ],
    "hub_vit": [
        ("stem", 4),  # class token, patches, positions
        ("transformer_block_{}", 16, range(1, 3)),
        ("transformer_block_3", 18),
    ],
    "dinov2": [
        ("stem", 6),  # class and mask token, patches, two sizes of positions
        ("layers_0", 18),
        ("layers_1", 20),
    ],
    "swin": [  # a norm of the patches; a stage ends in a reduction
        ("stem", 4),
        ("stage_0/blocks_0", 13),
        ("stage_0/blocks_1", 16),
        ("stage_1/blocks_0", 15),
    ],
    "hgnet": [
        ("stem", 25),
        ("encoder_stage_0_block_0", 20),  # with the next stage's downsampling
        ("encoder_stage_1_block_{}", 30, range(2)),
    ],
    "cv_resnet": [
        ("stem", 5),
        ("v2_stack_0_block{}", 10, range(1, 3)),
        ("v2_stack_1_block1", 15),
        ("v2_stack_1_block2", 10),
    ],
    "cv_resnet_v2": [
        ("stem", 2),
        ("v2_stack_0_block1", 18),
        ("v2_stack_0_block2", 16),
        ("v2_stack_1_block1", 18),
        ("v2_stack_1_block2", 20),
    ],
    "cv_densenet": [
        ("stem", 5),
        ("conv2_block_0", 10),
        ("conv2_block_1", 15),
        ("conv3_block_0", 10),
        ("conv3_block_1", 14),
    ],
    "cv_mobilenet_v3": [
        ("stem", 5),
        ("expanded_conv", 14),
        ("expanded_conv_1", 15),
        ("expanded_conv_2", 24),
    ],
    "cv_efficientnet_v2": [
        ("stem", 5),
        ("block1a", 5),
        ("block2a", 14),
        ("block2b", 14),
        ("block3a", 24),
    ],
    "ResNet50": [
        ("stem", 6),
        ("conv2_block1", 24),
        ("conv2_block{}", 18, range(2, 4)),
        ("conv3_block1", 24),
        ("conv3_block{}", 18, range(2, 5)),
        ("conv4_block1", 24),
        ("conv4_block{}", 18, range(2, 7)),
        ("conv5_block1", 24),
        ("conv5_block{}", 18, range(2, 4)),
    ],
    "ResNet50V2": [
        ("stem", 2),
        ("conv2_block1", 18),
        ("conv2_block{}", 16, range(2, 4)),
        ("conv3_block1", 18),
        ("conv3_block{}", 16, range(2, 5)),
        ("conv4_block1", 18),
        ("conv4_block{}", 16, range(2, 7)),
        ("conv5_block1", 18),
        ("conv5_block2", 16),
        ("conv5_block3", 20),
    ],
    "DenseNet121": [
        ("stem", 5),
        ("conv2_block{}", 10, range(1, 6)),
        ("conv2_block6", 15),
        ("conv3_block{}", 10, range(1, 12)),
        ("conv3_block12", 15),
        ("conv4_block{}", 10, range(1, 24)),
        ("conv4_block24", 15),
        ("conv5_block{}", 10, range(1, 16)),
        ("conv5_block16", 14),
    ],
    "VGG16": [("block{}", 4, range(1, 3)), ("block{}", 6, range(3, 6)), ("head", 6)],
    "InceptionV3": [  # a kernel and a norm without scale per convolution
        ("stem", 5 * 4),
        ("mixed{}", 7 * 4, range(3)),
        ("mixed3", 4 * 4),
        ("mixed{}", 10 * 4, range(4, 8)),
        ("mixed8", 6 * 4),
        ("mixed{}", 9 * 4, range(9, 11)),
    ],
    "MobileNetV2": [
        ("stem", 5),
        ("expanded_conv", 10),
        ("block_{}", 15, range(1, 16)),
        ("block_16", 20),  # with Conv_1
    ],
    "EfficientNetB0": [
        ("stem", 8),  # with the normalization of the images
        ("block1a", 14),
        ("block2{}", 19, "ab"),
        ("block3{}", 19, "ab"),
        ("block4{}", 19, "abc"),
        ("block5{}", 19, "abc"),
        ("block6{}", 19, "abcd"),
        ("block7a", 24),
    ],
    "MobileNet": [("stem", 5), ("block_{}", 10, range(1, 14))],
    "MobileNetV3Small": [
        ("stem", 5),
        ("expanded_conv", 14),
        ("expanded_conv_{}", 15, range(1, 3)),
        ("expanded_conv_{}", 19, range(3, 10)),
        ("expanded_conv_10", 24),
    ],
}

# Layers whose group the number of variables does not prove.
PLACES = [
    ("bert", "transformer_layer_2", "pooled_dense"),
    ("electra", "stem", "embeddings_projection"),
    ("albert", "stem", "embedding_projection"),
    ("albert_of_one", "group_0", "group_0_inner_layer_1/feedforward_output_dense"),
    ("deberta_v3", "stem", "rel_embedding"),
    ("gpt2", "transformer_layer_2", "layer_norm"),
    ("llama", "transformer_layer_2", "sequence_output_layernorm"),
    ("gemma", "decoder_block_2", "final_normalization"),
    ("t5", "transformer_encoder_layer_1", "encoder_output_layer_norm"),
    ("t5", "transformer_encoder_layer_0", "transformer_encoder_layer_0/self_attention"),
    ("whisper", "stem", "encoder_token_embedding_conv_layer_2"),
    ("whisper", "stem", "decoder_token_and_position_embedding/token_embedding"),
    ("whisper", "transformer_encoder_layer_1", "encoder_layer_norm"),
    ("xlnet", "stem", "encoder_block_attn_mask_layer"),
    ("hub_resnet_v2", "stack1_block0", "post_bn"),
    ("hub_densenet", "stack1_block2", "transition1_conv"),
    ("hub_vit", "transformer_block_3", "vit_encoder/ln"),
    ("dinov2", "layers_1", "layernorm"),
    ("swin", "stage_0/blocks_1", "stage_0/downsample/reduction"),
    ("cv_densenet", "conv2_block_1", "pool2_conv"),
    ("cv_efficientnet_v2", "block3a", "top_conv"),
    ("ResNet50", "conv3_block1", "conv3_block1_0_conv"),
    ("DenseNet121", "conv4_block24", "pool4_conv"),
    ("MobileNetV2", "block_16", "Conv_1"),
    ("EfficientNetB0", "stem", "normalization"),
    ("VGG16", "head", "fc1"),
]


# These take seconds to build.
SLOW = ("t5", "swin", "DenseNet121", "InceptionV3", "ResNet50V2", "EfficientNetB0")


def cases(rows):
    """Return families, or tuples that start with one, with a mark for the slow ones."""
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    return [
        pytest.param(*row, marks=[pytest.mark.slow] * (row[0] in SLOW)) for row in rows
    ]


@pytest.fixture(scope="module")
def family():
    """Return a function that returns the backbone of a name, built once."""
    return functools.cache(families.build)


def rows(table):
    for name, count, *numbers in table:
        for number in numbers[0] if numbers else [""]:
            yield name.format(number), count


def counts(groups):
    return [(group.name, len(group.variables)) for group in groups]


@pytest.mark.parametrize("name", cases(families.NAMES))
def test_groups_equal_those_written_by_hand(name, family):
    assert counts(layer_groups(family(name))) == list(rows(EXPECTED[name]))


@pytest.mark.parametrize("name", cases(families.NAMES))
def test_every_weight_is_in_the_group_of_its_owner(name, family):
    model = family(name)
    groups = layer_groups(model)
    covered = [v for group in groups for v in group.variables]
    assert sorted(map(id, covered)) == sorted(map(id, model.weights))
    layers = [layer for group in groups for layer in group.layers]
    assert len({id(layer) for layer in layers}) == len(layers)
    for position, group in enumerate(groups):
        assert all(groups.position(v) == position for v in group.variables)
        below = {id(w) for layer in group.layers for w in layer.weights}
        assert {id(v) for v in group.variables} <= below


@pytest.mark.parametrize("name, group, path", cases(PLACES))
def test_single_layers_are_in_the_right_group(name, group, path, family):
    layer = family(name)
    for part in path.split("/"):
        layer = next(x for x in flat_layers(layer) if x.name == part)
    assert any(layer is member for member in layer_groups(family(name))[group].layers)


@pytest.mark.slow
def test_inception_modules_split_the_graph(family):
    model = family("InceptionV3")
    groups = layer_groups(model)
    below = set()
    for index, group in enumerate(groups[1:]):
        cut = keras.Model(model.input, model.get_layer(f"mixed{index}").output)
        inside = {id(v) for v in cut.weights}
        stem = {id(v) for v in groups["stem"].variables}
        assert {id(v) for v in group.variables} == inside - below - stem
        below |= inside


@pytest.mark.parametrize("name", ["bert", "hub_resnet", "cv_densenet", "MobileNetV2"])
def test_the_model_does_not_change(name, family):
    model = family(name)
    layers = flat_layers(model)
    layers[3].trainable = False
    flags = [(layer.trainable, layer.built) for layer in layers]
    variable_flags = [v.trainable for v in model.variables]
    values = model.get_weights()
    print(layer_groups(model))
    assert flags == [(layer.trainable, layer.built) for layer in flat_layers(model)]
    assert variable_flags == [v.trainable for v in model.variables]
    for before, after in zip(values, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    layers[3].trainable = True


# --- Tasks and compositions ---


def hub_task(task, name, **kwargs):
    import keras_hub

    return getattr(keras_hub.models, task)(backbone=families.build(name), **kwargs)


@pytest.mark.parametrize(
    "task, backbone, head",
    [
        ("BertTextClassifier", "bert", 2),
        ("BertMaskedLM", "bert", 5),  # its output weights are those of the embedding
        ("RobertaTextClassifier", "roberta", 4),  # pooled_dense belongs to the task
        ("ViTImageClassifier", "hub_vit", 2),
        ("MobileNetImageClassifier", "hub_mobilenet", 4),
    ],
)
def test_layers_that_a_task_adds_are_the_head(task, backbone, head):
    extra = {} if task == "BertMaskedLM" else {"num_classes": 3}
    model = hub_task(task, backbone, **extra)
    expected = [*rows(EXPECTED[backbone]), ("head", head)]
    assert counts(layer_groups(model)) == expected


def test_a_causal_language_model_with_tied_embedding_has_no_head():
    model = hub_task("GPT2CausalLM", "gpt2", preprocessor=None)
    groups = layer_groups(model)
    assert counts(groups) == list(rows(EXPECTED["gpt2"]))
    assert model.backbone.token_embedding in groups["stem"].layers


def test_a_backbone_in_a_sequential():
    model = keras.Sequential(
        [
            keras.layers.Normalization(),
            families.build("hub_resnet"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, name="embedding"),  # only the name of an embedding
        ]
    )
    model.build((None, 16, 16, 3))
    expected = [*rows(EXPECTED["hub_resnet"]), ("head", 6)]
    expected[0] = ("stem", 8)
    assert counts(layer_groups(model)) == expected


@pytest.mark.parametrize("frozen", [False, True])
def test_a_backbone_in_a_functional_model(frozen):
    backbone = families.build("hub_densenet")
    inputs = keras.Input((32, 32, 1))
    x = keras.layers.Conv2D(3, 1)(inputs)
    x = (FrozenBackbone(backbone) if frozen else backbone)(x)
    x = keras.layers.Conv2D(2, 1)(x)  # after a nested backbone, so not a part of it
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    expected = [*rows(EXPECTED["hub_densenet"]), ("head", 4)]
    expected[0] = ("stem", 7)
    assert counts(layer_groups(model)) == expected


def test_a_backbone_in_a_subclassed_model():
    model = families.Holder(families.build("cv_resnet"))
    model(np.zeros((1, 16, 16, 3), "float32"))
    expected = [*rows(EXPECTED["cv_resnet"]), ("head", 4)]
    assert counts(layer_groups(model)) == expected


def test_a_backbone_with_the_name_of_a_block_is_not_a_block():
    inputs, pooled = [], []
    for name in ("encoder_1", "encoder_2"):
        tower = tiny.bert(name=name)
        features = {
            key: keras.Input(x.shape[1:], dtype=x.dtype, name=f"{name}_{key}")
            for key, x in tower.input.items()
        }
        inputs.append(features)
        pooled.append(tower(features)["pooled_output"])
    logits = keras.layers.Dense(2)(keras.layers.Concatenate()(pooled))
    model = keras.Model(inputs, logits)
    groups = layer_groups(model)
    assert groups.names == [
        "stem",
        "transformer_layer_0",
        "transformer_layer_1",
        "transformer_layer_2",
        "encoder_2/transformer_layer_0",
        "encoder_2/transformer_layer_1",
        "encoder_2/transformer_layer_2",
        "head",
    ]


class Encoder(keras.layers.Layer):
    """A plain layer with blocks in it and a default name with a number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = [keras.layers.Dense(4, name=f"block_{i}") for i in range(3)]

    def call(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        return inputs


def test_a_layer_that_contains_the_blocks_is_not_a_block():
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(8, 4, name="embedding_layer_1")(inputs)
    x = keras.layers.LayerNormalization()(Encoder(name="encoder_1")(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    expected = [("stem", 1), ("block_0", 2), ("block_1", 2), ("block_2", 4)]
    assert counts(layer_groups(model)) == [*expected, ("head", 2)]


def test_a_backbone_of_keras_hub_has_no_head():
    import keras_hub

    inputs = keras.Input((4,))
    x = Encoder(name="encoder")(inputs)
    outputs = keras.layers.Dense(2)(x)
    model = keras_hub.models.Backbone(inputs, outputs)
    expected = [("block_0", 2), ("block_1", 2), ("block_2", 4)]
    assert counts(layer_groups(model)) == expected


def test_a_functional_model_is_read_in_graph_order():
    class Classifier(keras.Model):
        def __init__(self, backbone):
            self.logits = keras.layers.Dense(2, name="logits")
            self.backbone = backbone
            outputs = self.logits(keras.layers.Flatten()(backbone.output))
            super().__init__(backbone.input, outputs)

    groups = layer_groups(Classifier(families.build("hub_vgg")))
    assert counts(groups) == [*rows(EXPECTED["hub_vgg"]), ("head", 2)]


def test_weights_outside_of_the_graph_are_grouped_too():
    model = tiny.mlp()
    model.extra = keras.layers.Dense(2, name="extra")
    model.extra.build((None, 4))
    assert counts(layer_groups(model))[2:] == [("dense_2", 2), ("extra", 2)]


@pytest.mark.parametrize("name, head", [("hub_efficientnet", 6), ("bert", 2)])
def test_layers_added_to_the_graph_of_a_backbone_are_the_head(name, head):
    backbone = families.build(name)
    if name == "bert":
        x = backbone.output["pooled_output"]
    else:
        x = keras.layers.GlobalAveragePooling2D()(backbone.output)
        x = keras.layers.BatchNormalization()(x)
    model = keras.Model(backbone.input, keras.layers.Dense(3)(x))
    expected = [*rows(EXPECTED[name]), ("head", head)]
    assert counts(layer_groups(model)) == expected


# --- Models of unknown families ---


def test_numbers_in_default_names_are_not_blocks():
    layers = [keras.layers.Dense(2) for _ in range(3)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    assert layer_groups(model).names == ["dense", "dense_1", "dense_2"]
    assert layer_groups(tiny.mlp()).names == ["dense_0", "dense_1", "dense_2"]
    groups = layer_groups(tiny.convnet())
    assert counts(groups) == [("conv", 2), ("norm", 4), ("hidden", 2), ("logits", 2)]


def test_the_first_block_numbered_by_keras_has_no_number():
    import keras_hub

    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(8, 4)(inputs)
    for _ in range(3):
        x = keras_hub.layers.TransformerEncoder(8, 2)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    assert counts(layer_groups(model)) == [
        ("stem", 1),
        ("transformer_encoder", 16),
        ("transformer_encoder_1", 16),
        ("transformer_encoder_2", 16),
        ("head", 2),
    ]


@pytest.mark.parametrize("frozen", [False, True])
def test_an_unknown_model_at_the_start_is_the_backbone(frozen):
    backbone = FrozenBackbone(tiny.mlp()) if frozen else tiny.mlp()
    model = keras.Sequential([keras.Input((6,)), backbone, keras.layers.Dense(2)])
    expected = [("dense_0", 2), ("dense_1", 2), ("dense_2", 2), ("head", 2)]
    assert counts(layer_groups(model)) == expected


def test_layers_before_an_unknown_backbone_are_the_stem():
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight(shape=(), name="scale")
            self.normalization = keras.layers.Normalization()
            self.normalization.build((None, 6))
            self.backbone = tiny.mlp()
            self.logits = keras.layers.Dense(2)

        def call(self, inputs):
            x = self.normalization(inputs * self.scale)
            return self.logits(self.backbone(x))

    model = Scaled()
    model(np.zeros((1, 6), "float32"))
    expected = [("stem", 4), ("dense_0", 2), ("dense_1", 2), ("dense_2", 2)]
    assert counts(layer_groups(model)) == [*expected, ("head", 2)]


def test_an_unknown_model_elsewhere_is_split_into_layers():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(6, name="dense_0"), tiny.mlp()]
    )
    names = ["dense_0", f"{model.layers[1].name}/dense_0", "dense_1", "dense_2"]
    assert layer_groups(model).names == names


class Direct(keras.Model):
    """A subclassed model with its own weight, a layer, a list and a composite."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), name="scale")
        self.attention = keras.layers.MultiHeadAttention(1, 2, name="attention")
        self.steps = [keras.layers.Dense(3, name=name) for name in ("first", "second")]

    def call(self, inputs):
        x = self.attention(inputs, inputs) * self.scale
        for step in self.steps:
            x = step(x)
        return x


def test_an_unknown_subclassed_model_is_split_by_attribute():
    model = Direct()
    model(np.zeros((1, 2, 3), "float32"))
    expected = [(model.name, 1), ("attention", 8), ("first", 2), ("second", 2)]
    groups = layer_groups(model)
    assert counts(groups) == expected
    assert groups[0].layers == (model,) and groups[0].variables == [model.scale]
    names = [layer.name for layer in groups["attention"].layers]
    assert names == ["query", "key", "value", "attention_output"]


def test_a_shared_variable_is_in_the_group_of_the_first_layer():
    class Tied(keras.layers.Layer):
        def __init__(self, other, **kwargs):
            super().__init__(**kwargs)
            self.kernel = other.kernel

        def call(self, inputs):
            return inputs @ self.kernel

    dense = keras.layers.Dense(4, use_bias=False, name="dense")
    dense.build((None, 4))
    model = keras.Sequential([keras.Input((4,)), dense, Tied(dense, name="tied")])
    groups = layer_groups(model)
    assert counts(groups) == [("dense", 1)]
    with pytest.raises(ValueError, match="in two groups: .*kernel"):
        layer_groups(model, patterns=[("one", "dense"), ("two", "tied")])


# --- patterns ---


def test_patterns_make_the_groups_in_their_order():
    patterns = [("low", r"conv|norm"), ("high", r"hidden|logits")]
    groups = layer_groups(tiny.convnet(), patterns=patterns)
    assert counts(groups) == [("low", 6), ("high", 4)]
    groups = layer_groups(tiny.convnet(), patterns=patterns[::-1])
    assert counts(groups) == [("high", 4), ("low", 6)]


def test_patterns_match_the_path_below_the_model():
    model = keras.Sequential([tiny.bert(name="text"), keras.layers.Lambda(len)])
    groups = layer_groups(
        model,
        patterns=[
            ("attention", r"^text/transformer_layer_\d/self_attention_layer/"),
            ("rest", r"^text/(?!.*/self_attention_layer/)"),
        ],
    )
    assert counts(groups) == [("attention", 3 * 8), ("rest", 7 + 3 * 8)]


@pytest.mark.parametrize(
    "patterns, message",
    [
        ([("low", "conv|norm")], r"no pattern: \['hidden', 'logits'\]"),
        ([("a", "."), ("b", "conv")], r"match several: \[\"conv \['a', 'b'\]\"\]"),
        ([("a", "."), ("b", "attention")], r"'attention' of group 'b' matches no"),
        ([("a", "conv|norm"), ("a", "hidden|logits")], "the name 'a'"),
        ([], "match no pattern"),
    ],
)
def test_patterns_must_cover_each_layer_once(patterns, message):
    with pytest.raises(ValueError, match=message):
        layer_groups(tiny.convnet(), patterns=patterns)


# --- models that cannot be grouped ---


def test_a_model_that_is_not_built_raises():
    with pytest.raises(ValueError, match="is not built.*Call the model on a batch"):
        layer_groups(keras.Sequential([keras.layers.Dense(2)]))


def test_a_model_without_weights_raises():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="has no weights"):
        layer_groups(model)


def test_an_object_that_is_not_a_layer_raises():
    with pytest.raises(TypeError, match="not list"):
        layer_groups([tiny.mlp()])


def test_groups_must_cover_the_model():
    model = tiny.mlp()
    groups = layer_groups(model)
    with pytest.raises(ValueError, match="In no group: .*dense_0/kernel"):
        LayerGroups(model, groups[1:])
    with pytest.raises(ValueError, match="in two groups: .*dense_0/kernel"):
        again = LayerGroup("again", groups[0].layers, groups[0].variables)
        LayerGroups(model, [*groups, again])


# --- the sequence ---


def test_groups_are_a_sequence_with_access_by_name():
    model = tiny.mlp()
    groups = layer_groups(model)
    assert len(groups) == 3 and list(groups) == [groups[i] for i in range(3)]
    assert groups["dense_1"] is groups[1] and groups[-1] is groups[2]
    assert groups[1:] == (groups[1], groups[2])
    assert groups.index(groups["dense_2"]) == 2
    assert "dense_1" in groups and groups[1] in groups and "dense" not in groups
    assert groups.model is model
    with pytest.raises(ValueError, match="No group has the name 'dense1'.*'dense_1'"):
        groups["dense1"]


def test_position_is_by_identity():
    model, other = tiny.mlp(), tiny.mlp()
    groups = layer_groups(model)
    assert groups.position(model.layers[2].bias) == 1
    with pytest.raises(ValueError, match="'dense_1/bias' is in no group"):
        groups.position(other.layers[2].bias)


def test_the_table_counts_parameters():
    model = tiny.convnet()
    groups = layer_groups(model)
    model.get_layer("conv").trainable = False  # the table shows later changes
    assert str(groups).splitlines() == [
        "group   layers  parameters  trainable",
        "-------------------------------------",
        "conv         1         112          0",
        "norm         1          16          8",
        "hidden       1          30         30",
        "logits       1          21         21",
        "-------------------------------------",
        "total        4         179         59",
    ]
    assert groups["norm"].num_parameters == 16
    assert len(groups["norm"].trainable_variables) == 2


# --- loading ---

RELOAD = """
import json, pathlib, sys
import keras, keras_cv, keras_hub
from keras_transfer.backbones import layer_groups
from tests.backbones import families
found = {}
for path in pathlib.Path(sys.argv[1]).iterdir():
    if path.suffix == ".json":
        model = keras.models.model_from_json(path.read_text())
    else:
        model = keras.saving.load_model(path)
    found[path.stem] = [
        [g.name, [x.name for x in g.layers], [list(v.shape) for v in g.variables]]
        for g in layer_groups(model)
    ]
print("FOUND" + json.dumps(found))
"""


def test_groups_are_the_same_after_loading_in_a_new_process(tmp_path, family):
    # Single families, one of each kind of network and of block names.
    names = ("albert", "gemma", "dinov2", "hgnet", "cv_densenet", "MobileNet")
    models = {name: family(name) for name in names}
    for name in ("dinov2", "hgnet"):
        # keras-hub puts the name of a backbone, if it has one, before the names of its
        # layers. A config always defines a name.
        models[name] = type(models[name]).from_config(models[name].get_config())
    models["task"] = tiny.bert_classifier()
    models["causal"] = hub_task("GPT2CausalLM", "gpt2", preprocessor=None)
    models["frozen"] = keras.Sequential(
        [FrozenBackbone(tiny.hub_resnet()), keras.layers.Dense(2)]
    )
    models["frozen"].build((None, 16, 16, 3))
    models["held"] = families.Holder(tiny.cv_resnet())
    models["held"](np.zeros((1, 16, 16, 3), "float32"))
    models["unknown"] = tiny.convnet()
    expected = {}
    for name, model in models.items():
        if model.count_params() > 400_000:  # the weights do not matter
            (tmp_path / f"{name}.json").write_text(model.to_json())
        else:
            model.save(tmp_path / f"{name}.keras")
        expected[name] = [
            [g.name, [x.name for x in g.layers], [list(v.shape) for v in g.variables]]
            for g in layer_groups(model)
        ]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.split("FOUND")[1])
    assert found == expected
