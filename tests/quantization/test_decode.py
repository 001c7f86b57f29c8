"""Decoding in the graph: equal to NumPy, exact gradients, and nothing kept."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_transfer import _keras
from keras_transfer.quantization.decode import apply_frozen
from keras_transfer.quantization.decode import decoded
from keras_transfer.quantization.decode import decoded_rows
from keras_transfer.quantization.normal_float import pack
from keras_transfer.quantization.normal_float import unpack
from tests.contracts.compare import array

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(40, 32)).astype("float32")
both = pytest.mark.parametrize("double", [True, False])


def tensors(packed):
    return {k: ops.convert_to_tensor(x) for k, x in packed.arrays().items()}


@both
def test_it_equals_numpy(double):
    packed = pack(WEIGHT, 16, double)
    right = unpack(packed).reshape(WEIGHT.shape)
    got = array(decoded(tensors(packed), WEIGHT.shape, "float32"))
    np.testing.assert_allclose(got, right, rtol=1e-6)
    for after in (np.inf, -np.inf, np.nan, 0.0):
        later = decoded(tensors(packed), WEIGHT.shape, "float32", ops.array([[after]]))
        np.testing.assert_array_equal(array(later), got)
    half = array(
        ops.cast(decoded(tensors(packed), WEIGHT.shape, "bfloat16"), "float32")
    )
    np.testing.assert_allclose(half, right, rtol=2e-2)


@both
def test_rows_equal_the_rows_of_the_whole(double):
    packed = tensors(pack(WEIGHT, 8, double))
    whole = array(decoded(packed, WEIGHT.shape, "float32"))
    rows = np.array([[3, 39, 0], [3, 7, 7]])
    got = array(decoded_rows(packed, WEIGHT.shape, ops.array(rows), "float32"))
    np.testing.assert_array_equal(got, whole[rows])


def test_the_gradient_of_the_inputs_is_exact():
    packed = tensors(pack(WEIGHT, 16))
    whole = array(decoded(packed, WEIGHT.shape, "float32"))
    x = RNG.normal(size=(5, 40)).astype("float32")

    def loss(x):
        y = apply_frozen(
            x,
            lambda after: decoded(packed, WEIGHT.shape, "float32", after),
            ops.matmul,
            lambda upstream, kernel: ops.matmul(upstream, ops.transpose(kernel)),
        )
        return ops.sum(ops.square(y))

    got = array(_keras.gradient(loss, ops.array(x)))
    np.testing.assert_allclose(got, 2 * x @ whole @ whole.T, rtol=2e-4, atol=2e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads a TF graph")
@pytest.mark.parametrize("jit", [False, True])
def test_the_backward_pass_decodes_again(jit):
    """The codes are looked up twice in the optimized graph, and the constants once.

    Without `after`, both compilers keep the decoded weight for the backward pass.
    """
    assert lookups(jit, decode_again=True) == 3
    assert lookups(jit, decode_again=False) == 2


def lookups(jit, *, decode_again):
    """Return the number of lookups in the optimized graph of a step."""
    import tensorflow as tf

    packed = pack(WEIGHT, 16).arrays()

    def step(x, *values):
        own = dict(zip(packed, values, strict=True))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = apply_frozen(
                x,
                lambda after: decoded(
                    own, WEIGHT.shape, "float32", after if decode_again else None
                ),
                ops.matmul,
                lambda upstream, kernel: ops.matmul(upstream, ops.transpose(kernel)),
            )
            loss = tf.reduce_sum(y * y)
        return tape.gradient(loss, x)

    inputs = tf.random.normal((5, 40)), *map(tf.constant, packed.values())
    function = tf.function(step, jit_compile=jit)
    if jit:
        text = function.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")
        return text.count(" gather(")
    return sum(node.op == "GatherV2" for node in optimized(function, inputs).node)


def optimized(function, inputs):
    """Return the graph after TensorFlow's optimizations."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    concrete = function.get_concrete_function(*inputs)
    meta = tf.compat.v1.train.export_meta_graph(
        graph_def=concrete.graph.as_graph_def(), graph=concrete.graph
    )
    fetch = meta.collection_def["train_op"].node_list.value
    fetch.extend([each.name for each in concrete.outputs])
    return tf_optimizer.OptimizeGraph(config_pb2.ConfigProto(), meta)
