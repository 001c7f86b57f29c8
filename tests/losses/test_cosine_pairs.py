"""CosinePairs against a loop over all pairs in NumPy."""

import keras
import numpy as np
import pytest

from keras_transfer.losses import CosinePairs
from tests.contracts.compare import array
from tests.contracts.compute import tensorflow_only
from tests.contracts.compute import tensors
from tests.contracts.loss_contract import gradients_of
from tests.contracts.loss_contract import LossContract


class TestCosinePairs(LossContract):
    def make(self, **kwargs):
        return CosinePairs(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        labels = np.array([0, 1, 2, 0, 1, 2, 0, 0], "float32")
        return labels, rng.normal(size=(8, 3)).astype("float32")

    def expected(self, labels, vectors, constants):
        labels = np.round(labels)  # whole numbers, also if the contract moves them
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        losses = []
        for i, u in enumerate(unit):
            near, far = [], []
            for j, v in enumerate(unit):
                if labels[i] != labels[j]:
                    far.append((u @ v) ** 2)
                elif i != j:
                    near.append((1 - u @ v) ** 2)
            losses.append(sum(np.mean(each) for each in (near, far) if each) / 2)
        return np.mean(losses)

    def test_symbolic_call(self):
        """With the sum: Keras cannot divide by an unknown batch size."""
        symbols = [keras.Input(x.shape[1:]) for x in self.inputs()]
        loss = CosinePairs(reduction="sum")
        model = keras.Model(symbols, loss(*symbols))
        assert float(model(self.inputs())) == pytest.approx(float(loss(*self.inputs())))

    def test_refuses_a_sample_weight(self):
        """A weight multiplies the loss of its example, so none is refused."""
        labels, vectors = self.inputs()
        each = array(CosinePairs(reduction="none")(labels, vectors))
        assert each.shape == (8,)
        weight = np.arange(8.0)
        value = CosinePairs(reduction="sum")(labels, vectors, weight)
        assert float(value) == pytest.approx((weight * each).sum(), rel=1e-5)


def test_a_case_by_hand():
    # The cosine is 1 for the pair 0-1, and 0 for the others.
    vectors = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    assert float(CosinePairs()(np.array([0, 0, 1]), vectors)) == 0
    # 0 differs from 1, with cosine 1, and from 2, with cosine 0. The only partner of 1
    # is 2, with cosine 0.
    each = array(CosinePairs(reduction="none")(np.array([0, 1, 1]), vectors))
    np.testing.assert_allclose(each, [0.25, 1.0, 0.5], atol=1e-6)


def test_labels_of_three_forms():
    numbers = np.array([0, 2, 2, 1])
    vectors = np.random.default_rng(0).normal(size=(4, 5))
    values = {
        float(CosinePairs()(labels, vectors))
        for labels in (numbers, numbers[:, None], np.eye(3)[numbers])
    }
    assert len(values) == 1


def test_a_zero_vector_has_a_finite_gradient():
    labels, vectors = np.zeros(3, "float32"), np.zeros((3, 2), "float32")
    value, gradients = gradients_of(CosinePairs())(*tensors((labels, vectors)))
    assert float(value) == 0.5  # the cosine is 0
    assert all(np.isfinite(array(each)).all() for each in gradients)


@tensorflow_only("the contract shows the numbers on JAX")
def test_an_encoder_learns_two_classes():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.05), CosinePairs(), jit_compile=False)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=20, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.6 * before
