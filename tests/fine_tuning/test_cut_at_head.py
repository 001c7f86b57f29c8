"""A model split below its head: the two parts, no side effects, and errors."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as kt
from keras_transfer.fine_tuning.cut_at_head import cut_at_head
from tests import tiny
from tests.contracts.compare import assert_close
from tests.contracts.compute import tensorflow_only


class Noise(layers.Layer):
    """Draw from the global random state, which Keras does not detect."""

    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


class Foreign(layers.Layer):
    """A layer with its own random generator, like the layers of keras-cv."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._random_generator = object()

    def call(self, x):
        return x


def cut_of(model):
    return cut_at_head(model, kt.layer_groups(model)[-1])


def stack(*above, below=()):
    """Return a nested backbone, with layers below it and between it and the logits."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            *below,
            tiny.mlp(widths=(5, 4)),
            *above,
            layers.Dense(3, name="logits"),
        ]
    )


def two_ways():
    """Return a model with two paths to its head, one with a random layer."""
    inputs = keras.Input((6,))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.Dense(4, name="second")(x)
    both = [layers.Dropout(0.5)(x), layers.ReLU()(x)]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(both)))


def task():
    return tiny.bert_classifier(num_layers=1, dropout=0.0)


def tokens(count=2):
    ids = np.arange(8 * count).reshape(count, 8) % 60 + 1
    return dict(token_ids=ids, segment_ids=0 * ids, padding_mask=0 * ids + 1)


MODELS = {
    "nested": stack,
    "flat": tiny.convnet,
    "two ways": two_ways,
    "one group": lambda: tiny.mlp(widths=(3,)),
    "classifier": lambda: kt.models.TransferClassifier(tiny.convnet(), 3, dropout=0.5),
    "frozen": lambda: kt.models.TransferClassifier(
        kt.backbones.FrozenBackbone(tiny.mlp()), 2
    ),
    "task": task,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_make_the_model(name, tmp_path):
    model = MODELS[name]()
    groups = kt.layer_groups(model)
    parts = cut_at_head(model, groups[-1])
    x = tokens()
    if name != "task":
        x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    outputs = model(x)
    assert_close(parts.head(parts.body(x)), outputs, 1e-6)
    ids = [id(each) for each in (*parts.body.weights, *parts.head.weights)]
    assert sorted(ids) == sorted(map(id, model.weights))
    assert {id(v) for v in parts.head.weights} == {id(v) for v in groups[-1].variables}
    # The split calls the layers again. The saved model must not contain these calls.
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert_close(again(x), outputs, 1e-6)


def test_features_are_pooled_and_the_dropout_stays_in_the_head():
    model = kt.models.TransferClassifier(tiny.convnet(), 3, dropout=0.5)
    pooled = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)]),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.ReLU(),
            layers.Dense(3),
        ]
    )
    for each in (model, pooled):
        body, head = cut_of(each)
        assert len(body.output_shape) == 2
        assert "Dropout" in [type(layer).__name__ for layer in head.layers]


def test_a_model_with_two_feature_tensors_is_split():
    body, head = cut_of(two_ways())
    assert len(body.outputs) == 2 and len(head.inputs) == 2


def test_regularizing_layers_below_the_head_are_not_augmentation():
    backbone = keras.Sequential(
        [
            keras.Input((6,)),
            layers.GaussianNoise(0.1),
            layers.Dense(4),
            layers.Dropout(0.5),
        ]
    )
    model = keras.Sequential([keras.Input((6,)), backbone, layers.Dense(3)])
    assert cut_of(model).body.count_params() == 28


def residual():
    inputs = keras.Input((6,))
    x = layers.Dense(6, name="below")(inputs)
    head = layers.Dense(6, name="head")(x)
    model = keras.Model(inputs, layers.Dense(6, name="above")(head))
    return model, kt.layer_groups(model)["head"]


def masked():
    inputs = keras.Input((5,))
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = layers.LSTM(4, return_sequences=True)(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def masked_inside():
    inputs = keras.Input((5,))
    body = keras.Model(inputs, layers.Embedding(9, 4, mask_zero=True)(inputs))
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(3)(layers.LSTM(4)(body(inputs))))


class Auxiliary(layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.mean(x))
        return x


def with_loss(*layer):
    inner = keras.Sequential([keras.Input((6,)), *layer, layers.Dense(4)], name="body")
    return keras.Sequential([keras.Input((6,)), inner, layers.Dense(3)])


def halved():
    inner = tiny.mlp(widths=(5, 4))
    model = keras.Sequential([keras.Input((6,)), inner])
    return model, kt.layer_groups(model, [("a", "dense_0"), ("b", "dense_1")])["b"]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(4), layers.Dense(3)

    def call(self, x):
        return self.out(self.hidden(x))


def subclassed():
    model = Subclassed()
    model(np.ones((1, 6)))
    return model


def forked():
    inputs = keras.Input((6,))
    x = layers.Dense(4)(inputs)
    return keras.Model(inputs, [layers.Dense(1)(x), layers.Dense(2)(x)])


def named():
    inputs = keras.Input((4,))
    return keras.Model(inputs, {"a": layers.Dense(3)(layers.Dense(5)(inputs))})


def images(*augmenting):
    backbone = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)])
    below = [keras.Sequential(augmenting), backbone, layers.Flatten(), layers.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 3)), *below])


@pytest.mark.parametrize(
    "make, message",
    [
        (subclassed, "not functional"),
        (forked, "several outputs"),
        (named, "in a dictionary"),
        (residual, "above the head"),
        (halved, "only a part of the head"),
        (masked, "Keras mask"),
        (masked_inside, "Keras mask"),
        (lambda: with_loss(layers.ActivityRegularization(l2=0.1)), "their own losses"),
        (lambda: with_loss(layers.Dense(5, activity_regularizer="l2")), "own losses"),
        (lambda: with_loss(Auxiliary()), "add their own losses"),
        (lambda: images(layers.RandomFlip(name="flip")), r"\['flip'\] .* at random"),
        (lambda: stack(below=[Noise(name="noise")]), r"\['noise'\] .* at random"),
        (lambda: stack(below=[Foreign(name="cv")]), r"\['cv'\] .* at random"),
    ],
)
def test_models_that_cannot_be_split_raise_with_the_reason(make, message):
    model = make()
    model, head = model if isinstance(model, tuple) else (model, None)
    with pytest.raises(ValueError, match=message):
        cut_at_head(model, head or kt.layer_groups(model)[-1])


def test_the_check_of_layers_below_the_head_does_not_change_them():
    normalization = layers.BatchNormalization()
    model = with_loss(normalization, layers.Dropout(0.5))
    before = model.get_weights(), model.losses
    cut_at_head(model, kt.layer_groups(model)[-1])
    assert_close(model.get_weights(), before[0])
    assert model.losses == before[1] == []


def test_a_kernel_regularizer_below_the_head_is_allowed():
    body, _ = cut_of(with_loss(layers.Dense(5, kernel_regularizer="l2")))
    assert body.outputs[0].shape == (None, 4)


def test_a_custom_layer_above_the_backbone_stays_in_the_head():
    body, head = cut_of(stack(Noise(name="noise")))
    assert "noise" in [layer.name for layer in head.layers]


@tensorflow_only("the layers of keras_cv are")
def test_a_random_layer_of_keras_cv_is_detected():
    keras_cv = pytest.importorskip("keras_cv")
    with pytest.raises(ValueError, match="at random"):
        cut_of(images(keras_cv.layers.RandomFlip()))
