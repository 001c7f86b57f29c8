"""LoRADense and similar layers: the layer contract, and frozen weights."""

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.layer_contract import LayerContract


def perturbed(layer):
    """Give the pair of a built layer random values, and return the layer."""
    for variable in layer.trainable_weights:
        variable.assign(np.random.default_rng(1).normal(0, 0.1, variable.shape))
    return layer


class PairContract(LayerContract):
    """The contract of all four layers, in addition to the layer contract."""

    def built(self):
        layer = self.make()
        layer(self.inputs())
        return layer

    def test_only_the_pair_trains(self):
        names = [v.name for v in self.built().trainable_weights]
        assert names == ["lora_a", "lora_b"]

    def test_the_base_stays_frozen_when_trainable_changes(self):
        layer = self.built()
        before = [v.path for v in layer.trainable_weights]
        layer.trainable = False
        assert layer.trainable_weights == []
        layer.trainable = True
        assert [v.path for v in layer.trainable_weights] == before

    def test_starts_as_the_plain_layer(self):
        layer = self.built()
        plain = layer.plain_class.from_config(self.plain_config(layer))
        plain(self.inputs())
        plain.set_weights(layer.get_weights()[: len(plain.weights)])
        assert_close(layer(self.inputs()), plain(self.inputs()))

    def plain_config(self, layer):
        config = layer.get_config()
        for name in ("rank", "alpha", "dropout"):
            config.pop(name, None)
        return config

    @pytest.mark.parametrize("rank", [0, -1, 1.5, True, 100])
    def test_an_invalid_rank_raises(self, rank):
        with pytest.raises(ValueError, match="rank"):
            self.make(rank=rank)(self.inputs())

    @pytest.mark.parametrize("alpha", [0, float("nan"), float("inf"), "x"])
    def test_an_invalid_alpha_raises(self, alpha):
        with pytest.raises(ValueError, match="alpha"):
            self.make(alpha=alpha)


class TestLoRADense(PairContract):
    representative = True

    def make(self, rank=2, **kwargs):
        return adapters.LoRADense(5, "tanh", rank=rank, name="dense", **kwargs)

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 3, 4)).astype("float32")

    def test_equals_numpy(self):
        layer = perturbed(self.built())
        x = self.inputs()
        a, b = (array(v) for v in layer.trainable_weights)
        kernel, bias = (array(v) for v in (layer.kernel, layer.bias))
        expected = np.tanh(x @ kernel + bias + 16 / 2 * (x @ a) @ b)
        assert_close(layer(x), expected, 1e-5)

    def test_from_dense_keeps_the_weights(self):
        dense = keras.layers.Dense(5, "relu", name="mine")
        x = self.inputs()
        y = dense(x)
        layer = adapters.LoRADense.from_dense(dense, rank=3, alpha=6)
        assert layer.name == "mine" and layer.rank == 3 and layer.alpha == 6
        assert_close(layer(x), y)
        assert len(dense.trainable_weights) == 2  # the given layer does not change

    def test_from_dense_accepts_an_unbuilt_layer(self):
        layer = adapters.LoRADense.from_dense(keras.layers.Dense(5), rank=2)
        assert layer(self.inputs()).shape == (8, 3, 5)

    def test_from_dense_raises_for_other_layers(self):
        with pytest.raises(TypeError, match="Dense"):
            adapters.LoRADense.from_dense(keras.layers.Conv2D(3, 3))
        with pytest.raises(ValueError, match="already"):
            adapters.LoRADense.from_dense(self.make())
        native = keras.layers.Dense(5)
        native.build((None, 4))
        native.enable_lora(2)
        with pytest.raises(ValueError, match="enable_lora"):
            adapters.LoRADense.from_dense(native)

    def test_dropout_is_on_the_inputs_of_a_only_in_training(self):
        layer = self.make(dropout=0.5)
        layer(self.inputs())
        perturbed(layer)
        x = np.ones((1, 4), "float32")
        quiet = [array(layer(x)) for _ in range(2)]
        noisy = [array(layer(x, training=True)) for _ in range(8)]
        assert np.array_equal(*quiet)
        assert len({each.tobytes() for each in noisy}) > 1

    @pytest.mark.parametrize("dropout", [-0.1, 1.0, "x"])
    def test_an_invalid_dropout_raises(self, dropout):
        with pytest.raises(ValueError, match="dropout"):
            self.make(dropout=dropout)


