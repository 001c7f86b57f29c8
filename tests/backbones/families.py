"""A tiny instance of every backbone family that layer_groups supports."""

import keras

TEXT = dict(num_heads=2, hidden_dim=16, intermediate_dim=32)
WORDS = dict(vocabulary_size=64, max_sequence_length=12)
GROUPED = dict(num_query_heads=2, num_key_value_heads=1)
GROUPED |= dict(vocabulary_size=64, hidden_dim=16, intermediate_dim=32)
HUB_RESNET = dict(
    input_conv_filters=[64],
    input_conv_kernel_sizes=[3],
    stackwise_num_filters=[64, 64],
    stackwise_num_blocks=[2, 1],
    stackwise_num_strides=[1, 2],
    image_shape=(16, 16, 3),
)
HUB_MOBILENET = dict(
    stackwise_expansion=[[1], [2, 2], [3]],
    stackwise_num_blocks=[1, 2, 1],
    stackwise_num_filters=[[8], [8, 8], [16]],
    stackwise_kernel_size=[[3], [3, 3], [5]],
    stackwise_num_strides=[[1], [2, 1], [2]],
    stackwise_se_ratio=[[0.25], [None, None], [0.25]],
    stackwise_activation=[["relu"], ["relu", "relu"], ["hard_swish"]],
    stackwise_padding=[[1], [1, 1], [2]],
    output_num_filters=24,
    input_activation="hard_swish",
    output_activation="hard_swish",
    input_num_filters=8,
    image_shape=(32, 32, 3),
    depthwise_filters=8,
    depthwise_stride=2,
    depthwise_residual=False,
    last_layer_filter=16,
)
HUB_EFFICIENTNET = dict(
    stackwise_width_coefficients=[1.0] * 3,
    stackwise_depth_coefficients=[1.0] * 3,
    stackwise_kernel_sizes=[3, 3, 3],
    stackwise_num_repeats=[1, 2, 1],
    stackwise_input_filters=[8, 8, 8],
    stackwise_output_filters=[8, 8, 8],
    stackwise_expansion_ratios=[1, 4, 4],
    stackwise_strides=[1, 2, 1],
    stackwise_squeeze_and_excite_ratios=[0, 0.25, 0.25],
    stackwise_block_types=["fused", "unfused", "v1"],
    stackwise_force_input_filters=[0, 0, 0],
    stackwise_nores_option=[False] * 3,
    min_depth=8,
    include_stem_padding=True,
    use_depth_divisor_as_min_depth=False,
    cap_round_filter_decrease=False,
    stem_conv_padding="same",
    batch_norm_momentum=0.9,
    batch_norm_epsilon=1e-5,
    projection_activation=None,
    image_shape=(32, 32, 3),
)
CV_RESNET = dict(
    stackwise_filters=[64, 64],
    stackwise_blocks=[2, 2],
    stackwise_strides=[1, 2],
    include_rescaling=False,
    input_shape=(16, 16, 3),
)
CV_MOBILENET = dict(
    stackwise_expansion=[1, 2, 3],
    stackwise_filters=[8, 8, 16],
    stackwise_kernel_size=[3, 3, 5],
    stackwise_stride=[2, 2, 1],
    stackwise_se_ratio=[0.25, None, 0.25],
    stackwise_activation=["relu", "relu", "hard_swish"],
    include_rescaling=False,
    input_shape=(32, 32, 3),
)
CV_EFFICIENTNET = dict(
    width_coefficient=1.0,
    depth_coefficient=1.0,
    stackwise_kernel_sizes=[3, 3, 3],
    stackwise_num_repeats=[1, 2, 1],
    stackwise_input_filters=[8, 8, 8],
    stackwise_output_filters=[8, 8, 8],
    stackwise_expansion_ratios=[1, 4, 4],
    stackwise_squeeze_and_excite_ratios=[0, 0.25, 0.25],
    stackwise_strides=[1, 2, 1],
    stackwise_conv_types=["fused", "fused", "unfused"],
    include_rescaling=False,
    input_shape=(32, 32, 3),
)

