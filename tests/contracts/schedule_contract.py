"""ScheduleContract: what every schedule guarantees, one test per guarantee."""

import keras
import numpy as np
import pytest

from tests.contracts import fresh
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compute import INTEGER
from tests.contracts.compute import wide


class ScheduleContract:
    """Subclass this, define `make` and `expected`, and add values computed by hand."""

    steps = 20

    def make(self):
        """Return a new schedule over `steps` steps."""
        raise NotImplementedError

    def expected(self, step):
        """Return the rate of `step`, computed in plain Python: the oracle."""
        raise NotImplementedError

    def test_equals_the_oracle(self):
        schedule = self.make()
        rates = [float(schedule(step)) for step in range(self.steps + 1)]
        oracle = [self.expected(step) for step in range(self.steps + 1)]
        np.testing.assert_allclose(rates, oracle, rtol=1e-6, atol=1e-9)

    def test_stays_at_its_end(self):
        schedule = self.make()
        end = float(schedule(self.steps))
        late = min(2**40, np.iinfo(INTEGER).max)
        for step in (self.steps + 1, 100 * self.steps, late):
            assert float(schedule(keras.ops.convert_to_tensor(step, INTEGER))) == end

    @pytest.mark.parametrize(
        "dtype", ["int32", pytest.param("int64", marks=wide), "uint8", "float32"]
    )
    def test_takes_steps_of_any_dtype(self, dtype):
        schedule = self.make()
        rate = schedule(keras.ops.convert_to_tensor(3, dtype))
        assert keras.backend.standardize_dtype(rate.dtype) == "float32"
        assert float(rate) == float(schedule(3))

    def test_config_makes_the_same_schedule(self):
        schedule = self.make()
        config = keras.saving.serialize_keras_object(schedule)
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == schedule.get_config()

    def test_each_step_of_fit_has_its_own_rate(self):
        # One graph for all calls: a rate that Python reads only once would not change.
        model = self.compiled()
        before = model.get_weights()[0]
        for step in range(4):
            fit(model, np.ones((4, 1)), np.zeros((4, 1)))
            after = model.get_weights()[0]
            assert_close(before - after, np.full((1, 1), self.expected(step)), 1e-6)
            before = after

    def test_reloads_in_a_fresh_process(self, tmp_path):
        model = self.compiled()
        fit(model, np.ones((4, 1)), np.zeros((4, 1)), epochs=3)
        model.save(tmp_path / "model.keras")
        more = dict(x=np.ones((4, 1)), y=np.zeros((4, 1)), epochs=2, verbose=0)
        again = fresh.load(tmp_path / "model.keras", fit=more)
        fit(model, more["x"], more["y"], epochs=2)
        assert_close(again.weights, model.get_weights(), 1e-7)

    def compiled(self):
        """Return a model of one weight whose gradient is 1, under this schedule."""
        one = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((1,)), one])
        model.compile(keras.optimizers.SGD(self.make()), "mae", jit_compile=False)
        return model
