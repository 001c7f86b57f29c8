"""Tiny models of all kinds for the tests, without downloads."""

import keras


def bert(num_layers=3, **kwargs):
    """Return a keras-hub BERT with 3 blocks of width 16 and a vocabulary of 64."""
    import keras_hub

    config = dict(
        vocabulary_size=64,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
        dropout=0.1,
    )
    return keras_hub.models.BertBackbone(num_layers=num_layers, **config | kwargs)


def whisper(seconds=1, **kwargs):
    """Return a keras-hub Whisper with 2 blocks of width 16 for sounds of `seconds`."""
    import keras_hub

    config = dict(
        vocabulary_size=32,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_encoder_sequence_length=100 * seconds,
        max_decoder_sequence_length=8,
    )
    return keras_hub.models.WhisperBackbone(**config | kwargs)


def bert_classifier(num_classes=3, **kwargs):
    """Return a keras-hub BERT Task without a preprocessor. Its inputs are token ids."""
    import keras_hub

    return keras_hub.models.BertTextClassifier(
        backbone=bert(**kwargs), num_classes=num_classes
    )


def hub_resnet(**kwargs):
    """Return a keras-hub ResNet with two stages for 16 x 16 RGB images."""
    import keras_hub

    config = dict(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],  # keras-hub needs 64 first
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    return keras_hub.models.ResNetBackbone(**config | kwargs)


def cv_resnet():
    """Return a keras-cv ResNet with two stages for 16 x 16 RGB images."""
    from keras_cv.models import ResNetBackbone

    return ResNetBackbone(
        stackwise_filters=[64, 64],
        stackwise_blocks=[2, 2],
        stackwise_strides=[1, 2],
        block_type="basic_block",
        include_rescaling=False,
        input_shape=(16, 16, 3),
    )


def applications_resnet():
    """Return a MobileNetV2, the smallest keras.applications model with BatchNorm.

    The weights are random.
    """
    return keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None
    )


def convnet(num_classes=3):
    """Return a small functional network: conv, batch norm, pool, dense, dense."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(6, activation="relu", name="hidden")(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs)


def mlp(widths=(5, 4, 3), num_features=6, seed=0):
    """Return a functional stack of Dense layers named dense_0, dense_1, ..."""
    inputs = keras.Input((num_features,))
    x = inputs
    for i, width in enumerate(widths):
        init = keras.initializers.GlorotUniform(seed=seed + i)
        act = "tanh" if i < len(widths) - 1 else None
        layer = keras.layers.Dense(
            width, activation=act, kernel_initializer=init, name=f"dense_{i}"
        )
        x = layer(x)
    return keras.Model(inputs, x)


def conv_blocks(num_blocks=2, filters=12, batch_norm=False, num_classes=3):
    """Return convolutions in numbered blocks, which LoRA adapts by default."""
    inputs = x = keras.Input((6, 6, 2))
    for i in range(num_blocks):
        conv = keras.layers.Conv2D(filters, 3, activation="tanh", name=f"block_{i}")
        x = conv(x)
        if batch_norm:
            x = keras.layers.BatchNormalization(name=f"block_{i}_norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs)
