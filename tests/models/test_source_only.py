"""SourceOnly: the baseline that ignores the target."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_transfer.models import SourceOnly
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import LOGITS
from tests.contracts.domain_contract import streams


class TestSourceOnly(DomainContract):
    kind = SourceOnly


def made(body):
    keras.utils.set_random_seed(3)
    model = SourceOnly(body(), free_head())
    model.compile(keras.optimizers.SGD(0.1), LOGITS, jit_compile=False)
    return model


def normalized():
    parts = [keras.Input((6,)), layers.BatchNormalization(), layers.Dense(5)]
    return keras.Sequential(parts)


@pytest.mark.parametrize("body", [extractor, normalized])
def test_training_on_two_domains_equals_training_on_the_source(body):
    # The statistics too, because a baseline must not use the target.
    two, one = made(body), made(body)
    a = fit(two, streams(), LABELS, epochs=2).history
    b = fit(one, streams()["source"], LABELS, epochs=2).history
    assert_close(two.get_weights(), one.get_weights())
    assert a == b


def test_the_target_has_no_effect():
    other = streams() | {"target": streams()["target"] * np.nan}
    two, one = made(normalized), made(normalized)
    fit(two, other, LABELS)
    fit(one, streams(), LABELS)
    assert_close(two.get_weights(), one.get_weights())


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_data_of_unknown_length_is_accepted():
    data = tf.data.Dataset.from_tensor_slices((streams()["source"], LABELS))
    data = data.batch(4).filter(lambda x, y: True)
    history = made(extractor).fit(data, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_an_activity_loss_of_the_target_has_no_effect():
    losses = []
    for scale in (1, 50):
        keras.utils.set_random_seed(0)
        dense = layers.Dense(5, activity_regularizer="l2")
        body = keras.Sequential([keras.Input((6,)), dense])
        model = SourceOnly(body, layers.Dense(3))
        model.compile("sgd", LOGITS, jit_compile=False)
        x = streams()
        x["target"] *= scale
        losses += fit(model, x, LABELS).history["loss"]
    assert losses[0] == losses[1]
