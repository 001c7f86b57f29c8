"""DeepCORAL: the covariances of the outputs, compared with NumPy."""

import numpy as np
import pytest

from keras_transfer.models import DeepCORAL
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import logged
from tests.contracts.domain_contract import loss_of
from tests.contracts.domain_contract import seen
from tests.contracts.domain_contract import streams
from tests.models import paper


class TestDeepCORAL(DomainContract):
    kind = DeepCORAL
    replicas = "halves"

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(strength=30.0), streams(8, 5)
        source, target = (each.outputs for each in seen(model, x).values())
        difference = np.cov(source, rowvar=False) - np.cov(target, rowvar=False)
        penalty = np.sum(difference**2) / (4 * 3**2)
        expected = paper.cross_entropy(LABELS, source) + 30 * penalty
        assert float(loss_of(model, x, LABELS)) == pytest.approx(expected, rel=1e-5)
        assert logged(model)["coral_loss"] == pytest.approx(penalty, rel=1e-5)
