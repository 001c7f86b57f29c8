"""LayerContract: what every public layer guarantees, one test per guarantee."""

import copy

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


class LayerContract:
    """Subclass this, define `make` and `inputs`, and add specific tests.

    `make` must return a layer without random numbers in training. Otherwise two
    replicas cannot equal one.
    """

    half_tolerance = 3e-2  # float16 and bfloat16 against float32
    mask = "kept"  # or "dropped", or None if the inputs cannot have a mask
    _kept = {}

    def make(self):
        """Return a new layer."""
        raise NotImplementedError

    def inputs(self):
        """Return 8 examples: an array or a structure of arrays."""
        raise NotImplementedError

    def model(self):
        """Return a functional model: inputs, the layer, a Dense of one unit."""
        symbolic, outputs = self._symbolic(self.make())
        flat = [keras.layers.Flatten()(x) for x in keras.tree.flatten(outputs)]
        joined = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
        # A Dense with fixed weights, so the test does not depend on a seed.
        head = keras.layers.Dense(1, kernel_initializer="ones", name="head")
        return keras.Model(symbolic, head(joined))

    def _symbolic(self, layer):
        def symbol(x, name=None):
            return keras.Input(x.shape[1:], dtype=str(x.dtype), name=name)

        inputs = self.inputs()
        if isinstance(inputs, dict):  # Keras needs the keys as names
            symbolic = {name: symbol(x, name) for name, x in inputs.items()}
        else:
            symbolic = keras.tree.map_structure(symbol, inputs)
        return symbolic, layer(symbolic)

    @classmethod
    def teardown_class(cls):
        cls._kept.clear()

    def trained(self, epochs=3, **compile_kwargs):
        """Return a new model after `epochs` of one step."""
        keras.utils.set_random_seed(1)
        model = self.model()
        settings = dict(jit_compile=False) | compile_kwargs
        model.compile(keras.optimizers.SGD(0.01), "mse", **settings)
        more = dict(epochs=epochs, batch_size=8)
        self.history = fit(model, self.inputs(), np.ones((8, 1)), **more)
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
        layer = self.make()
        _, symbolic = self._symbolic(layer)
        eager = layer(self.inputs())
        keras.tree.assert_same_structure(symbolic, eager)
        pairs = zip(
            keras.tree.flatten(symbolic), keras.tree.flatten(eager), strict=True
        )
        for spec, tensor in pairs:
            assert tuple(spec.shape[1:]) == tuple(tensor.shape[1:])
            assert keras.backend.standardize_dtype(tensor.dtype) == spec.dtype

    def test_config_makes_the_same_layer(self):
        layer = self.make()
        config = keras.saving.serialize_keras_object(layer)
        again = keras.saving.deserialize_keras_object(copy.deepcopy(config))
        assert type(again) is type(layer)
        assert keras.saving.serialize_keras_object(again) == config

    def test_reloads_in_a_fresh_process(self, tmp_path):
        model = self.plain()
        model.save(tmp_path / "model.keras")
        again = fresh.load(tmp_path / "model.keras", self.inputs())
        assert_close(again.outputs, run(model, self.inputs()))
        assert len(again.trainable) == len(model.trainable_variables)
        assert again.iterations == 3

    def test_weights_file_restores_outputs(self, tmp_path):
        model = self.plain()
        model.save_weights(tmp_path / "model.weights.h5")
        other = self.model()
        other.load_weights(tmp_path / "model.weights.h5")
        assert_close(run(other, self.inputs()), run(model, self.inputs()))

    def test_fits(self):
        self.plain()
        assert np.isfinite(self.history.history["loss"]).all()

    @pytest.mark.costly
    def test_xla_trains_the_same(self):
        plain = self.plain()
        compiled = self.trained(jit_compile=True)
        assert_close(compiled.get_weights(), plain.get_weights(), 1e-5)

    @pytest.mark.costly
    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy):
        layer = self.make()
        full = arrays(layer(self.inputs()))
        keras.config.set_dtype_policy(policy)
        half = self.make()
        half(self.inputs())
        half.set_weights(layer.get_weights())
        for a, b in zip(arrays(half(self.inputs())), full, strict=True):
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

    def test_mask(self):
        if self.mask is None:
            pytest.skip("the inputs of this layer cannot have a mask")
        x = np.asarray(self.inputs())
        x[:, -1] = 0
        masked = keras.layers.Masking()(x)
        out = self.make()(masked)
        if self.mask == "dropped":
            assert getattr(out, "_keras_mask", None) is None
        else:
            assert_close(out._keras_mask, masked._keras_mask)

    @exports
    @pytest.mark.costly
    def test_exports(self, tmp_path):
        model = self.plain()
        model.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")  # owns the weights
        assert_close(
            served.serve(tensors(self.inputs())), run(model, self.inputs()), 1e-5
        )
