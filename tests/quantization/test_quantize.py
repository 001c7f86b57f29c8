"""kt.quantize: what changes, what is refused, and adapters on top."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.quantization.in_place import Quantized
from keras_transfer.quantization.packed_layers import PackedLayer
from tests.adapters import models
from tests.contracts import fresh
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run

X = models.tokens()
Y = models.labels()


def nested():
    """Return a classifier on a BERT of one block."""
    return models.nested(num_layers=1)


def quantized(make=nested, **kwargs):
    """Return a tiny BERT classifier in NF4."""
    keras.utils.set_random_seed(0)
    return kt.quantize(make(), "nf4", block_size=8, verbose=0, **kwargs)


def sequential(*units, size=16):
    layers = [keras.layers.Dense(n, name=f"block_{i}") for i, n in enumerate(units)]
    return keras.Sequential([keras.Input((size,)), *layers])


def packed_layers(model):
    return [x for x in _keras.flat_layers(model) if isinstance(x, PackedLayer)]


def classes(model):
    return [type(each) for each in _keras.flat_layers(model)]


def test_attach_counts_weights_and_not_bytes(capsys):
    said = []
    for model in (nested(), quantized()):
        kt.adapters.LoRA(rank=2).attach(model)
        said.append(capsys.readouterr().out.partition(" parameters train")[0])
    counts = [line.rpartition(": ")[2] for line in said]
    assert counts[0] == counts[1] and " of " in counts[0]


def test_all_kernels_below_the_head_and_nothing_else(capsys):
    model = nested()
    count = len(model.trainable_weights)
    names = [v.path for v in model.weights if v.name in ("kernel", "embeddings")]
    kt.quantize(model, "nf4", block_size=8)
    rest = [v.path for v in model.weights if v.name in ("kernel", "embeddings")]
    assert [path.split("/")[-2] for path in rest] == ["position_embedding", "logits"]
    assert len(packed_layers(model)) == len(names) - 2
    assert len(model.trainable_weights) == count - len(packed_layers(model))
    assert "NF4 on 9 layers" in capsys.readouterr().out
    for layer in _keras.flat_layers(model):
        layer.trainable = not layer.trainable
        layer.trainable = True
    assert not [v.path for v in model.trainable_weights if v.dtype == "uint8"]


def test_the_outputs_stay_near():
    keras.utils.set_random_seed(0)
    model = nested()
    y = keras.ops.convert_to_numpy(run(model, X))
    kt.quantize(model, "nf4", block_size=8, verbose=0)
    got = keras.ops.convert_to_numpy(run(model, X))
    assert 0 < np.abs(got - y).max() < 0.5 * np.abs(y).max()


# A Task is compiled, and Keras says so of each optimizer that has not trained yet.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("make", [nested, models.flat, models.task])
def test_a_reloaded_model_is_equal(make, tmp_path):
    model = quantized(make)
    model.layers[-1].trainable = False
    flags = [v.trainable for v in model.weights]
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    assert_close(run(again, X), run(model, X))
    assert [v.dtype for v in again.weights] == [v.dtype for v in model.weights]
    assert [v.trainable for v in again.weights] == flags
    assert len(packed_layers(again)) == len(packed_layers(model))


@pytest.mark.slow
def test_a_trained_adapter_reloads_in_a_fresh_process(tmp_path):
    model = quantized()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    models.compiled(model, run_eagerly=True)
    model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    steps = dict(x=X, y=Y, epochs=1, shuffle=False, verbose=0)
    again = fresh.load(path, X, fit=steps)
    assert_close(fresh.load(path, X).outputs, run(model, X))
    assert len(again.trainable) == len(model.trainable_weights)
    assert again.iterations == 3


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_lora_on_it_trains_and_the_base_does_not_change(jit):
    model = quantized()
    y = run(model, X)
    before = [
        _keras.value(v)
        for x in packed_layers(model)
        for v in x.packed_variables().values()
    ]
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    assert_close(run(model, X), y)
    models.compiled(model, 0.02, jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    losses = model.fit(X, Y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = [
        _keras.value(v)
        for x in packed_layers(model)
        for v in x.packed_variables().values()
    ]
    assert_close(after, before)
    kt.adapters.detach(model)
    assert all(isinstance(x, Quantized) for x in packed_layers(model))
    assert len(packed_layers(model)) == 9


RECIPES = {
    "LoRA on all": kt.adapters.LoRA(rank=2, targets="all-linear", dropout=0.1),
    "LoRA on words": kt.adapters.LoRA(rank=2, targets=["token_embedding", "query"]),
    "DoRA": kt.adapters.DoRA(rank=2),
    "VeRA": kt.adapters.VeRA(rank=2),
    "LoHa": kt.adapters.LoHa(rank=2),
    "IA3": kt.adapters.IA3(),
    "Bottleneck": kt.adapters.Bottleneck(size=2),
    "BitFit": kt.adapters.BitFit(),
}


def slow_but(first, *others):
    """Return parameters, all slow but the first."""
    return [first, *(pytest.param(each, marks=pytest.mark.slow) for each in others)]


@pytest.mark.parametrize("name", slow_but(*RECIPES))
def test_each_recipe_attaches_trains_and_reloads(name, tmp_path):
    model = quantized()
    y = run(model, X)
    RECIPES[name].attach(model, verbose=0)
    assert_close(run(model, X), y, atol=1e-6)
    models.compiled(model, run_eagerly=True)
    model.fit(X, Y, epochs=2, verbose=0)
    assert np.abs(run(model, X) - y).max() > 1e-4
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, X), run(model, X))


def test_several_adapters_switch():
    model = quantized()
    for name in ("first", "second"):
        kt.adapters.LoRA(rank=2).attach(model, name, verbose=0)
        models.disturb(model, 0.3 if name == "first" else 0.5, name)
    second = run(model, X)
    kt.adapters.use(model, "first")
    assert np.abs(run(model, X) - second).max() > 1e-3
    kt.adapters.use(model, "second")
    assert_close(run(model, X), second)


@pytest.mark.parametrize("recipe", slow_but("LoRA on words", "DoRA", "IA3"))
def test_merging_into_float_kernels(recipe, tmp_path, capsys):
    model = quantized()
    kinds = classes(nested())
    RECIPES[recipe].attach(model, verbose=0)
    models.disturb(model)
    y = run(model, X)
    with pytest.raises(ValueError, match=r"quantized \(nf4\).*dequantize=True"):
        kt.adapters.merge(model)
    assert_close(run(model, X), y)
    kt.adapters.merge(model, dequantize=True)
    assert "rounding error of NF4 stays" in capsys.readouterr().out
    assert classes(model) == kinds
    assert_close(run(model, X), y, atol=1e-4 * np.abs(y).max())
    assert {v.dtype for v in model.weights} == {"float32"}
    model.save(tmp_path / "model.keras")
    assert_close(
        run(keras.models.load_model(tmp_path / "model.keras"), X), run(model, X)
    )
    models.compiled(model, run_eagerly=True).fit(X, Y, verbose=0)


def test_a_merged_model_has_the_order_of_a_float_model():
    model = quantized()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    kt.adapters.merge(model, dequantize=True, verbose=0)
    plain = nested()
    assert [v.path for v in plain.weights] == [v.path for v in model.weights]
    plain.set_weights(model.get_weights())
    assert_close(run(plain, X), run(model, X))


def test_dequantize_needs_a_quantized_model():
    model = nested()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    with pytest.raises(ValueError, match="no kernels in NF4"):
        kt.adapters.merge(model, dequantize=True)


def test_an_adapter_of_the_float_base_is_told_and_allowed_on_demand(tmp_path):
    keras.utils.set_random_seed(0)
    model = nested()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    models.disturb(model)
    path = tmp_path / "adapter.safetensors"
    kt.save_adapter(model, path, verbose=0)
    model = quantized()
    kinds = classes(model)
    with pytest.raises(ValueError, match=r"is quantized \(nf4\).*check_base=False"):
        kt.load_adapter(model, path)
    assert classes(model) == kinds
    y = run(model, X)
    kt.load_adapter(model, path, check_base=False, verbose=0)
    assert np.abs(run(model, X) - y).max() > 1e-3


def test_an_adapter_of_the_quantized_base(tmp_path):
    model = quantized()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    models.disturb(model)
    y = run(model, X)
    path = tmp_path / "adapter.safetensors"
    kt.save_adapter(model, path, verbose=0)
    again = kt.load_adapter(quantized(), path, verbose=0)
    assert_close(run(again, X), y)
    with pytest.raises(ValueError, match="other weights"):
        kt.load_adapter(quantized(double_quantization=False), path)
    keras.utils.set_random_seed(0)
    with pytest.raises(ValueError, match="trained on other weights"):
        kt.load_adapter(nested(), path)


@pytest.mark.slow
def test_the_export_computes_the_same(tmp_path):
    import tensorflow as tf

    model = quantized()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    models.disturb(model)
    kt.export_serving(model, tmp_path, samples=X)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    serve = loaded.signatures["serving_default"]
    named = {k: tf.constant(v) for k, v in X.items()}
    (got,) = serve(**named).values()
    assert_close(got, run(model, X), atol=1e-5)
    dtypes = [v.dtype.name for v in loaded.weights]
    assert dtypes.count("uint8") == 2 * len(packed_layers(model))


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_form_are_refused(tmp_path):
    model, whole = quantized(), nested()
    path = tmp_path / "w.weights.h5"
    whole.save_weights(path)
    with pytest.raises(ValueError, match="is quantized"):
        model.load_weights(path)
    again = quantized()
    model.save_weights(path)
    again.load_weights(path)
    assert_close(run(again, X), run(model, X))


REFUSED = {
    "twice": (
        lambda m: kt.quantize(m, verbose=0, block_size=8),
        {},
        "already quantized",
    ),
    "adapters": (
        lambda m: kt.adapters.LoRA(rank=2, targets="block_0").attach(m, verbose=0),
        {},
        "Quantize first, then attach",
    ),
    "Keras's LoRA": (lambda m: m.layers[0].enable_lora(2), {}, "enable_lora"),
    "Keras's int8": (lambda m: m.layers[0].quantize("int8"), {}, "already quantized"),
    "trains": (
        lambda m: (m.compile("sgd", "mse"), m.optimizer.build(m.trainable_weights)),
        {},
        "trains the kernel of 'block_0'",
    ),
    "NaN": (lambda m: m.layers[1]._kernel.assign(np.full((16, 16), np.nan)), {}, "NaN"),
    "odd": (lambda m: None, {"block_size": 3}, "odd"),
    "zero": (lambda m: None, {"block_size": 0}, "block_size"),
    "block": (lambda m: None, {"block_size": 96}, "block_size=32"),
    "mode": (lambda m: None, {"mode": "nf3"}, "mode"),
    "gptq": (lambda m: None, {"mode": "gptq"}, "needs a calibration dataset"),
    "int8": (lambda m: None, {"mode": "int8"}, "one constant for each output"),
    "int4": (
        lambda m: None,
        {"mode": "int4", "double_quantization": False},
        "double_quantization=False has no effect",
    ),
    "int4 block": (lambda m: None, {"mode": "int4", "block_size": 1}, "block_size"),
    "int4 NaN": (
        lambda m: m.layers[1]._kernel.assign(np.full((16, 16), np.nan)),
        {"mode": "int4"},
        "NaN",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_changes_nothing(what):
    change, kwargs, match = REFUSED[what]
    model = sequential(16, 16)
    change(model)
    before, kinds = model.get_weights(), classes(model)
    with pytest.raises(ValueError, match=match):
        kt.quantize(model, **{"block_size": 8, "verbose": 0} | kwargs)
    assert classes(model) == kinds
    assert_close(model.get_weights(), before)


def test_other_bad_input():
    with pytest.raises(TypeError, match="Keras model"):
        kt.quantize("model")
    with pytest.raises(TypeError, match="double_quantization"):
        kt.quantize(sequential(16), double_quantization=1)
    with pytest.raises(ValueError, match="not built"):
        kt.quantize(keras.Sequential([keras.layers.Dense(4)]))
    convolution = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match="nothing to quantize"):
        kt.quantize(convolution)
    embedding = keras.Sequential([keras.Input((3,)), keras.layers.Embedding(8, 12)])
    with pytest.raises(ValueError, match="12 columns.*block_size=4"):
        kt.quantize(embedding, block_size=8)
    with pytest.raises(ValueError, match="already quantized"):
        quantized().quantize("int8")
    with pytest.raises(ValueError, match="kt.adapters.LoRA"):
        packed_layers(quantized())[0].enable_lora(2)


def test_a_compiled_model_that_has_not_trained():
    model = sequential(16, 16)
    model.compile("adam", "mse", jit_compile=False)
    x = np.ones((4, 16), "float32")
    before = model.predict(x, verbose=0)
    kt.quantize(model, block_size=8, verbose=0)
    after = model.predict(x, verbose=0)
    assert np.abs(after - before).max() > 0
    assert_close(after, run(model, x), atol=1e-6)
    model.fit(x, x, verbose=0)


def test_a_report_of_a_quantized_model():
    model = quantized()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    assert "nf4" in str(kt.report(model)) or kt.report(model).to_dict()["total"]


@pytest.mark.slow
def test_two_replicas_equal_one(strategy):
    def make():
        model = quantized()
        keras.utils.set_random_seed(5)
        kt.adapters.LoRA(rank=2).attach(model, verbose=0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
        return model

    one = make()
    with strategy.scope():
        two = make()
    one.run_eagerly = True  # saves a trace
    fit(one, X, Y)
    fit(two, X, Y)
    assert_close(two.get_weights(), one.get_weights(), 1e-5)
