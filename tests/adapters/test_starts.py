"""PiSSA and LoftQ: the start of a pair, by an SVD of its kernel."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.starts import principal
from keras_transfer.quantization.packed_layers import PackedLayer
from tests.adapters import models
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.adapter_contract import small
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

RNG = np.random.default_rng(0)
X, Y = models.tokens(), models.labels()


def nested():
    """Return a classifier on a BERT of one block, with kernels of full rank."""
    keras.utils.set_random_seed(0)
    model = models.nested(num_layers=1)
    for variable in model.weights:
        if variable.name == "kernel":
            variable.assign(np.random.default_rng(1).normal(0, 0.3, variable.shape))
    return model


def pairs(model):
    return {host.name: (host, part) for host, part in all_parts(model)}


@pytest.mark.parametrize("scaling", [2.0, 0.5, -1.0])
def test_the_principal_part_by_hand(scaling):
    weight = np.diag([3.0, 1.0, 2.0]) @ np.eye(3, 4)
    a, b = principal(weight, 2, scaling)
    right = np.diag([3.0, 0.0, 2.0]) @ np.eye(3, 4)
    np.testing.assert_allclose(scaling * a @ b, right, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b))


def test_pissa_starts_with_the_largest_singular_values():
    model = nested()
    y = run(model, X)
    kernel = _keras.value(model.get_layer("backbone").get_layer("pooled_dense").kernel)
    kt.adapters.LoRA(2, 4, ["pooled_dense", "query"], init="pissa").attach(model)
    assert_close(run(model, X), y, atol=1e-5)
    _, part = pairs(model)["pooled_dense"]
    product = 2 * _keras.value(part.lora_a) @ _keras.value(part.lora_b)
    s = np.linalg.svd(kernel, compute_uv=False)
    assert abs(np.linalg.norm(kernel - product) - np.linalg.norm(s[2:])) < 1e-4
    names = {v.name for v in part.trainable_variables}
    assert names == {"lora_a", "lora_b"}


def test_pissa_trains_as_the_paper_does():
    """One step equals a step of a float layer with W - A B frozen and x A B added."""
    x, y = RNG.normal(size=(8, 6)).astype("float32"), RNG.normal(size=(8, 4))
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="only")])
    kernel = _keras.value(model.layers[0].kernel).copy()
    kt.adapters.LoRA(2, 2, "only", init="pissa").attach(model, train=[], verbose=0)
    (part,) = [part for _, part in all_parts(model)]
    a, b = (_keras.value(v).copy() for v in (part.lora_a, part.lora_b))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.fit(x, y, batch_size=8, verbose=0)
    error = 2 * (x @ (kernel - a @ b) + x @ a @ b - y) / y.size
    np.testing.assert_allclose(
        _keras.value(part.lora_a), a - 0.1 * x.T @ error @ b.T, atol=1e-5
    )
    np.testing.assert_allclose(
        _keras.value(part.lora_b), b - 0.1 * a.T @ x.T @ error, atol=1e-5
    )


@pytest.mark.parametrize(
    "quantized", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_pissa_is_saved_merged_and_removed(quantized, tmp_path):
    model = nested()
    if quantized:
        kt.quantize(model, block_size=8, verbose=0)
    y = run(model, X)
    kt.adapters.LoRA(2, targets="all-linear", init="pissa").attach(model, verbose=0)
    assert_close(run(model, X), y, atol=1e-5)
    models.compiled(model, run_eagerly=True).fit(X, Y, verbose=0)
    trained = run(model, X)
    assert np.abs(trained - y).max() > 1e-4
    model.save(tmp_path / "model.keras")
    assert_close(run(keras.models.load_model(tmp_path / "model.keras"), X), trained)
    path = tmp_path / "adapter.safetensors"
    kt.save_adapter(model, path, verbose=0)
    kt.adapters.detach(model)
    assert_close(run(model, X), y)
    kt.load_adapter(model, path, verbose=0)
    assert_close(run(model, X), trained)
    kt.adapters.merge(model, **{"dequantize": True} if quantized else {})
    assert_close(run(model, X), trained, atol=1e-4)


def test_loftq_is_nearer_to_the_float_model():
    model = nested()
    y = run(model, X)
    whole = {
        host.name: _keras.value(host.kernel).copy()
        for host in _keras.flat_layers(model)
        if host.name in ("query", "pooled_dense")
    }
    kt.quantize(plain := nested(), block_size=16, verbose=0)
    kt.adapters.LoRA(4, targets="all-linear", init="loftq").attach(model, verbose=0)
    first = {x.name: x for x in _keras.flat_layers(plain) if x.name in whole}
    for name, kernel in whole.items():
        host, part = pairs(model)[name]
        assert isinstance(host, PackedLayer) and host.packing.block_size == 16
        own = np.linalg.norm(host.unpacked() + part.delta(host) - kernel)
        assert own < 0.8 * np.linalg.norm(first[name].unpacked() - kernel)
    assert np.abs(run(model, X) - y).max() < np.abs(run(plain, X) - y).max()


@pytest.mark.slow
def test_loftq_trains_and_reloads(tmp_path):
    model = nested()
    kt.adapters.LoRA(2, init="loftq").attach(model, verbose=0)
    models.compiled(model, run_eagerly=True).fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, X), run(model, X))
    assert kt.adapters.attached(again)["default"].init == "loftq"


def test_bad_starts():
    with pytest.raises(ValueError, match="init"):
        kt.adapters.LoRA(init="svd")
    model = nested()
    for init in ("pissa", "loftq"):
        with pytest.raises(ValueError, match="one matrix"):
            kt.adapters.LoRA(2, targets="token_embedding", init=init).attach(model)
        with pytest.raises(ValueError, match="one matrix"):
            kt.adapters.DoRA(2, init=init).attach(model)
    assert not kt.adapters.attached(model)
    kt.quantize(model, block_size=8, verbose=0)
    with pytest.raises(ValueError, match="already quantized"):
        kt.adapters.LoRA(2, init="loftq").attach(model)
    kt.adapters.LoRA(2, init="pissa").attach(model, verbose=0)
    with pytest.raises(ValueError, match="init='pissa'"):
        kt.save_adapter(model, "folder", format="peft")


@pytest.mark.slow
class TestPissa(AdapterContract):
    learns = {"lora_a", "lora_b"}
    parameters = 2 * (16 * 2 + 2 * 16)  # query and value, rank 2
    no_images = "needs the kernel of a Dense or an EinsumDense"
    init = "pissa"
    at_once = True  # by rounding
    test_xla_trains_the_same = None  # LoRA's layers are tested with it

    def recipe(self, **kwargs):
        return kt.adapters.LoRA(rank=2, init=self.init, **kwargs)

    def test_starts_as_the_base_model(self):
        model = small()
        y = run(model, X)
        self.recipe().attach(model)
        assert_close(run(model, X), y, atol=1e-5)


class TestLoftQ(TestPissa):
    """Attaching packs the kernels, so the base model is the packed one."""

    init = "loftq"
    cannot_fold = "quantized"
    # The step decodes the packed kernels.
    test_xla_trains_the_same = AdapterContract.test_xla_trains_the_same

    def test_starts_as_the_base_model(self):
        model = small()
        self.recipe().attach(model)
        with pytest.raises(ValueError, match="so quantize is refused"):
            self.recipe().attach(model, "second")

    def test_disabled_adapter_gives_the_base_model_exactly(self):
        model = small()
        self.recipe().attach(model)
        for _, part in all_parts(model):
            if not part.replaces:
                part.lora_b.assign(np.zeros(part.lora_b.shape))
        y = run(model, X)
        models.disturb_head(self.disturbed(model))
        with kt.adapters.disabled(model):
            assert_close(run(model, X), y)

    def test_switching_between_two(self):
        model = self.attached("first")
        y = run(model, X)
        kt.adapters.LoRA(rank=2).attach(model, "second")
        models.disturb_head(self.disturbed(model, "second", 0.5), "second")
        assert np.abs(run(model, X) - y).max() > 1e-3
        kt.adapters.use(model, "first")
        assert_close(run(model, X), y)

    def test_layer_objects_as_targets(self):
        model, other = small(), small()
        layer = self.recipe().find(model)[0].layer
        self.recipe(targets=[layer]).attach(model)
        config = kt.adapters.attached(model)["default"].get_config()
        kt.adapters.LoRA.from_config(config).attach(other)
        assert models.trained_paths(other) == models.trained_paths(model)
