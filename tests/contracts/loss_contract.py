"""LossContract: what every loss of two domains guarantees, one test per guarantee."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.contracts import compute
from tests.contracts.compare import arrays
from tests.contracts.compute import tensorflow_only
from tests.contracts.compute import tensors


class LossContract:
    """Subclass this, define `make`, `inputs` and `expected`, and add manual examples.

    `inputs` must return even numbers of rows, for equal shares of two replicas.
    """

    fewest_rows = 1  # smallest batch for which the loss is defined
    bad_arguments = ()  # pairs of keyword arguments and the pattern of the error

    def make(self, **kwargs):
        """Return a new loss."""
        raise NotImplementedError

    def inputs(self):
        """Return source and target: float32 arrays or tuples of them."""
        raise NotImplementedError

    def constants(self, source, target):
        """Return the quantities that are constant in the gradient of the paper."""
        return None

    def expected(self, source, target, constants):
        """Return the value of the paper's equation in NumPy: the oracle."""
        raise NotImplementedError

    def changes(self):
        """Return changes of the inputs with which all results must be finite."""
        return {
            "zeros": np.zeros_like,
            "same rows": lambda x: np.repeat(x[:1], len(x), axis=0),
            "large": lambda x: x * np.float32(1e4),
            "tiny": lambda x: x * np.float32(1e-22),
        }

    def oracle(self, source, target):
        """Return the oracle's value in float64."""
        source, target = wide(source), wide(target)
        return self.expected(source, target, self.constants(source, target))

    def test_equals_the_oracle(self):
        source, target = self.inputs()
        value = self.make()(source, target)
        assert tuple(value.shape) == ()
        np.testing.assert_allclose(
            float(value), self.oracle(source, target), rtol=2e-5, atol=1e-6
        )

    def test_gradient_equals_differences_of_the_oracle(self):
        inputs = self.inputs()
        _, gradients = value_and_gradients(self.make(), *inputs)
        rng = np.random.default_rng(1)
        ways = [rng.normal(size=x.shape) for x in keras.tree.flatten(inputs)]
        constants = self.constants(*wide(inputs))
        sides = []
        for sign in (1, -1):
            leaves = [
                x.astype("float64") + sign * 1e-5 * way
                for x, way in zip(keras.tree.flatten(inputs), ways, strict=True)
            ]
            moved = keras.tree.pack_sequence_as(inputs, leaves)
            sides.append(self.expected(*moved, constants))
        slope = sum(np.sum(g * w) for g, w in zip(gradients, ways, strict=True))
        assert abs(slope) > 1e-6  # otherwise the test would check nothing
        np.testing.assert_allclose(
            slope, (sides[0] - sides[1]) / 2e-5, rtol=1e-3, atol=1e-5
        )

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_value_and_gradient_are_finite(self, jit_compile):
        loss = self.make()
        function = compute.compiled(gradients_of(loss), jit_compile)
        for kind, change in self.changes().items():
            inputs = keras.tree.map_structure(change, self.inputs())
            value, gradients = function(*tensors(inputs))
            assert np.isfinite(value), kind
            assert all(np.isfinite(each).all() for each in gradients), kind

    def test_smallest_batch(self):
        def first(rows):
            return keras.tree.map_structure(lambda x: x[:rows], self.inputs())

        value, gradients = value_and_gradients(self.make(), *first(self.fewest_rows))
        assert np.isfinite(value)
        assert all(np.isfinite(each).all() for each in gradients)
        with pytest.raises(ValueError, match="shape|parts"):
            self.make()(*first(self.fewest_rows - 1))

    @tensorflow_only("JAX knows the size of each batch")
    def test_unknown_batch_size(self):
        loss, inputs = self.make(), self.inputs()
        specs = keras.tree.map_structure(
            lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), inputs
        )
        function = tf.function(loss, input_signature=specs)
        assert_same(function(*tensors(inputs)), loss(*inputs))

    def test_xla_computes_the_same(self):
        loss, inputs = self.make(), self.inputs()
        plain, gradients = value_and_gradients(loss, *inputs)
        function = compute.compiled(gradients_of(loss))
        compiled, others = function(*tensors(inputs))
        assert_same(compiled, plain)
        for a, b in zip(arrays(others), gradients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_inputs_are_computed_in_float32(self, dtype):
        loss = self.make()
        half = keras.tree.map_structure(lambda x: ops.cast(x, dtype), self.inputs())
        rounded = keras.tree.map_structure(lambda x: ops.cast(x, "float32"), half)
        value = loss(*half)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == float(loss(*rounded))
        exact = float(loss(*self.inputs()))
        np.testing.assert_allclose(float(value), exact, rtol=0.05, atol=0.02)

    def test_symbolic_call(self):
        symbols = keras.tree.map_structure(
            lambda x: keras.Input(x.shape[1:], dtype="float32"), self.inputs()
        )
        value = self.make()(*symbols)
        assert (value.shape, value.dtype) == ((), "float32")
        model = keras.Model(symbols, value)
        assert_same(model(tensors(self.inputs())), self.make()(*self.inputs()))

    def test_config_makes_the_same_loss(self):
        loss = self.make(name="mine")
        config = keras.saving.serialize_keras_object(loss)
        assert config["registered_name"] == f"keras_transfer>{type(loss).__name__}"
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is type(loss)
        assert again.get_config() == loss.get_config()
        assert again.name == "mine"
        assert float(again(*self.inputs())) == float(loss(*self.inputs()))
        assert type(keras.losses.get(keras.losses.serialize(loss))) is type(loss)

    def test_two_replicas_add_up_to_the_mean_of_both(self, strategy):
        loss, inputs = self.make(), self.inputs()
        shares = [
            keras.tree.map_structure(
                lambda x, part=part: tf.constant(np.split(x, 2)[part]), inputs
            )
            for part in (0, 1)
        ]
        alone = [value_and_gradients(loss, *share) for share in shares]
        given = strategy.experimental_distribute_values_from_function(
            lambda context: shares[context.replica_id_in_sync_group]
        )

        @tf.function
        def together():
            value, gradients = strategy.run(gradients_of(loss), args=given)
            reduced = [strategy.reduce("SUM", value, axis=None)]
            return reduced, [strategy.experimental_local_results(g) for g in gradients]

        (total,), gradients = together()
        assert_same(total, (alone[0][0] + alone[1][0]) / 2)
        # Keras sums half of the gradient of each replica.
        for place, both in enumerate(gradients):
            for part, gradient in enumerate(both):
                np.testing.assert_allclose(
                    gradient, alone[part][1][place] / 2, rtol=1e-4, atol=1e-6
                )

    def test_refuses_bad_arguments(self):
        for arguments, text in self.bad_arguments:
            with pytest.raises(ValueError, match=text):
                self.make(**arguments)

    def test_refuses_a_sample_weight(self):
        with pytest.raises(ValueError, match="sample_weight"):
            self.make()(*self.inputs(), np.ones(3))

    def test_refuses_images(self):
        images = keras.tree.map_structure(
            lambda x: np.ones((len(x), 2, 2, 3)), self.inputs()
        )
        with pytest.raises(ValueError, match=r"shape \(\d, 2, 2, 3\)"):
            self.make()(*images)


def wide(structure):
    """Return the structure in float64."""
    return keras.tree.map_structure(lambda x: np.asarray(x, "float64"), structure)


def gradients_of(loss):
    """Return a function that returns the loss and its gradient for each tensor."""
    return lambda source, target: compute.value_and_gradients(loss, source, target)


def value_and_gradients(loss, source, target):
    """Return the loss and its gradients as NumPy arrays."""
    value, gradients = gradients_of(loss)(*tensors((source, target)))
    return float(value), arrays(gradients)


def assert_same(actual, expected):
    """Fail unless two numbers are equal except for rounding."""
    np.testing.assert_allclose(float(actual), float(expected), rtol=2e-5, atol=1e-6)
