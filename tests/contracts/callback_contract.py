"""CallbackContract: what every public callback guarantees, one test per guarantee."""

import pathlib
import tempfile

import keras
import numpy as np
import pytest

from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import assert_close
from tests.contracts.compare import build
from tests.contracts.compare import fit
from tests.contracts.compare import run


class Interrupted(Exception):
    """Simulates a power cut in the tests of BackupAndRestore."""


class CallbackContract:
    """Subclass this, define `make_callbacks`, and add specific tests."""

    epochs = 4
    replaces_optimizer = False  # which must then have no variables before `fit`
    _kept = {}

    @classmethod
    def teardown_class(cls):
        for *_, folder in cls._kept.values():
            folder.cleanup()
        cls._kept.clear()

    def make_model(self, **compile_kwargs):
        """Return a new compiled model without XLA and without random training."""
        settings = dict(jit_compile=False) | compile_kwargs
        model = tiny.mlp()
        model.compile(keras.optimizers.Adam(0.01), "mse", **settings)
        return model

    def make_callbacks(self, model):
        """Return a list of one or several new callbacks."""
        raise NotImplementedError

    def data(self):
        """Return inputs and targets of 16 examples: four steps per epoch."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(16, 6)).astype("float32")
        return x, rng.normal(size=(16, 3)).astype("float32")

    def trained(self, model, more=(), epochs=None, initial_epoch=0):
        """Fit `model` with new callbacks and return it; `more` come after them."""
        callbacks = [*self.make_callbacks(model), *more]
        self.history = self._fit(model, callbacks, epochs, initial_epoch)
        return model

    def _fit(self, model, callbacks, epochs=None, initial_epoch=0):
        if not self.replaces_optimizer:
            build(model, *self.data())
        settings = dict(initial_epoch=initial_epoch, callbacks=callbacks)
        return fit(model, *self.data(), epochs=epochs or self.epochs, **settings)

    def whole(self):
        """Return the weights after a training without a stop, trained once per class.

        `self.history` is the history of this training, and `self.folder` has the model
        after each epoch.
        """
        if type(self) not in self._kept:
            keras.utils.set_random_seed(0)
            folder = tempfile.TemporaryDirectory()
            path = pathlib.Path(folder.name, "{epoch}.keras")
            keep = keras.callbacks.ModelCheckpoint(path)
            weights = self.trained(self.make_model(), [keep]).get_weights()
            self._kept[type(self)] = weights, self.history, folder
            keras.utils.clear_session(free_memory=False)
            keras.utils.set_random_seed(0)
        weights, self.history, folder = self._kept[type(self)]
        self.folder = pathlib.Path(folder.name)
        return weights

    def test_fits(self):
        self.whole()
        assert len(self.history.epoch) == self.epochs
        assert np.isfinite(self.history.history["loss"]).all()

    @pytest.mark.costly
    def test_initial_epoch_continues_as_without_a_stop(self):
        whole = self.whole()
        halves = self.trained(self.make_model(), epochs=2)
        self.trained(halves, initial_epoch=2)
        assert_close(halves.get_weights(), whole, 1e-6)

    @pytest.mark.costly
    def test_backup_restores_as_without_a_stop(self, tmp_path):
        self.check_backup(tmp_path)

    def check_backup(self, folder, backup_first=False):
        """Check that BackupAndRestore continues a training that was interrupted."""

        def interrupt(epoch, logs=None):
            if epoch == 2:
                raise Interrupted

        def run_once(model, more=()):
            backup = keras.callbacks.BackupAndRestore(folder / "backup")
            callbacks = [*self.make_callbacks(model), *more]
            callbacks.insert(0 if backup_first else len(callbacks), backup)
            self._fit(model, callbacks)

        whole = self.whole()
        stop = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
        with pytest.raises(Interrupted):
            run_once(self.make_model(), [stop])
        resumed = self.make_model()
        run_once(resumed)
        steps = keras.ops.convert_to_numpy(resumed.optimizer.iterations)
        assert steps == 4 * self.epochs
        assert_close(resumed.get_weights(), whole, 1e-6)

    def test_checkpoint_reloads_in_a_fresh_process(self):
        model = self.make_model()
        model.set_weights(self.whole())
        x, _ = self.data()
        # Without compile, because a plain load may drop the slots of a frozen phase.
        again = fresh.load(self.folder / f"{self.epochs}.keras", x, compile=False)
        assert_close(again.outputs, run(model, x))
        for epoch in range(1, self.epochs):
            fresh.load(self.folder / f"{epoch}.keras", compile=False)

    @pytest.mark.costly
    def test_steps_per_execution_trains_the_same(self):
        plain = self.whole()
        several = self.trained(self.make_model(steps_per_execution=2))
        assert_close(several.get_weights(), plain, 1e-6)

    @pytest.mark.costly
    def test_xla_trains_the_same(self):
        plain = self.whole()
        compiled = self.trained(self.make_model(jit_compile=True))
        assert_close(compiled.get_weights(), plain, 1e-5)

    def test_two_replicas_equal_one(self, strategy):
        one = self.whole()
        with strategy.scope():
            two = self.make_model()
        self.trained(two)
        assert_close(two.get_weights(), one, 1e-5)
