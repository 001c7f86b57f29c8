"""MCD: the discrepancy of two heads on the target."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_transfer.models import MCD
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compute import tensors
from tests.contracts.compute import weight_gradients
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import logged
from tests.contracts.domain_contract import LOGITS
from tests.contracts.domain_contract import loss_of
from tests.contracts.domain_contract import seen
from tests.contracts.domain_contract import streams
from tests.models import paper


class TestMCD(DomainContract):
    kind = MCD

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(strength=0.5), streams(8, 5)
        source, target = seen(model, x).values()
        second = {
            name: array(model.second_head(each.features))
            for name, each in seen(model, x).items()
        }
        first = paper.cross_entropy(LABELS, source.outputs)
        other = paper.cross_entropy(LABELS, second["source"])
        apart = paper.softmax(target.outputs) - paper.softmax(second["target"])
        discrepancy = np.abs(apart).mean()
        found = float(loss_of(model, x, LABELS))
        assert found == pytest.approx(first + other - discrepancy, rel=1e-5)
        assert logged(model)["second_head_loss"] == pytest.approx(other, rel=1e-5)
        assert logged(model)["discrepancy_loss"] == pytest.approx(-discrepancy)

    def test_gradients_have_the_signs_of_the_paper(self):
        model = self.compiled(strength=0.3)
        x = tensors(streams())
        body, heads = model.feature_extractor, (model.label_head, model.second_head)

        def whole():
            return loss_of(model, x, LABELS, training=True)

        def labels():
            return sum(LOGITS(LABELS, head(body(x["source"]))) for head in heads)

        def discrepancy():
            p, q = (ops.softmax(head(body(x["target"]))) for head in heads)
            return ops.mean(ops.abs(p - q))

        for layer, factor in ((body, 0.3), (heads[0], -1.0), (heads[1], -1.0)):
            found, of_labels, apart = (
                weight_gradients(loss, layer.trainable_variables)
                for loss in (whole, labels, discrepancy)
            )
            pairs = zip(of_labels, apart, strict=True)
            assert_close(found, [a + factor * b for a, b in pairs], 1e-6)

    def test_sample_weights_reach_both_heads(self):
        model, x = self.compiled(strength=0.0), streams()
        weight = np.arange(8.0)
        x = tensors(x)
        outputs = model(x, training=False)
        model.compute_loss(x, tensors(LABELS), outputs, weight, training=False)
        second = array(model.second_head(outputs["features"]["source"]))
        expected = np.mean(weight * paper.surprise(LABELS, second))
        assert logged(model)["second_head_loss"] == pytest.approx(expected, rel=1e-5)


def seeded(seed):
    init = keras.initializers.GlorotUniform(seed=seed)
    return free_head(kernel_initializer=init)


def test_heads_with_the_same_weights_raise():
    for second in (None, seeded(1)):
        with pytest.raises(ValueError, match="same weights.*fixed seed"):
            MCD(extractor(), seeded(1), second_head=second)
    head = free_head()
    with pytest.raises(ValueError, match="same weights"):
        MCD(extractor(), head, second_head=head)
    MCD(extractor(), seeded(1), second_head=seeded(2))


def test_the_default_second_head_has_the_layers_of_the_first():
    head = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3)], name="label")
    model = MCD(extractor(), head)
    assert [x.shape for x in model.second_head.weights] == [
        x.shape for x in head.weights
    ]
    again = MCD.from_config(model.get_config())
    assert again.get_config() == model.get_config()


@pytest.mark.parametrize(
    "second, error, match",
    [
        (layers.Dense(2), ValueError, r"\(None, 2\).*\(None, 3\)"),
        (3, TypeError, "second head is a int"),
    ],
)
def test_wrong_second_heads_raise(second, error, match):
    with pytest.raises(error, match=match):
        MCD(extractor(), free_head(), second_head=second)


def test_batch_norm_of_the_heads_uses_both_domains():
    heads = [
        keras.Sequential([layers.BatchNormalization(momentum=0.0), layers.Dense(3)])
        for _ in range(2)
    ]
    model = MCD(extractor(), heads[0], second_head=heads[1], strength=1.0)
    x = streams()
    x["target"] += 4
    features = np.concatenate([model.feature_extractor(x[each]) for each in x])
    heads[1].set_weights(heads[0].get_weights())
    outputs = model(x, training=True)
    np.testing.assert_allclose(
        outputs["source"], outputs["compared"]["source"], rtol=0, atol=1e-6
    )
    for head in heads:
        norm = head.layers[0]
        np.testing.assert_allclose(norm.moving_variance, features.var(0), rtol=1e-4)
