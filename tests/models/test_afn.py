"""AFN: the norm of the features increases by a step."""

import numpy as np
import pytest
from keras import ops

from keras_transfer.models import AFN
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


class TestAFN(DomainContract):
    kind = AFN
    whole = True  # as the only method here whose loss is a mean over examples

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(strength=3.0, step=0.5), streams(8, 5)
        source, target = seen(model, x).values()
        # (|f| - |f|' - 0.5)^2 = 0.25, for each domain.
        expected = paper.cross_entropy(LABELS, source.outputs) + 3 * 0.5
        assert float(loss_of(model, x, LABELS)) == pytest.approx(expected, rel=1e-5)
        norms = [np.linalg.norm(x.features, axis=1) for x in (source, target)]
        found = logged(model)
        assert found["norm_loss"] == pytest.approx(0.5)
        assert found["feature_norm"] == pytest.approx(np.concatenate(norms).mean())

    def test_gradient_increases_the_norm_of_the_features(self):
        model = self.compiled(strength=3.0, step=0.5)
        x = tensors(streams())
        body = model.feature_extractor

        def whole():
            return loss_of(model, x, LABELS, training=True)

        def label():
            return LOGITS(LABELS, model.label_head(body(x["source"])))

        def length():
            return sum(ops.mean(ops.norm(body(each), axis=1)) for each in x.values())

        found, of_label, longer = (
            weight_gradients(loss, body.trainable_variables)
            for loss in (whole, label, length)
        )
        # The derivative of (|f| - |f|' - d)^2 by |f| is -2 d at |f| = |f|'.
        expected = [a - 3 * 2 * 0.5 * b for a, b in zip(of_label, longer, strict=True)]
        assert_close(found, expected, 1e-5)


def test_a_step_of_zero_raises():
    with pytest.raises(ValueError, match="step=0"):
        AFN(extractor(), free_head(), step=0.0)
