"""OptimizerContract: what every public optimizer guarantees, one test per guarantee."""

import keras
import numpy as np

from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import assert_close
from tests.contracts.compare import build
from tests.contracts.compare import fit
from tests.contracts.compute import sync


class OptimizerContract:
    """Subclass this, define `make`, and add specific tests.

    A stock optimizer fails the last test, because Keras clips the gradients before it
    sums them over the replicas.
    """

    learning_rate = 0.01
    half_type = keras.optimizers.LossScaleOptimizer
    _kept = {}

    @classmethod
    def teardown_class(cls):
        cls._kept.clear()

    def make(self, model, learning_rate, **kwargs):
        """Return a new optimizer for `model`.

        `kwargs` are Keras's own: use_ema, ema_momentum, global_clipnorm, ...
        """
        raise NotImplementedError

    def model(self):
        """Return a small model without randomness, the same each time."""
        return tiny.mlp()

    def data(self):
        """Return inputs and targets of 8 examples."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(8, 6)).astype("float32")
        return x, rng.normal(size=(8, 3)).astype("float32")

    def compiled(self, learning_rate=None, jit_compile=False, **kwargs):
        """Return a compiled model with the optimizer of `make`, which gets `kwargs`."""
        model = self.model()
        rate = self.learning_rate if learning_rate is None else learning_rate
        model.compile(self.make(model, rate, **kwargs), "mse", jit_compile=jit_compile)
        return model

    def trained(self, epochs=3, callbacks=(), **kwargs):
        """Return the model after `epochs` of two steps; `kwargs` go to `compiled`."""
        model = self.compiled(**kwargs)
        build(model, *self.data())
        self.history = fit(model, *self.data(), epochs=epochs, callbacks=[*callbacks])
        return model

    def plain(self):
        """Return the model after `trained()`, the same for all tests of a class.

        `self.history` is the history of this training. No test may change the model.
        """
        if type(self) not in self._kept:
            keras.utils.set_random_seed(0)
            model = self.trained()
            self._kept[type(self)] = model, self.history
        model, self.history = self._kept[type(self)]
        return model

    def rate(self, model):
        """Return the learning rate of a model's optimizer as a number."""
        return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))

    def test_config_makes_the_same_optimizer(self):
        model = self.plain()
        config = model.optimizer.get_config()
        again = type(model.optimizer).from_config(dict(config))
        assert again.get_config() == config

    def test_reloads_in_a_fresh_process_with_its_state(self, tmp_path):
        model = self.plain()
        model.save(tmp_path / "model.keras")
        again = fresh.load(tmp_path / "model.keras")
        assert again.optimizer_class == type(model.optimizer).__name__
        assert again.iterations == 6
        assert_close(again.optimizer_variables, model.optimizer.variables)

    def test_training_continues_in_a_fresh_process_as_here(self, tmp_path):
        model = self.trained()
        model.save(tmp_path / "model.keras")
        x, y = self.data()
        more = dict(x=x, y=y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        again = fresh.load(tmp_path / "model.keras", fit=more)
        fit(model, x, y, epochs=2)
        assert_close(again.weights, model.get_weights(), 1e-7)

    def test_fit_lowers_the_loss(self):
        self.plain()
        losses = self.history.history["loss"]
        assert losses[-1] < losses[0]

    def test_xla_trains_the_same(self):
        plain = self.plain().get_weights()
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        assert_close(self.trained(jit_compile=True).get_weights(), plain, 1e-5)

    def test_mixed_float16_scales_the_loss(self):
        keras.config.set_dtype_policy("mixed_float16")
        before = self.model().get_weights()
        model = self.trained()
        assert type(model.optimizer) is self.half_type
        assert all(np.isfinite(w).all() for w in model.get_weights())
        assert np.abs(model.get_weights()[0] - before[0]).max() > 0

    def test_reloads_in_a_fresh_process_with_the_scale(self, tmp_path):
        keras.config.set_dtype_policy("mixed_float16")
        model = self.trained()
        model.save(tmp_path / "model.keras")
        again = fresh.load(tmp_path / "model.keras", policy="mixed_float16")
        assert_close(again.optimizer_variables, model.optimizer.variables)

    def test_ema_averages_the_weights(self):
        model = self.compiled(use_ema=True, ema_momentum=0.5)
        steps = []

        def keep_weights(batch, logs):
            sync(model)
            steps.append(model.get_weights())

        keep = keras.callbacks.LambdaCallback(on_train_batch_end=keep_weights)
        fit(model, *self.data(), epochs=2, callbacks=[keep])
        average = steps[0]
        for step in steps[1:]:
            average = [0.5 * a + 0.5 * w for a, w in zip(average, step, strict=True)]
        # fit ends by writing the averages into the model.
        assert_close(model.get_weights(), average, 1e-5)

    def test_follows_a_schedule(self):
        schedule = keras.optimizers.schedules.ExponentialDecay(
            self.learning_rate, 2, 0.5
        )
        model = self.trained(epochs=2, learning_rate=schedule)
        assert abs(self.rate(model) - self.learning_rate / 4) < 1e-7

    def test_learning_rate_scheduler_sets_the_rate(self):
        halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        model = self.trained(epochs=3, callbacks=[halve])
        assert abs(self.rate(model) - self.learning_rate / 8) < 1e-7

    def test_two_replicas_equal_one(self, strategy):
        for kwargs in ({}, dict(global_clipnorm=0.1)):
            one = self.trained(**kwargs)
            with strategy.scope():
                two = self.trained(**kwargs)
            assert_close(two.get_weights(), one.get_weights(), 1e-5)
