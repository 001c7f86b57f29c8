"""DomainAdaptation: the strength at each step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_transfer.models import AFN
from keras_transfer.models import CDAN
from keras_transfer.models import DAN
from keras_transfer.models import DANN
from keras_transfer.models import DeepCORAL
from keras_transfer.models import JAN
from keras_transfer.models import MCC
from keras_transfer.models import MDD
from keras_transfer.models import SourceOnly
from keras_transfer.models import VADA
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.optimizers import GaninRampUp
from tests.contracts.callback_contract import Interrupted
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import INTEGER
from tests.contracts.compute import sync
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import LOGITS
from tests.contracts.domain_contract import streams


@keras.saving.register_keras_serializable(package="tests")
class Noting(DomainAdaptation):
    """Store the strength of each batch in a variable, in the graph."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.notes = keras.Variable(np.zeros(64, "float32"), trainable=False)
        self.count = keras.Variable(0, dtype=INTEGER, trainable=False)

    def penalties(self, source, target, compared):
        # Depend on the batch, because no batch arrives after the end of the data.
        zero = ops.cast(0.0 * ops.sum(source.features), INTEGER)
        here = ops.equal(ops.arange(64, dtype=INTEGER), self.count + zero)
        notes = ops.convert_to_tensor(self.notes)
        self.notes.assign(ops.where(here, self.strength_now(), notes))
        self.count.assign_add(1 + zero)
        return {}

    def noted(self):
        return arrays(self.notes)[0][: int(arrays(self.count)[0])]


def noting(optimizer=None, compile_kwargs=None, **settings):
    model = Noting(extractor(), free_head(), **settings)
    optimizer = optimizer or keras.optimizers.SGD(0.01)
    settings = dict(jit_compile=False) | (compile_kwargs or {})
    model.compile(optimizer, LOGITS, **settings)
    return model


def train(model, **kwargs):
    """Fit for three epochs of four steps."""
    settings = dict(batch_size=2, epochs=3) | kwargs
    return fit(model, streams(), LABELS, **settings).history


def ganin(steps, total):
    """Return 2 / (1 + exp(-10 p)) - 1 at p = step / total, up to 1."""
    p = np.minimum(np.asarray(steps) / total, 1.0)
    return 2 / (1 + np.exp(-10 * p)) - 1


# Keras warns about each dataset with an unknown length.
ENDS = pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")


def close(values, expected):
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"steps_per_execution": 4},
        {"steps_per_execution": 3},
        {"jit_compile": True},
        {"run_eagerly": True},
    ],
    ids=str,
)
def test_strength_of_none_rises_over_the_steps_of_the_fit(how):
    model = noting(compile_kwargs=how)
    logs = train(model)
    close(model.noted(), ganin(range(12), 12))
    # The logs of an epoch show the last strength.
    close(logs["strength"], ganin([4, 8, 12], 12))


def test_the_strength_rises_again_in_each_fit():
    model = noting()
    train(model, epochs=1)
    train(model, epochs=3)
    close(model.noted(), [*ganin(range(4), 4), *ganin(range(12), 12)])


