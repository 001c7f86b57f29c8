"""JAN: the joint kernel of features and probabilities."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.models import JAN
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import logged
from tests.contracts.domain_contract import loss_of
from tests.contracts.domain_contract import seen
from tests.contracts.domain_contract import streams
from tests.models import paper


def joint_mmd(source, target):
    """Return the estimate for two pairs (features, probabilities)."""
    n = len(source[0])
    x, p = (np.concatenate(each) for each in zip(source, target, strict=True))
    d, e = (((r[:, None] - r[None]) ** 2).sum(-1) for r in (x, p))
    off = ~np.eye(len(x), dtype=bool)
    scales = (0.25, 0.5, 1.0, 2.0, 4.0)
    k = np.mean([np.exp(-d / (c * d[off].mean())) for c in scales], axis=0)
    k = k * np.exp(-e / 1.68)
    within = k[:n, :n][off[:n, :n]].mean() + k[n:, n:][off[n:, n:]].mean()
    return within - 2 * k[:n, n:].mean()


class TestJAN(DomainContract):
    kind = JAN
    replicas = "halves"

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(strength=3.0), streams(8, 5)
        source, target = seen(model, x).values()
        pairs = [
            (each.features, paper.softmax(each.outputs)) for each in (source, target)
        ]
        penalty = joint_mmd(*pairs)
        expected = paper.cross_entropy(LABELS, source.outputs) + 3 * penalty
        assert float(loss_of(model, x, LABELS)) == pytest.approx(expected, rel=1e-5)
        assert logged(model)["joint_mmd_loss"] == pytest.approx(penalty, rel=1e-4)


def test_a_head_with_softmax_gives_the_same_loss():
    logits, soft = (
        JAN(extractor(), layers.Dense(3, activation), strength=2.0)
        for activation in (None, "softmax")
    )
    soft.set_weights(logits.get_weights())
    logits.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    soft.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    losses = [float(loss_of(each, streams(), LABELS)) for each in (logits, soft)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_one_output_raises():
    with pytest.raises(ValueError, match="JAN needs one output for each class, 2 or"):
        JAN(extractor(), layers.Dense(1))
