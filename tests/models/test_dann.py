"""DANN: the losses and gradients of the domain head and the features."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.losses import DomainClassification
from keras_transfer.models import DANN
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


class TestDANN(DomainContract):
    kind = DANN
    representative = True

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(strength=0.5), streams(8, 5)
        loss = float(loss_of(model, x, LABELS))
        z = {name: array(model.domain_head(each)) for name, each in features(model, x)}
        domain = paper.domain_loss(z["source"], z["target"])
        outputs = seen(model, x)["source"].outputs
        # The strength changes only the gradient, not the value of the loss.
        assert loss == pytest.approx(paper.cross_entropy(LABELS, outputs) + domain)
        found = logged(model)
        assert found["domain_loss"] == pytest.approx(domain)
        right = (np.mean(z["source"] < 0) + np.mean(z["target"] >= 0)) / 2
        assert found["domain_accuracy"] == pytest.approx(right)

    def test_gradients_are_reversed_for_the_features_only(self):
        model = self.compiled(strength=2.0)
        x = tensors(streams())
        body = model.feature_extractor
        self.teach(model, x)

        def whole():
            return loss_of(model, x, LABELS, training=True)

        def label():
            return LOGITS(LABELS, model.label_head(body(x["source"])))

        def domain():
            pair = [model.domain_head(body(x[name])) for name in ("source", "target")]
            return DomainClassification()(*pair)

        def gradients(loss, layer):
            return weight_gradients(loss, layer.trainable_variables)

        assert_close(
            gradients(whole, model.label_head), gradients(label, model.label_head), 1e-6
        )
        assert_close(
            gradients(whole, model.domain_head),
            gradients(domain, model.domain_head),
            1e-6,
        )
        lead = max(0.0, 1 - float(domain()) / np.log(2))
        expected = [
            a - 2.0 * lead * b
            for a, b in zip(
                gradients(label, body), gradients(domain, body), strict=True
            )
        ]
        assert 0.1 < lead < 1
        assert_close(gradients(whole, body), expected, 1e-6)

    def teach(self, model, x):
        """Train the domain head alone, until it distinguishes the domains a little."""
        rows, labels = [np.concatenate(each) for each in zip(*self.rows(model, x))]
        head = keras.Sequential([model.domain_head])
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        head.compile(keras.optimizers.Adam(0.01), loss, run_eagerly=True)
        head.fit(rows, labels, epochs=20, verbose=0)

    def rows(self, model, x):
        for number, name in enumerate(("source", "target")):
            rows = array(model.feature_extractor(x[name]))
            yield rows, np.full((len(rows), 1), number, "float32")

    def test_features_do_not_outrun_the_domain_head(self):
        # A head that is worse than chance: features would only gain by being absurd.
        model, x = self.compiled(strength=1.0), tensors(streams())
        self.teach(model, x)
        last = model.domain_head.layers[-1]
        last.set_weights([-each for each in last.get_weights()])
        body = model.feature_extractor

        def whole():
            return loss_of(model, x, LABELS, training=True)

        def label():
            return LOGITS(LABELS, model.label_head(body(x["source"])))

        found, expected = (
            weight_gradients(each, body.trainable_variables) for each in (whole, label)
        )
        assert_close(found, expected, 1e-6)

    def test_longer_features_do_not_change_the_default_domain_head(self):
        head = self.compiled().domain_head
        rows = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
        assert_close(head(rows * 1000), head(rows), 1e-4)


def features(model, x):
    return [(name, model.feature_extractor(each)) for name, each in x.items()]


@pytest.mark.slow
def test_the_domain_head_cannot_distinguish_the_trained_features():
    # The first axis separates the classes, and the second axis the domains.
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=128)
    xs, xt = (
        np.stack([2.0 * labels - 1, np.full(128, shift)], 1)
        + rng.normal(0, 0.3, (128, 2))
        for shift in (-1.0, 1.0)
    )
    found = {}
    for strength in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        body = keras.Sequential([keras.Input((2,)), layers.Dense(4, "tanh")])
        model = DANN(body, layers.Dense(2), strength=strength)
        model.compile(
            keras.optimizers.Adam(0.02), LOGITS, metrics=["accuracy"], jit_compile=False
        )
        history = model.fit(
            {"source": xs, "target": xt}, labels, batch_size=32, epochs=15, verbose=0
        ).history
        found[strength] = history["domain_accuracy"][-1]
        assert history["accuracy"][-1] > 0.9
    assert found[0.0] > 0.95 > 0.8 > found[1.0]


def test_a_model_of_an_earlier_version_continues_without_the_lead():
    config = DANN(extractor(), free_head()).get_config()
    assert config["follows_lead"] and DANN.from_config(config).follows_lead
    del config["follows_lead"]
    assert not DANN.from_config(config).follows_lead


def test_a_given_domain_head_is_used():
    head = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(1)])
    model = DANN(extractor(), free_head(), domain_head=head)
    assert model.domain_head is head
    again = DANN.from_config(model.get_config())
    assert [v.shape for v in again.weights] == [v.shape for v in model.weights]


@pytest.mark.parametrize(
    "head, error, match",
    [
        (layers.Dense(2), ValueError, r"\(None, 2\).*Dense\(1\)"),
        ("dense", TypeError, "domain_head is a str"),
    ],
)
def test_wrong_domain_heads_raise(head, error, match):
    with pytest.raises(error, match=match):
        DANN(extractor(), free_head(), domain_head=head)
