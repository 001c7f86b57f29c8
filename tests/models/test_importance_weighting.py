"""ImportanceWeighting: each source example is weighted by its odds in the target."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.analysis import DomainOverlapWarning
from keras_transfer.models import ImportanceWeighting
from tests.contracts.compare import array
from tests.contracts.compare import arrays
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


class TestImportanceWeighting(DomainContract):
    kind = ImportanceWeighting
    replicas = "halves"

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(), streams(8, 5)
        source, target = seen(model, x).values()
        z = [array(model.domain_head(each.features)) for each in (source, target)]
        odds = np.exp(z[0][:, 0])
        w = odds / odds.mean()
        domain = paper.domain_loss(*z)
        weighted = np.mean(w * paper.surprise(LABELS, source.outputs))
        found = float(loss_of(model, x, LABELS, training=True))
        assert found == pytest.approx(weighted + domain, rel=1e-5)
        size = w.sum() ** 2 / (8 * np.sum(w**2))
        assert logged(model)["effective_sample_size"] == pytest.approx(size, rel=1e-5)
        # The loss on held-out data has no weights.
        found = float(loss_of(model, x, LABELS))
        expected = paper.cross_entropy(LABELS, source.outputs) + domain
        assert found == pytest.approx(expected, rel=1e-5)

    def test_only_the_weighted_label_loss_trains_the_features(self):
        model = self.compiled()
        x = tensors(streams())
        body = model.feature_extractor
        odds = np.exp(array(model.domain_head(body(x["source"])))[:, 0])

        def whole():
            return loss_of(model, x, LABELS, training=True)

        def label():
            outputs = model.label_head(body(x["source"]))
            return LOGITS(LABELS, outputs, odds / odds.mean())

        found, expected = (
            weight_gradients(loss, body.trainable_variables) for loss in (whole, label)
        )
        assert_close(found, expected, 1e-6)

    def test_sample_weights_multiply_the_weights(self):
        model, x = self.compiled(), tensors(streams())
        own = np.arange(8.0, dtype="float32")
        outputs = model(x, training=True)
        both = model.compute_loss(x, LABELS, outputs, own, training=True)
        source, target = seen(model, x).values()
        z = [array(model.domain_head(each.features)) for each in (source, target)]
        odds = np.exp(z[0][:, 0])
        weighted = own * odds / odds.mean() * paper.surprise(LABELS, source.outputs)
        expected = weighted.mean() + paper.domain_loss(*z)
        assert float(both) == pytest.approx(expected, rel=1e-5)


def fitted(target_mean, epochs, rate=0.02):
    """Train on two Gaussians, and return the model, the source and the history."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = {
        "source": rng.normal(size=(256, 1)).astype("float32"),
        "target": rng.normal(target_mean, 1.0, size=(256, 1)).astype("float32"),
    }
    body = keras.Sequential([keras.Input((1,)), layers.Dense(8, "tanh")])
    model = ImportanceWeighting(body, layers.Dense(2), domain_head=layers.Dense(1))
    model.compile(keras.optimizers.Adam(rate), LOGITS, jit_compile=False)
    y = (x["source"][:, 0] > 0).astype(int)
    history = model.fit(x, y, batch_size=64, epochs=epochs, verbose=0).history
    return model, x["source"], history


@pytest.mark.slow
def test_weights_are_close_to_the_ratio_of_the_densities():
    model, x, history = fitted(1.0, epochs=20)
    logits = array(model.domain_head(model.feature_extractor(x)))[:, 0]
    true = x[:, 0] - 0.5  # log N(x; 1, 1) / N(x; 0, 1)
    assert np.corrcoef(logits, true)[0, 1] > 0.95
    assert np.abs(logits - true).mean() < 0.5
    # For the true weights exp(x - 1/2), the value is 1 / e = 0.37.
    assert 0.25 < history["effective_sample_size"][-1] < 0.6


@pytest.mark.slow
def test_equal_domains_have_weights_of_one():
    _, _, history = fitted(0.0, epochs=10)
    assert history["effective_sample_size"][-1] > 0.9
    assert 0.4 < history["domain_accuracy"][-1] < 0.65


@pytest.mark.slow
def test_domains_without_overlap_warn_in_each_epoch():
    with pytest.warns(DomainOverlapWarning, match="hardly overlap") as found:
        model, _, history = fitted(9.0, epochs=14, rate=0.2)
    assert history["domain_accuracy"][-1] > 0.95
    loud = [each for each in found if each.category is DomainOverlapWarning]
    epochs = np.array(history["domain_accuracy"]) > 0.95
    assert len(loud) == epochs.sum()
    # The last epoch has warned already, so an evaluation does not warn again.
    model.evaluate(np.zeros((4, 1)), np.zeros(4), verbose=0)


def test_a_small_effective_sample_size_warns():
    model = ImportanceWeighting(extractor(), free_head(), domain_head=layers.Dense(1))
    model.domain_head.set_weights([np.full((5, 1), 60.0), np.zeros(1)])
    model.compile(keras.optimizers.SGD(0.0), LOGITS, jit_compile=False)
    x = {"source": streams(64)["source"], "target": streams(64)["source"]}
    with pytest.warns(DomainOverlapWarning, match="effective sample size is"):
        history = model.fit(x, np.arange(64) % 3, batch_size=64, verbose=0).history
    assert history["effective_sample_size"][0] < 0.1
    assert np.isfinite(arrays(model.weights[0])[0]).all()


def test_sample_weights_may_be_a_column():
    keras.utils.set_random_seed(0)
    model = ImportanceWeighting(extractor(), free_head())
    model.compile("sgd", LOGITS, jit_compile=False)
    x, given = streams(), np.arange(8, dtype="float32")
    outputs = model(x, training=True)
    losses = [
        float(model.compute_loss(x, LABELS, outputs, tensors(weights)))
        for weights in (given, given[:, None])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
