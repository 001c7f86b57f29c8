"""ConcatPooling: a case by hand, padding on both sides, and a real backbone."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.compute import value_and_gradients
from tests.contracts.layer_contract import LayerContract

STATES = np.array([[[1.0, -5.0], [4.0, -1.0], [2.0, -3.0]]], "float32")
POOLED = np.array([[2.0, -3.0, 4.0, -1.0, 7 / 3, -3.0]])


class TestConcatPooling(LayerContract):
    mask = "dropped"

    def make(self):
        return kt.layers.ConcatPooling()

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 5, 4)).astype("float32")


def test_last_largest_and_mean_by_hand():
    assert_close(kt.layers.ConcatPooling()(STATES), POOLED, 1e-6)


@pytest.mark.parametrize("before, after", [(0, 2), (2, 0), (1, 3)])
@pytest.mark.parametrize("padding", [0.0, 9.0, np.nan, np.inf])
def test_padding_of_any_value_on_any_side_changes_nothing(before, after, padding):
    width = ((0, 0), (before, after), (0, 0))
    x = np.pad(STATES, width, constant_values=padding)
    mask = np.pad(np.ones((1, 3), bool), width[:2])
    assert_close(kt.layers.ConcatPooling()(x, mask=mask), POOLED, 1e-6)


def test_a_row_of_padding_gives_zeros_and_a_finite_gradient():
    layer = kt.layers.ConcatPooling()
    mask = np.array([[0, 0, 0]])
    x = keras.ops.convert_to_tensor(STATES)
    y, (gradient,) = value_and_gradients(lambda x: layer(x, mask=mask), x)
    assert_close(y, np.zeros((1, 6)))
    assert_close(gradient, np.zeros((1, 3, 2)))


def test_input_without_positions_raises():
    with pytest.raises(ValueError, match="positions of a sequence"):
        kt.layers.ConcatPooling()(np.ones((2, 3)))


def test_pooling_of_a_backbone_leaves_out_its_padding():
    backbone = tiny.bert(num_layers=1, dropout=0.0)
    model = kt.models.TransferClassifier(backbone, 2, pooling="concat")
    ids = np.array([[5, 6, 7, 0, 0]])
    x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    x = {name: value.astype("int32") for name, value in x.items()}
    short = {name: value[:, :3] for name, value in x.items()}
    assert_close(run(model, x), run(model, short), 1e-5)
    sequence = array(run(backbone, short)["sequence_output"])
    features = run(kt.backbones.features(backbone, pooling="concat"), x)
    expected = [sequence[:, -1], sequence.max(1), sequence.mean(1)]
    assert_close(features, np.concatenate(expected, -1), 1e-5)
