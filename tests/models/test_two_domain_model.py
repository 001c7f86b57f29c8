"""TwoDomainModel: the common behavior of all methods, and wrong input."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer import models
from keras_transfer.data import domain_dataset
from keras_transfer.models import CDAN
from keras_transfer.models import DANN
from keras_transfer.models import ImportanceWeighting
from keras_transfer.models import MCC
from keras_transfer.models import MCD
from keras_transfer.models import MDD
from keras_transfer.models import VADA
from keras_transfer.models.two_domain_model import TwoDomainModel
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import logged
from tests.contracts.domain_contract import LOGITS
from tests.contracts.domain_contract import loss_of
from tests.contracts.domain_contract import seen
from tests.contracts.domain_contract import streams
from tests.models import paper

KINDS = [
    kind
    for kind in vars(models).values()
    if isinstance(kind, type) and issubclass(kind, TwoDomainModel)
]


def compiled(kind=DANN, body=extractor, **settings):
    model = kind(body(), free_head(), **{"strength": 0.5} | settings)
    model.compile(keras.optimizers.SGD(0.01), LOGITS, jit_compile=False)
    return model


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_arguments_match_the_constructor(kind):
    assert set(kind.arguments) == inspect.signature(kind).parameters.keys()


def test_batch_norm_normalizes_both_domains_together():
    norm = layers.BatchNormalization(momentum=0.0)
    model = compiled(body=lambda: keras.Sequential([keras.Input((6,)), norm]))
    x = streams()
    fit(model, x, LABELS, batch_size=8)
    both = np.concatenate([x["source"], x["target"]])
    assert_close(norm.moving_mean, both.mean(axis=0), 1e-6)


def test_a_batch_of_one_with_batch_norm_raises():
    def body(trains=True):
        norm = layers.BatchNormalization(trainable=trains)
        return keras.Sequential([keras.Input((6,)), norm])

    with pytest.raises(ValueError, match="one example of the source"):
        fit(compiled(body=body), streams(), LABELS, batch_size=1)
    frozen = compiled(body=lambda: body(trains=False))
    fit(frozen, streams(), LABELS, batch_size=1)


def test_sample_weights_affect_only_the_label_loss():
    model, x = compiled(), streams()
    weight = np.arange(8.0, dtype="float32")
    data = domain_dataset((x["source"], LABELS, weight), x["target"], 8, shuffle=False)
    found = model.evaluate(data, verbose=0, return_dict=True)
    surprise = paper.surprise(LABELS, seen(model, x)["source"].outputs)
    expected = np.mean(weight * surprise) + found["domain_loss"]
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_regularization_is_added_once():
    def body():
        dense = layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.1))
        return keras.Sequential([keras.Input((6,)), dense])

    model, x = compiled(body=body), streams()
    kernel = array(model.feature_extractor.weights[0])
    label = paper.cross_entropy(LABELS, seen(model, x)["source"].outputs)
    found = float(loss_of(model, x, LABELS))
    expected = label + logged(model)["domain_loss"] + 0.1 * np.sum(kernel**2)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["one output", "one-hot"])
def test_target_accuracy_of_other_labels(kind):
    x, rng = streams(), np.random.default_rng(1)
    single = kind == "one output"
    model = DANN(extractor(), layers.Dense(1 if single else 3), strength=0.5)
    family = "BinaryCrossentropy" if single else "CategoricalCrossentropy"
    model.compile(
        "sgd", getattr(keras.losses, family)(from_logits=True), jit_compile=False
    )
    y = {name: rng.integers(2, size=(8, 1)) for name in x}
    outputs = arrays(run(model, x["target"]))[0]
    if single:
        expected = np.mean((outputs > 0) == y["target"])
    else:
        y = {name: np.eye(3)[each[:, 0]] for name, each in y.items()}
        expected = np.mean(outputs.argmax(1) == y["target"].argmax(1))
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found["target_accuracy"] == pytest.approx(expected)


@pytest.mark.slow
def test_validation_logs_target_accuracy_and_does_not_change_training():
    plain, shown = compiled(), compiled()
    shown.set_weights(plain.get_weights())
    both = {"source": LABELS, "target": LABELS[::-1]}
    fit(plain, streams(), LABELS, epochs=2)
    logs = fit(
        shown, streams(), LABELS, epochs=2, validation_data=(streams(), both)
    ).history
    assert len(logs["val_target_accuracy"]) == 2
    assert "target_accuracy" not in logs
    assert_close(shown.get_weights(), plain.get_weights())


def test_logits_with_a_loss_on_probabilities_raise():
    model = DANN(extractor(), free_head(), strength=0.5)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    with pytest.raises(ValueError, match="from_logits=True"):
        fit(model, streams(), LABELS)


@pytest.mark.parametrize(
    "body, label_head, error, match",
    [
        (
            lambda: keras.Sequential([keras.Input((4, 6)), layers.Conv1D(3, 2)]),
            lambda: layers.Dense(3),
            None,
            None,
        ),
        (
            lambda: keras.Sequential([keras.Input((1,)), layers.Reshape(5 * (1,))]),
            lambda: layers.Dense(3),
            ValueError,
            "axes",
        ),
        (extractor, lambda: layers.Reshape((5, 1)), ValueError, "one output for"),
        (extractor, lambda: 3, TypeError, "label_head is a int"),
        (lambda: layers.Dense(3), free_head, TypeError, "keras.Model"),
    ],
    ids=["tokens", "no vector", "head", "no layer", "no model"],
)
def test_wrong_feature_extractors_and_heads_raise(body, label_head, error, match):
    if error is None:
        assert DANN(body(), label_head()).width == 3  # pooled
        return
    with pytest.raises(error, match=match):
        DANN(body(), label_head())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_loss_that_is_not_finite_warns(epochs):
    model = DANN(extractor(), free_head(), strength=1.0)
    model.compile(keras.optimizers.SGD(1e30), LOGITS, jit_compile=False)
    with pytest.warns(RuntimeWarning, match="The loss is not finite"):
        model.fit(streams(), LABELS, batch_size=4, epochs=epochs, verbose=0)


@pytest.mark.parametrize("kind", [DANN, CDAN, VADA, ImportanceWeighting])
def test_a_domain_head_of_probabilities_raises(kind):
    head = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(1, "sigmoid")])
    with pytest.raises(ValueError, match="ends in the activation sigmoid"):
        kind(extractor(), free_head(), domain_head=head)


@pytest.mark.parametrize(
    "kind, argument", [(MCD, "second_head"), (MDD, "adversary")], ids=["MCD", "MDD"]
)
def test_heads_with_different_activations_raise(kind, argument):
    with pytest.raises(ValueError, match="end in linear and softmax"):
        kind(extractor(), free_head(), **{argument: layers.Dense(3, "softmax")})


def test_arguments_after_the_label_head_go_by_keyword():
    with pytest.raises(TypeError, match="positional arguments"):
        DANN(extractor(), free_head(), layers.Dense(1))


def softly(y, outputs):
    """A custom loss without a from_logits setting."""
    return keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True)


@pytest.mark.parametrize("loss", [[LOGITS], {"label": LOGITS}, softly])
def test_from_logits_is_read_from_all_forms_of_a_loss(loss):
    keras.utils.set_random_seed(0)
    model = MCC(extractor(), free_head())
    values = []
    for each in (LOGITS, loss):
        model.compile("sgd", each, jit_compile=False)
        found = model.evaluate(streams(), LABELS, verbose=0, return_dict=True)
        values.append(found["confusion_loss"])
    assert values[0] == values[1]


def test_a_loss_without_from_logits_and_a_head_without_activation_raise():
    head = keras.Sequential([layers.Dense(3), layers.Rescaling(1.0)])
    model = MCC(extractor(), head)
    model.compile("sgd", softly, jit_compile=False)
    with pytest.raises(ValueError, match="does not say whether"):
        fit(model, streams(), LABELS)


@pytest.mark.parametrize(
    ("head", "loss", "labels"),
    [
        (layers.Dense(1), "mse", np.ones(8, "float32")),
        (layers.Dense(3, "sigmoid"), "binary_crossentropy", np.ones((8, 3), "float32")),
    ],
)
def test_labels_that_are_not_classes_have_no_target_accuracy(head, loss, labels):
    model = DANN(extractor(), head)
    model.compile("sgd", loss, jit_compile=False)
    with pytest.raises(ValueError, match="does not say whether|separate yes or no"):
        model.evaluate(streams(), {"source": labels, "target": labels}, verbose=0)


def test_means_are_over_examples_and_not_over_batches():
    model = DANN(extractor(), free_head())
    model.compile("sgd", LOGITS, jit_compile=False)
    found = [
        model.evaluate(
            streams(9), np.arange(9) % 3, batch_size=size, verbose=0, return_dict=True
        )
        for size in (8, 9)
    ]
    for name in ("domain_accuracy", "domain_loss"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5)


def test_inputs_named_like_the_domains_raise():
    x, y = (keras.Input((6,), name=name) for name in ("source", "target"))
    body = keras.Model({"source": x, "target": y}, layers.Add()([x, y]))
    with pytest.raises(ValueError, match="named 'source' and 'target'"):
        DANN(body, free_head())
