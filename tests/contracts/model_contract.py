"""ModelContract: what every public model guarantees, one test per guarantee."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.compute import exports
from tests.contracts.compute import tensors


class ModelContract:
    """Subclass this, define `make`, `inputs` and `targets`, and add specific tests.

    `make` must return a model without random numbers in training and without a
    trainable BatchNormalization. Otherwise two replicas cannot equal one.
    """

    loss = "mse"
    metrics = ()
    half_tolerance = 5e-2  # float16 and bfloat16 against float32
    imports = ()  # packages that the fresh process needs, such as "keras_cv"
    _kept = {}

    def make(self):
        """Return a new, built model."""
        raise NotImplementedError

    def inputs(self):
        """Return 8 examples: an array or a structure of arrays."""
        raise NotImplementedError

    def targets(self):
        """Return the 8 targets."""
        raise NotImplementedError

    def training_inputs(self):
        """Return the inputs for `fit`."""
        return self.inputs()

    @classmethod
    def teardown_class(cls):
        cls._kept.clear()

    def trained(self, epochs=3, **compile_kwargs):
        """Return a new model after `epochs` of two steps."""
        keras.utils.set_random_seed(1)
        model = self.make()
        settings = dict(jit_compile=False, metrics=[*self.metrics]) | compile_kwargs
        optimizer = keras.optimizers.SGD(0.01, momentum=0.1)
        model.compile(optimizer, self.loss, **settings)
        x, y = self.training_inputs(), self.targets()
        self.history = fit(model, x, y, epochs=epochs)
        return model

    def plain(self):
        """Return a model that was trained without a graph, which is faster.

        The tests share it, so they must not change it.
        """
        if type(self) not in self._kept:
            self._kept[type(self)] = self.trained(run_eagerly=True), self.history
        model, self.history = self._kept[type(self)]
        return model

    def test_symbolic_output_equals_eager(self):
        model = self.make()
        eager = run(model, self.inputs())
        keras.tree.assert_same_structure(model.output, eager)
        pairs = zip(
            keras.tree.flatten(model.output), keras.tree.flatten(eager), strict=True
        )
        for spec, tensor in pairs:
            for size, found in zip(spec.shape, tensor.shape, strict=True):
                assert size in (None, found)
            assert keras.backend.standardize_dtype(tensor.dtype) == spec.dtype

    def test_config_makes_the_same_model(self):
        model = self.make()
        again = type(model).from_config(model.get_config())
        assert again.get_config() == model.get_config()
        again.set_weights(model.get_weights())
        assert_close(run(again, self.inputs()), run(model, self.inputs()))

    def test_reloads_in_a_fresh_process_with_optimizer_state(self, tmp_path):
        model = self.plain()
        model.save(tmp_path / "model.keras")
        again = fresh.load(
            tmp_path / "model.keras", self.inputs(), imports=self.imports
        )
        assert_close(again.outputs, run(model, self.inputs()))
        assert len(again.trainable) == len(model.trainable_variables)
        assert again.iterations == 6
        assert_close(again.optimizer_variables, model.optimizer.variables)

    def test_weights_file_restores_outputs(self, tmp_path):
        model = self.plain()
        model.save_weights(tmp_path / "model.weights.h5")
        other = self.make()
        other.load_weights(tmp_path / "model.weights.h5")
        assert_close(run(other, self.inputs()), run(model, self.inputs()))

    def test_fit_lowers_the_loss(self):
        self.plain()
        losses = self.history.history["loss"]
        assert losses[-1] < losses[0]

    @pytest.mark.costly
    def test_xla_trains_the_same(self):
        plain = self.plain()
        compiled = self.trained(jit_compile=True)
        assert_close(compiled.get_weights(), plain.get_weights(), 1e-5)

    @pytest.mark.costly
    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy):
        model = self.make()
        full = arrays(run(model, self.inputs()))
        keras.config.set_dtype_policy(policy)
        half = self.make()
        half.set_weights(model.get_weights())
        for a, b in zip(arrays(run(half, self.inputs())), full, strict=True):
            np.testing.assert_allclose(
                a.astype("float32"), b, rtol=0, atol=self.half_tolerance
            )
        self.trained(epochs=1, run_eagerly=True)
        assert np.isfinite(self.history.history["loss"]).all()

    @pytest.mark.costly
    def test_two_replicas_equal_one(self, strategy):
        one = self.plain()
        with strategy.scope():
            two = self.trained()
        assert_close(two.get_weights(), one.get_weights(), 1e-5)

    @exports
    @pytest.mark.costly
    def test_exports(self, tmp_path):
        model = self.plain()
        model.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")  # owns the weights
        assert_close(
            served.serve(tensors(self.inputs())), run(model, self.inputs()), 1e-5
        )