class StopAfter(keras.callbacks.Callback):
    """Stop a fit after an epoch, as EarlyStopping does."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


def test_a_loaded_model_continues_at_initial_epoch(tmp_path):
    model = noting()
    train(model, callbacks=[StopAfter(1)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    train(again, initial_epoch=2)
    close(again.noted(), ganin(range(12), 12))


@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_resumed_fit_continues_the_strength(tmp_path, save_freq):
    def interrupt(batch, logs=None):
        sync(model)
        if int(arrays(model.optimizer.iterations)[0]) == 6:
            raise Interrupted

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "b", save_freq=save_freq)

    model = noting()
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with pytest.raises(Interrupted):
        train(model, callbacks=[backup(), stop])
    resumed = noting()
    train(resumed, callbacks=[backup()])
    # Keras repeats an interrupted epoch from its start.
    close(resumed.noted()[-8:], ganin(range(4, 12), 12))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("batch_size", [2, 3])
def test_accumulated_batches_count_as_one_update(policy, batch_size):
    keras.config.set_dtype_policy(policy)
    model = noting(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2))
    train(model, batch_size=batch_size)
    batches = np.arange(12 if batch_size == 2 else 9)
    close(model.noted(), ganin(batches // 2, len(batches) // 2))


def test_total_steps_replaces_the_steps_of_fit():
    model = noting(total_steps=6)
    train(model)
    close(model.noted(), ganin(range(12), 6))


def test_total_steps_fewer_than_an_epoch_raise():
    with pytest.raises(ValueError, match="total_steps is 3.* 4 updates"):
        train(noting(total_steps=3))


@ENDS
def test_an_unknown_number_of_steps_needs_total_steps():
    data = tf.data.Dataset.from_tensor_slices((streams(), LABELS)).batch(2)
    data = data.filter(lambda x, y: True)
    with pytest.raises(ValueError, match="total_steps="):
        noting().fit(data, verbose=0, shuffle=False)
    # Other strengths do not need it.
    model = noting(strength=0.3)
    model.fit(data, verbose=0, shuffle=False)
    close(model.noted(), [0.3] * 4)
    model = noting(total_steps=8)
    for _ in range(2):  # each fit starts again, also with a known length
        model.fit(data, epochs=2, verbose=0, shuffle=False)
    found = model.noted().reshape(2, 8)
    close(found[:, :4], [ganin(range(4), 8)] * 2)
    # At an unexpected end of the data, Keras may count an update that did not happen.
    assert np.all(found[:, 4:] >= ganin(range(4, 8), 8) - 1e-6)
    assert np.all(found[:, 4:] <= ganin(range(5, 9), 8) + 1e-6)


def test_train_on_batch_needs_total_steps():
    x, y = streams(2), LABELS[:2]
    with pytest.raises(ValueError, match="total_steps="):
        noting().train_on_batch(x, y)
    model = noting(total_steps=4)
    for _ in range(6):
        model.train_on_batch(x, y)
    close(model.noted(), ganin(range(6), 4))


def test_a_variable_is_read_and_saved_but_never_trained(tmp_path):
    strength = keras.Variable(0.0)
    model = noting(strength=strength)
    follow = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: strength.assign(0.5 + epoch)
    )
    logs = train(model, callbacks=[follow])
    close(model.noted(), np.repeat([0.5, 1.5, 2.5], 4))
    close(logs["strength"], [0.5, 1.5, 2.5])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert arrays(again.strength) == [2.5]
    # Training would reduce the weight of a loss to 0.
    strength = keras.Variable(1.0)
    model = DeepCORAL(extractor(), free_head(), strength=strength)
    model.compile(keras.optimizers.SGD(1.0), LOGITS, jit_compile=False)
    fit(model, streams(), LABELS)
    assert arrays(strength) == [1.0]


def test_a_schedule_counts_the_updates_of_the_optimizer(tmp_path):
    model = noting(strength=GaninRampUp(20, end=0.5))
    train(model, epochs=2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    train(again, epochs=4, initial_epoch=2)
    close(again.noted(), 0.5 * ganin(range(16), 20))


@pytest.mark.slow
def test_strength_is_the_same_on_one_and_two_replicas(strategy):
    def logs():
        model = DANN(extractor(), free_head())
        model.compile(keras.optimizers.SGD(0.01), LOGITS, jit_compile=False)
        return train(model)["strength"]

    one = logs()
    with strategy.scope():
        two = logs()
    close(two, one)
    close(one, ganin([4, 8, 12], 12))


@pytest.mark.parametrize("strength", [-0.1, np.nan, np.inf])
def test_a_strength_out_of_range_raises(strength):
    with pytest.raises(ValueError, match="strength="):
        DANN(extractor(), free_head(), strength=strength)


@pytest.mark.parametrize("total", [0, -1, 2.5, True])
def test_wrong_total_steps_raise(total):
    with pytest.raises(ValueError, match="total_steps="):
        DANN(extractor(), free_head(), total_steps=total)


def test_total_steps_with_a_strength_raises():
    with pytest.raises(ValueError, match="no effect on the strength 0.5"):
        DANN(extractor(), free_head(), strength=0.5, total_steps=10)
    with pytest.raises(TypeError, match="strength is 'high'"):
        DANN(extractor(), free_head(), strength="high")


@keras.saving.register_keras_serializable(package="tests")
class Endless(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose value is always infinite."""

    def __call__(self, step):
        return ops.convert_to_tensor(np.float32(np.inf))

    def get_config(self):
        return {}


def test_a_schedule_that_is_not_finite_raises():
    model = DANN(extractor(), free_head(), strength=Endless())
    model.compile("sgd", LOGITS, jit_compile=False)
    with pytest.raises(ValueError, match="strength=inf"):
        fit(model, streams(), LABELS)


# With a strength of 0, each method equals training without adaptation.

PLAIN = [
    (DANN, {}),
    (CDAN, {"entropy": True}),
    (DeepCORAL, {}),
    (DAN, {}),
    (JAN, {}),
    (MDD, {}),
    (AFN, {}),
    (MCC, {}),
    (VADA, {"smoothing": (0.0, 0.0)}),
]


@pytest.fixture(scope="module")
def source_only():
    return plain_weights(SourceOnly, {})


def plain_weights(kind, settings):
    keras.utils.set_random_seed(5)
    model = kind(extractor(), free_head(), **settings)
    init = np.random.default_rng(0).normal(size=(5, 3))
    model.label_head.set_weights([init, np.zeros(3)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOGITS, jit_compile=False)
    fit(model, streams(), LABELS, epochs=3)
    return model.feature_extractor.get_weights() + model.label_head.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, settings", PLAIN, ids=lambda x: getattr(x, "__name__", "")
)
def test_strength_0_equals_source_only(kind, settings, source_only):
    found = plain_weights(kind, settings | {"strength": 0.0})
    assert_close(found, source_only, 1e-6)
