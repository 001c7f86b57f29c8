"""DAN: kernels on the features and on the outputs."""

import numpy as np
import pytest

from keras_transfer.models import DAN
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import logged
from tests.contracts.domain_contract import loss_of
from tests.contracts.domain_contract import seen
from tests.contracts.domain_contract import streams
from tests.models import paper


def mmd(source, target):
    """Return the unbiased estimate of Gretton et al., computed pair by pair."""
    rows = np.concatenate([source, target]).astype("float64")
    n = len(source)
    d = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    off = ~np.eye(len(rows), dtype=bool)
    scales = (0.25, 0.5, 1.0, 2.0, 4.0)
    k = np.mean([np.exp(-d / (c * d[off].mean())) for c in scales], axis=0)
    within = k[:n, :n][off[:n, :n]].mean() + k[n:, n:][off[n:, n:]].mean()
    return within - 2 * k[:n, n:].mean()


class TestDAN(DomainContract):
    kind = DAN
    whole = True  # for all that only add a statistic of a batch
    replicas = "halves"

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(strength=3.0), streams(8, 5)
        source, target = seen(model, x).values()
        penalty = mmd(source.features, target.features)
        penalty += mmd(source.outputs, target.outputs)
        expected = paper.cross_entropy(LABELS, source.outputs) + 3 * penalty
        assert float(loss_of(model, x, LABELS)) == pytest.approx(expected, rel=1e-5)
        assert logged(model)["mmd_loss"] == pytest.approx(penalty, rel=1e-4)