HUB = {
    "bert": ("BertBackbone", dict(num_layers=3) | TEXT | WORDS),
    "bert_of_one": ("BertBackbone", dict(num_layers=1) | TEXT | WORDS),
    "roberta": ("RobertaBackbone", dict(num_layers=3) | TEXT | WORDS),
    "distilbert": ("DistilBertBackbone", dict(num_layers=3) | TEXT | WORDS),
    "albert": (
        "AlbertBackbone",
        dict(num_layers=4, num_groups=2, num_inner_repetitions=1, embedding_dim=8)
        | TEXT
        | WORDS,
    ),
    "albert_of_one": (
        "AlbertBackbone",
        dict(num_layers=4, num_groups=1, num_inner_repetitions=2, embedding_dim=8)
        | TEXT
        | WORDS,
    ),
    "deberta_v3": (
        "DebertaV3Backbone",
        dict(num_layers=3, bucket_size=4) | TEXT | WORDS,
    ),
    "xlm_roberta": ("XLMRobertaBackbone", dict(num_layers=3) | TEXT | WORDS),
    "electra": (
        "ElectraBackbone",
        dict(num_layers=3, vocab_size=64, embedding_dim=8, max_sequence_length=12)
        | TEXT,
    ),
    "xlnet": ("XLNetBackbone", dict(num_layers=3, vocabulary_size=64) | TEXT),
    "esm": ("ESM2Backbone", dict(num_layers=3, vocabulary_size=64) | TEXT),
    "gpt2": ("GPT2Backbone", dict(num_layers=3) | TEXT | WORDS),
    "llama": ("LlamaBackbone", dict(num_layers=3) | GROUPED),
    "gemma": ("GemmaBackbone", dict(num_layers=3, head_dim=8) | GROUPED),
    "bart": ("BartBackbone", dict(num_layers=2) | TEXT | WORDS),
    "t5": ("T5Backbone", dict(num_layers=2, vocabulary_size=64) | TEXT),
    "whisper": (
        "WhisperBackbone",
        dict(num_layers=2, vocabulary_size=64, num_mels=8)
        | dict(max_encoder_sequence_length=12, max_decoder_sequence_length=12)
        | TEXT,
    ),
    "hub_resnet": ("ResNetBackbone", dict(block_type="basic_block") | HUB_RESNET),
    "hub_resnet_v2": (
        "ResNetBackbone",
        dict(block_type="bottleneck_block", use_pre_activation=True) | HUB_RESNET,
    ),
    "hub_densenet": (
        "DenseNetBackbone",
        dict(stackwise_num_repeats=[2, 2], compression_ratio=0.5, growth_rate=4)
        | dict(image_shape=(32, 32, 3)),
    ),
    "hub_vgg": (
        "VGGBackbone",
        dict(stackwise_num_repeats=[2, 1, 1], stackwise_num_filters=[4, 8, 8])
        | dict(image_shape=(16, 16, 3)),
    ),
    "hub_mobilenet": ("MobileNetBackbone", HUB_MOBILENET),
    "hub_efficientnet": ("EfficientNetBackbone", HUB_EFFICIENTNET),
    "hub_vit": (
        "ViTBackbone",
        dict(image_shape=(16, 16, 3), patch_size=(8, 8), num_layers=3)
        | dict(num_heads=2, hidden_dim=16, mlp_dim=32),
    ),
    "dinov2": (
        "DINOV2Backbone",
        dict(image_shape=(28, 28, 3), position_embedding_shape=(28, 28, 3))
        | dict(patch_size=14, num_layers=2)
        | TEXT,
    ),
    "swin": (
        "SwinTransformerBackbone",
        dict(image_shape=(32, 32, 3), patch_size=4, window_size=4)
        | dict(embed_dim=8, depths=[2, 1], num_heads=[2, 2]),
    ),
    "hgnet": (
        "HGNetV2Backbone",
        dict(depths=[1, 2], hidden_sizes=[8, 16], embedding_size=8)
        | dict(stem_channels=[3, 8, 8], hidden_act="relu", image_shape=(64, 64, 3))
        | dict(stackwise_stage_filters=[[8, 8, 16, 1, 1, 3], [16, 8, 32, 2, 2, 3]])
        | dict(apply_downsample=[False, True])
        | dict(use_lightweight_conv_block=[False, True])
        | dict(use_learnable_affine_block=False),
    ),
}
CV = {
    "cv_resnet": ("ResNetBackbone", dict(block_type="basic_block") | CV_RESNET),
    "cv_resnet_v2": ("ResNetV2Backbone", CV_RESNET),
    "cv_densenet": (
        "DenseNetBackbone",
        dict(stackwise_num_repeats=[2, 2], compression_ratio=0.5, growth_rate=4)
        | dict(include_rescaling=False, input_shape=(32, 32, 3)),
    ),
    "cv_mobilenet_v3": ("MobileNetV3Backbone", CV_MOBILENET),
    "cv_efficientnet_v2": ("EfficientNetV2Backbone", CV_EFFICIENTNET),
}
APPLICATIONS = {
    "ResNet50": dict(input_shape=(32, 32, 3)),
    "ResNet50V2": dict(input_shape=(32, 32, 3)),
    "DenseNet121": dict(input_shape=(32, 32, 3)),
    "VGG16": dict(input_shape=(32, 32, 3), include_top=True, classes=3),
    "InceptionV3": dict(input_shape=(75, 75, 3)),
    "MobileNetV2": dict(input_shape=(32, 32, 3), alpha=0.35),
    "EfficientNetB0": dict(input_shape=(32, 32, 3)),
    "MobileNet": dict(input_shape=(32, 32, 3), alpha=0.25),
    "MobileNetV3Small": dict(input_shape=(32, 32, 3)),
}
NAMES = [*HUB, *CV, *APPLICATIONS]


def build(name, **changes):
    """Return a new backbone of the family, without a download.

    `changes` replace settings of a model of keras-hub.
    """
    if name in HUB:
        import keras_hub

        model, config = HUB[name]
        return getattr(keras_hub.models, model)(**config | changes)
    if name in CV:
        import keras_cv

        model, config = CV[name]
        return getattr(keras_cv.models, model)(**config)
    config = dict(include_top=False, weights=None) | APPLICATIONS[name]
    return getattr(keras.applications, name)(**config)


@keras.saving.register_keras_serializable(package="keras_transfer_tests")
class Holder(keras.Model):
    """A subclassed model with a backbone and a Dense head as attributes."""

    def __init__(self, backbone, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.pool = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(4, name="hidden")
        self.logits = keras.layers.Dense(2, name="logits")

    def call(self, inputs):
        return self.logits(self.hidden(self.pool(self.backbone(inputs))))

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return super().get_config() | {"backbone": backbone}

    @classmethod
    def from_config(cls, config):
        backbone = keras.saving.deserialize_keras_object(config.pop("backbone"))
        return cls(backbone, **config)