class TestLoRAEinsumDense(PairContract):
    mask = None  # Keras's EinsumDense drops the mask

    def make(self, rank=2, alpha=1, **kwargs):
        settings = dict(rank=rank, alpha=alpha, bias_axes="hd")
        return adapters.LoRAEinsumDense("btc,chd->bthd", (3, 2, 3), **settings | kwargs)

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 3, 6)).astype("float32")

    def test_folds_the_heads_as_in_peft(self):
        layer = perturbed(self.built())
        a, b = (array(v) for v in layer.trainable_weights)
        assert a.shape == (6, 2) and b.shape == (2, 6)
        kernel = array(layer.kernel) + (a @ b).reshape(6, 2, 3) / 2
        expected = np.einsum("btc,chd->bthd", self.inputs(), kernel)
        assert_close(layer(self.inputs()), expected, 1e-5)

    @pytest.mark.parametrize(
        "equation, shape, inputs, a, b",
        [
            ("bthd,hdc->btc", (None, 5), (2, 3, 2, 4), (8, 2), (2, 5)),
            ("...x,xy->...y", 5, (2, 3, 4), (4, 2), (2, 5)),
            ("ab,cb->ac", 5, (2, 4), (4, 2), (2, 5)),
            ("abc,cde->adbe", (2, None, 3), (2, 3, 6), (6, 2), (2, 6)),
        ],
    )
    def test_equations_whose_kernel_is_a_matrix(self, equation, shape, inputs, a, b):
        layer = adapters.LoRAEinsumDense(equation, shape, rank=2)
        x = np.random.default_rng(0).normal(size=inputs).astype("float32")
        layer(x)
        assert [tuple(v.shape) for v in layer.trainable_weights] == [a, b]
        perturbed(layer)
        y = array(layer(x))
        model = keras.Sequential([keras.Input(inputs[1:]), layer])
        adapters.merge(model)
        assert type(layer) is keras.layers.EinsumDense
        assert_close(model(x), y, 1e-5)

    @pytest.mark.parametrize("equation", ["bc,bcd->bd", "bt,btd->btd"])
    def test_an_equation_whose_kernel_is_not_a_matrix_raises(self, equation):
        layer = adapters.LoRAEinsumDense(equation, (4, 4), rank=2)
        with pytest.raises(ValueError, match="not a matrix|rank|shape|dim"):
            layer.build((3, 4))


class TestLoRAConv2D(PairContract):
    mask = None

    def make(self, rank=2, alpha=1, **kwargs):
        return adapters.LoRAConv2D(5, 3, rank=rank, alpha=alpha, strides=2, **kwargs)

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype("float32")

    @pytest.mark.parametrize(
        "kwargs",
        [
            dict(strides=2, padding="same"),
            dict(dilation_rate=2),
            dict(kernel_size=1, use_bias=False),
            dict(activation="relu", padding="valid"),
        ],
    )
    def test_equals_a_convolution_with_the_sum(self, kwargs):
        layer = adapters.LoRAConv2D(5, kwargs.pop("kernel_size", 3), rank=2, **kwargs)
        model = keras.Sequential([keras.Input((6, 6, 4)), layer])
        perturbed(layer)
        y = model(self.inputs())
        adapters.merge(model)
        assert type(layer) is keras.layers.Conv2D
        assert_close(model(self.inputs()), y, 1e-5)

    def test_groups_stay_separate(self):
        layer = adapters.LoRAConv2D(4, 3, rank=2, groups=2)
        x = self.inputs()
        layer(x)
        perturbed(layer)
        y = array(layer(x))
        x[..., 2:] += 1  # the second group's channels
        assert np.array_equal(layer(x)[..., :2], y[..., :2])
        assert not np.array_equal(layer(x)[..., 2:], y[..., 2:])


class TestLoRAEmbedding(PairContract):
    mask = None

    def make(self, rank=2, alpha=1, **kwargs):
        return adapters.LoRAEmbedding(9, 6, rank=rank, alpha=alpha, **kwargs)

    def inputs(self):
        return np.arange(24).reshape(8, 3).astype("int32") % 9

    def test_equals_numpy(self):
        layer = perturbed(self.built())
        a, b = (array(v) for v in layer.trainable_weights)
        expected = (array(layer.embeddings) + a @ b / 2)[self.inputs()]
        assert_close(layer(self.inputs()), expected, 1e-5)

    def test_mask_zero_sets_the_mask(self):
        layer = self.make(mask_zero=True)
        assert_close(layer(self.inputs())._keras_mask, self.inputs() != 0)


def test_initial_values_match_peft():
    layer = adapters.LoRADense(400, rank=100)
    layer.build((None, 400))
    a, b = (array(v) for v in layer.trainable_weights)
    bound = 1 / np.sqrt(400)
    assert np.abs(a).max() <= bound and np.abs(a).max() > 0.99 * bound
    assert abs(a.std() - bound / np.sqrt(3)) < 0.01 * bound
    assert not b.any()
    conv = adapters.LoRAConv2D(64, 3, rank=32)
    conv.build((None, 8, 8, 16))
    a = array(conv.trainable_weights[0])
    assert 0.99 / 12 < np.abs(a).max() <= 1 / 12  # 3 * 3 * 16 inputs
    embedding = adapters.LoRAEmbedding(100, 80, rank=50)
    embedding.build()
    a, b = (array(v) for v in embedding.trainable_weights)
    assert not a.any() and abs(b.std() - 1) < 0.05
