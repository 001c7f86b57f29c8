"""StateDistillation and AttentionDistillation: by hand, with padding, and configs."""

import keras
import numpy as np
import pytest

import keras_transfer as kt

RNG = np.random.default_rng(0)
TEACHER, STUDENT = RNG.normal(size=(2, 2, 3, 4)).astype("float32")
MASK = np.array([[1, 1, 0], [1, 0, 0]])
PAIR = {"block_1": "block_0"}


def cosine():
    norms = np.linalg.norm(TEACHER, axis=-1) * np.linalg.norm(STUDENT, axis=-1)
    return 1 - np.sum(TEACHER * STUDENT, -1) / norms


BY_HAND = {
    "cosine": (kt.losses.StateDistillation(PAIR), cosine()),
    "mse": (
        kt.losses.StateDistillation(PAIR, "mse"),
        np.mean((TEACHER - STUDENT) ** 2, -1),
    ),
    "attention": (
        kt.losses.AttentionDistillation(PAIR),
        np.sum((TEACHER - STUDENT) ** 2, -1),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_against_numpy_without_padding(name):
    loss, each = BY_HAND[name]
    found = loss.compute_loss([TEACHER], [STUDENT])
    np.testing.assert_allclose(found, each.mean(), rtol=1e-5)
    found = loss.compute_loss([TEACHER, TEACHER], [STUDENT, TEACHER], mask=MASK)
    expected = (each * MASK).sum() / MASK.sum() / 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert type(again) is type(loss) and again.get_config() == loss.get_config()


def test_wrong_arguments():
    for blocks in ({}, ["block_0"], {0: 1}):
        with pytest.raises(ValueError, match="names no pairs"):
            kt.losses.AttentionDistillation(blocks)
    with pytest.raises(ValueError, match="loss='mae'"):
        kt.losses.StateDistillation(PAIR, "mae")
