"""CDAN: the domain head gets the products of features and predictions."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.models import CDAN
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
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


class TestCDAN(DomainContract):
    kind = CDAN

    @pytest.mark.parametrize("entropy", [False, True])
    def test_loss_equals_the_paper(self, entropy):
        model, x = self.compiled(strength=0.5, entropy=entropy), streams(8, 5)
        logits, weights = {}, {}
        for name, each in seen(model, x).items():
            p = paper.softmax(each.outputs)
            products = np.stack(
                [np.outer(f, g).ravel() for f, g in zip(each.features, p, strict=True)]
            )
            logits[name] = array(model.domain_head(products))
            weights[name] = 1 + np.exp(-paper.entropy(p)) if entropy else 1.0
        domain = paper.domain_loss(
            logits["source"], logits["target"], weights["source"], weights["target"]
        )
        label = paper.cross_entropy(LABELS, seen(model, x)["source"].outputs)
        found = float(loss_of(model, x, LABELS))
        assert found == pytest.approx(label + domain, rel=1e-5)
        assert logged(model)["domain_loss"] == pytest.approx(domain, rel=1e-5)

    @pytest.mark.parametrize("entropy", [False, True])
    def test_no_gradient_of_the_domains_flows_through_the_predictions(self, entropy):
        model = self.compiled(strength=5.0, entropy=entropy)
        x = tensors(streams())

        def whole():
            return loss_of(model, x, LABELS, training=True)

        def label():
            return LOGITS(LABELS, model(x["source"], training=True))

        head = model.label_head.trainable_variables
        found, expected = (weight_gradients(loss, head) for loss in (whole, label))
        assert_close(found, expected, 1e-6)


class TestCDANE(DomainContract):
    """With entropy, the weights are normalized over a batch."""

    kind = CDAN
    settings = {"entropy": True}
    replicas = "halves"


def wide():
    body = keras.Sequential([keras.Input((6,)), layers.Dense(1400)])
    model = CDAN(body, free_head(), strength=1.0)
    model.compile(keras.optimizers.SGD(0.01), LOGITS, jit_compile=False)
    return model


def test_many_products_are_reduced_by_fixed_random_maps(tmp_path):
    model, x = wide(), streams()
    first, second = (array(each.kernel) for each in model.random_maps)
    assert first.shape == (1400, 1024) and second.shape == (3, 1024)
    assert abs(first.mean()) < 0.01 and abs(first.std() - 1) < 0.01
    logits = []
    for each in seen(model, x).values():
        p = paper.softmax(each.outputs)
        products = (each.features @ first) * (p @ second) / 32
        logits.append(array(model.domain_head(products)))
    loss_of(model, x, LABELS)
    expected = paper.domain_loss(*logits)
    assert logged(model)["domain_loss"] == pytest.approx(expected, rel=1e-4)
    # Training and unfreezing do not change them, and a loaded model has the same.
    model.trainable = False
    model.trainable = True
    fit(model, x, LABELS)
    assert_close([each.kernel for each in model.random_maps], [first, second])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close([each.kernel for each in again.random_maps], [first, second])
    assert_close(run(again, x)["compared"], run(model, x)["compared"], 1e-5)


def test_up_to_4096_products_are_used_without_random_maps():
    body = keras.Sequential([keras.Input((6,)), layers.Dense(1365)])
    assert CDAN(body, free_head()).random_maps is None


def test_one_output_raises():
    with pytest.raises(ValueError, match="CDAN needs one output for each class, 2 or"):
        CDAN(extractor(), layers.Dense(1))
