"""block_name: the naming schemes for the numbered blocks of networks."""

import keras
import pytest

from keras_transfer.backbones import layer_groups
from keras_transfer.backbones.block_names import block_name

KERAS = {
    "transformer_layer_3": "transformer_layer_3",
    "stack2_block1_1_conv": "stack2_block1",
    "conv4_block2_1_conv": "conv4_block2",
    "block2a_expand": "block2a",
    "block_1_0": "block_1_0",
    "stage1_unit2_conv1": "stage1_unit2",
    "convnext_tiny_stage_0_block_1_depthwise_conv": "convnext_tiny_stage_0_block_1",
    "encoder_layer_0_output_dense": "encoder_layer_0",
    "layers_0_blocks_1_attn": "layers_0_blocks_1",
    "blocks_0": "blocks_0",
    "separable_conv_2_bn_normal_left5_11": "cell_11",  # NASNet
    "adjust_bn_reduce_4": "cell_reduce_4",
}
PORTED = {
    "blocks.0.attn": "blocks.0",  # timm's ViT
    "blocks.0.rel_pos_embed": "blocks.0",
    "blocks.0.1.conv_pw": "blocks.0.1",  # timm's EfficientNet
    "stages.0.blocks.1.mlp.fc1": "stages.0.blocks.1",  # timm's ConvNeXt
    "stages.1.downsample.0": "stages.1",
    "layers.0.blocks.1.attn.qkv": "layers.0.blocks.1",  # Swin
    "block1.0.attn.q": "block1.0",  # PVT, SegFormer
    "s1.b2.conv1": "s1.b2",  # timm's RegNet
    "layer1.0.conv1": "layer1.0",  # torchvision's ResNet
    "layer1.0.downsample.0": "layer1.0",
    "layer1_0_conv1": "layer1_0",
    "features.1.0.block.5": "features.1.0",  # torchvision's ConvNeXt
    "features.3.conv.0.0": "features.3",  # torchvision's MobileNetV2
    "denseblock1.denselayer2.conv1": "denseblock1.denselayer2",
    "Mixed_5b.branch1x1.conv": "Mixed_5b",
    "encoder.layers.encoder_layer_0.mlp": "encoder.layers.encoder_layer_0",
    "_blocks.3._expand_conv": "_blocks.3",  # efficientnet_pytorch
    "visual.transformer.resblocks.3.mlp": "visual.transformer.resblocks.3",  # CLIP
    "bert.encoder.layer.11.output.dense": "bert.encoder.layer.11",  # Hugging Face
    "encoder.block.0.layer.1.DenseReluDense.wi": "encoder.block.0",  # its T5
    "encoder.stages.0.layers.1.layer.0.convolution": "encoder.stages.0.layers.1",
    "model.layers.0.self_attn.q_proj": "model.layers.0",
    "h.0.attn.c_attn": "h.0",  # its GPT-2
    "encoder_layer_._0": "encoder_layer_._0",  # its TensorFlow models
}
NO_BLOCK = [
    *("dense_1", "conv1", "batch_normalization_12", "fc2", "conv2d_3"),
    *("patch_embed1.proj", "stem.0.conv", "downsample_layers.0.0", "classifier.1"),
    *("embedding_layer_1", "mlp.0", "features.3"),
]


@pytest.mark.parametrize("names", [KERAS, PORTED])
def test_the_block_is_read_from_the_name(names):
    assert {name: block_name(name) for name in names} == names


def test_other_numbers_are_not_blocks():
    assert [block_name(name) for name in NO_BLOCK] == [None] * len(NO_BLOCK)


def test_a_bare_number_is_a_block_only_with_layers_inside():
    assert block_name("blocks.0.1", whole=True) == "blocks.0.1"
    assert block_name("blocks.0.1") == "blocks.0"  # a convolution in a Sequential
    assert block_name("3", whole=True) == "3"
    assert block_name("3") is None


def network(names):
    """Return convolutions of these names in a row, and a Dense head."""
    inputs = x = keras.Input((8, 8, 3))
    for name in names:
        x = keras.layers.Conv2D(2, 1, name=name)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="fc")(x))


def test_a_ported_transformer():
    model = network(
        ["patch_embed.proj", "blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "norm"]
    )
    groups = layer_groups(model)
    assert groups.names == ["stem", "blocks.0", "blocks.1", "head"]
    assert [len(group.layers) for group in groups] == [1, 2, 2, 1]


def test_a_ported_convolutional_network():
    names = ["stem.0", "stages.0.blocks.0.dw", "stages.0.blocks.0.pw"]
    names += ["stages.0.blocks.1.dw", "downsample_layers.1.0", "stages.1.blocks.0.dw"]
    groups = layer_groups(network(names))
    assert groups.names == [
        "stem",
        "stages.0.blocks.0",
        "stages.0.blocks.1",
        "stages.1.blocks.0",
        "head",
    ]
    assert len(groups["stages.0.blocks.1"].layers) == 2  # with the downsampling


def test_a_stage_of_blocks_is_opened():
    def stage(name):
        blocks = [
            keras.Sequential([keras.layers.Conv2D(2, 1)], name=str(i)) for i in range(2)
        ]
        return keras.Sequential(blocks, name=name)

    inputs = keras.Input((8, 8, 3))
    x = stage("layer2")(stage("layer1")(keras.layers.Conv2D(2, 1)(inputs)))
    model = keras.Model(inputs, x)
    names = ["stem", "layer1/0", "layer1/1", "layer2/0", "layer2/1"]
    assert layer_groups(model).names == names


@pytest.mark.slow
def test_the_cells_of_nasnet_are_its_blocks():
    model = keras.applications.NASNetMobile(
        (32, 32, 3), include_top=False, weights=None
    )
    cells = ["stem_1", "stem_2", *range(4), "reduce_4", *range(5, 9)]
    cells += ["reduce_8", *range(9, 13)]
    assert layer_groups(model).names == ["stem", *(f"cell_{each}" for each in cells)]
