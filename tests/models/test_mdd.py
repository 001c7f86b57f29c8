"""MDD: the disparity of the label head and the adversary, with a margin."""

import keras
import numpy as np
import pytest

from keras_transfer.losses import MarginDisparity
from keras_transfer.models import MDD
from keras_transfer.models.mdd import at_chance
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


class TestMDD(DomainContract):
    kind = MDD

    @pytest.mark.parametrize("margin", [4.0, 2.0])
    def test_loss_equals_the_paper(self, margin):
        model, x = self.compiled(strength=0.5, margin=margin), streams(8, 5)
        source, target = seen(model, x).values()
        confirm, avoid = (
            (
                paper.softmax(array(model.adversary(each.features))),
                each.outputs.argmax(axis=1),
            )
            for each in (source, target)
        )
        picked = [p[np.arange(len(h)), h] for p, h in (confirm, avoid)]
        disparity = margin * -np.log(picked[0]).mean() - np.log(1 - picked[1]).mean()
        expected = paper.cross_entropy(LABELS, source.outputs) + disparity
        assert float(loss_of(model, x, LABELS)) == pytest.approx(expected, rel=1e-5)
        assert logged(model)["disparity_loss"] == pytest.approx(disparity, rel=1e-5)

    def test_gradients_have_the_signs_of_the_paper(self):
        model = self.compiled(strength=0.3)
        x = tensors(streams())
        body = model.feature_extractor
        # The adversary agrees with the label head on the source only.
        self.teach(model, x)

        def whole():
            return loss_of(model, x, LABELS, training=True)

        def label():
            return LOGITS(LABELS, model.label_head(body(x["source"])))

        def disparity():
            pairs = [
                (model.label_head(body(each)), model.adversary(body(each)))
                for each in x.values()
            ]
            return MarginDisparity(margin=4.0)(*pairs)

        def gradient(loss, layer):
            return weight_gradients(loss, layer.trainable_variables, "zero")

        lead = 1 - float(disparity()) / at_chance(4.0)
        assert 0.1 < lead < 1
        for layer, factor in (
            (body, -0.3 * lead),
            (model.label_head, 0.0),
            (model.adversary, 1.0),
        ):
            parts = zip(gradient(label, layer), gradient(disparity, layer), strict=True)
            expected = [a + factor * b for a, b in parts]
            assert_close(gradient(whole, layer), expected, 1e-5)

    def teach(self, model, x):
        """Train the adversary alone, until it has a lead."""
        model.feature_extractor.trainable = model.label_head.trainable = False
        model.compile(keras.optimizers.Adam(0.05), LOGITS, jit_compile=False)
        model.fit(x, LABELS, epochs=30, verbose=0)
        model.feature_extractor.trainable = model.label_head.trainable = True
        model.compile(keras.optimizers.SGD(0.01), LOGITS, jit_compile=False)


def test_strength_rises_to_a_tenth():
    model = MDD(extractor(), free_head(), total_steps=10)
    model.compile(keras.optimizers.SGD(0.01), LOGITS, jit_compile=False)
    for _ in range(10):
        model.train_on_batch(streams(), LABELS)
    assert float(model.strength_now()) == pytest.approx(0.1, rel=1e-3)


def test_the_loss_at_chance_is_the_best_without_a_difference():
    # The adversary gives the predicted class the same probability in both domains.
    p = np.linspace(0.001, 0.999, 999)
    for margin in (1.0, 4.0):
        losses = -margin * np.log(p) - np.log(1 - p)
        assert at_chance(margin) == pytest.approx(losses.min(), rel=1e-4)


def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match="margin=-1"):
        MDD(extractor(), free_head(), margin=-1.0)
    init = keras.initializers.GlorotUniform(seed=1)
    with pytest.raises(ValueError, match="same weights"):
        MDD(extractor(), free_head(kernel_initializer=init))
