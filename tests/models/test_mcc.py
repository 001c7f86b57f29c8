"""MCC: the class confusion of the predictions on the target."""

import numpy as np
import pytest

from keras_transfer.models import MCC
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import logged
from tests.contracts.domain_contract import loss_of
from tests.contracts.domain_contract import seen
from tests.contracts.domain_contract import streams
from tests.models import paper


def confusion(z, temperature):
    """Return the loss of Jin et al., with loops instead of matrices."""
    p = paper.softmax(z / temperature)
    weight = 1 + np.exp(-paper.entropy(p))
    weight = len(p) * weight / weight.sum()
    c = np.array(
        [[np.sum(weight * p[:, i] * p[:, j]) for j in range(3)] for i in range(3)]
    )
    c /= c.sum(axis=1, keepdims=True)
    return (c.sum() - np.trace(c)) / 3


class TestMCC(DomainContract):
    kind = MCC
    replicas = "halves"

    @pytest.mark.parametrize("temperature", [2.5, 1.0])
    def test_loss_equals_the_paper(self, temperature):
        model = self.compiled(strength=3.0, temperature=temperature)
        x = streams(8, 5)
        source, target = (each.outputs for each in seen(model, x).values())
        penalty = confusion(target, temperature)
        expected = paper.cross_entropy(LABELS, source) + 3 * penalty
        assert float(loss_of(model, x, LABELS)) == pytest.approx(expected, rel=1e-5)
        assert logged(model)["confusion_loss"] == pytest.approx(penalty, rel=1e-5)


def test_a_temperature_of_zero_raises():
    with pytest.raises(ValueError, match="temperature=0"):
        MCC(extractor(), free_head(), temperature=0.0)
