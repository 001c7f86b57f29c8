"""Callbacks get the phases as one training of one model."""

import csv

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from tests import tiny
from tests.contracts.compare import assert_close


def data(count=12):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6)).astype("float32"), np.arange(count) % 3


def make(optimizer="adam", **settings):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            tiny.mlp(widths=(5, 4)),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **dict(jit_compile=False) | settings)
    model.layers[-1].bias.assign([0.1, 0.2, 0.3])  # a trained head has epochs alone
    return model


def tune(model, *callbacks, **settings):
    defaults = dict(epochs=3, strategy="lp-ft", batch_size=6, verbose=0)
    settings = defaults | settings | {"callbacks": list(callbacks)}
    return kt.fine_tune(model, data(), validation_data=data(6), **settings)


class Spy(keras.callbacks.Callback):
    """Record the calls of the callback, and their models."""

    def __init__(self):
        super().__init__()
        self.told = []
        self.models = set()

    def note(self, *event):
        self.told.append(event)
        self.models.add(id(self.model))

    def on_train_begin(self, logs=None):
        self.note("begin")

    def on_train_end(self, logs=None):
        self.note("end")

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch begins", epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.note("batch", batch)

    def on_test_end(self, logs=None):
        self.note("validated")

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch ends", epoch, logs["phase"])


class TestOfKeras:
    """The callbacks of Keras in both fits of one training."""

    @pytest.fixture(scope="class")
    @staticmethod
    def trained(tmp_path_factory):
        path = tmp_path_factory.mktemp("callbacks")
        spy, model = Spy(), make()
        history = tune(
            model,
            spy,
            keras.callbacks.CSVLogger(path / "log.csv"),
            keras.callbacks.ModelCheckpoint(path / "{epoch}.keras"),
            keras.callbacks.ModelCheckpoint(
                path / "best.weights.h5", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.TensorBoard(path / "board", histogram_freq=1),
            keras.callbacks.TerminateOnNaN(),
        )
        return path, spy, model, history

    @pytest.mark.slow
    def test_callbacks_get_the_whole_model_and_each_epoch_once(self, trained):
        _, spy, model, history = trained
        assert spy.models == {id(model)}
        expected = [("begin",)]
        for epoch, phase in enumerate([0, 1, 1]):
            expected += [("epoch begins", epoch), ("batch", 0), ("batch", 1)]
            expected += [("validated",), ("epoch ends", epoch, phase)]
        assert spy.told == [*expected, ("end",)]
        assert spy.params == {"verbose": 0, "epochs": 3, "steps": 2}
        assert model.history is history

    def test_one_log_has_all_epochs(self, trained):
        path, _, _, history = trained
        rows = list(csv.DictReader((path / "log.csv").read_text().splitlines()))
        assert [row["epoch"] for row in rows] == ["0", "1", "2"]
        assert [row["phase"] for row in rows] == ["0", "1", "1"]
        losses = [float(row["val_loss"]) for row in rows]
        assert losses == history.history["val_loss"]
        assert history.epoch == [0, 1, 2]
        assert history.history["phase"] == [0, 1, 1]
        assert all(seconds > 0 for seconds in history.history["seconds"])

    @pytest.mark.slow
    def test_checkpoints_of_each_phase_contain_the_whole_model(self, trained):
        path, _, model, history = trained
        x, y = data(6)
        for epoch in range(3):
            again = kt.resume(path / f"{epoch + 1}.keras")
            loss = again.evaluate(x, y, verbose=0)
            assert loss == pytest.approx(history.history["val_loss"][epoch], abs=1e-6)
            assert len(again.trainable_variables) == (2 if epoch == 0 else 6)
            assert _keras.value(again.optimizer.iterations) == 2 * (epoch + 1)
        assert_close(again.get_weights(), model.get_weights())
        assert (path / "best.weights.h5").exists()
        assert list((path / "board" / "train").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("stop, phase", [(1, 0), (3, 0), (4, 1)])
def test_early_stopping_stops_in_any_phase_and_restores(stop, phase):
    class Judge(keras.callbacks.Callback):
        """Log a value that is best at one epoch, and keep the weights of that epoch."""

        def on_epoch_end(self, epoch, logs=None):
            logs["judged"] = abs(epoch - stop)
            if epoch == stop:
                self.best = self.model.get_weights()

    judge = Judge()
    early = keras.callbacks.EarlyStopping(
        "judged", patience=1, mode="min", restore_best_weights=True
    )
    model = make()
    history = tune(model, judge, early, epochs=15)
    # Training stops one epoch after the best epoch. Only the head trains for 5 epochs.
    assert history.epoch == list(range(stop + 2))
    assert history.history["phase"][-1] == phase
    assert_close(model.get_weights(), judge.best)
    assert len(model.trainable_variables) == (6 if phase else 2)


def test_a_stop_within_an_epoch_ends_it():
    class Stop(Spy):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch)
            self.model.stop_training = True

    spy = Stop()
    tune(make(), spy, strategy="probe")
    assert [event for event in spy.told if event[0] == "batch"] == [("batch", 0)]


class Rates(keras.callbacks.Callback):
    """Record the learning rate at the end of each epoch."""

    def on_train_begin(self, logs=None):
        self.rates = []

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        self.rates.append(float(_keras.value(optimizer.learning_rate)))


@pytest.mark.slow
def test_callbacks_can_set_the_learning_rate_in_both_fits():
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    rates = Rates()
    tune(make(), scheduler, rates)
    np.testing.assert_allclose(rates.rates, [0.1, 0.05, 0.1 / 3], rtol=1e-6)

    plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience=0, min_delta=99)
    tune(make(keras.optimizers.SGD(0.08)), rates, plateau)
    np.testing.assert_allclose(rates.rates, [0.08, 0.08, 0.04], rtol=1e-6)
