"""PrefixTuning: the contract, attention by hand, masks, generation, and folding."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.adapters import prompt_models
from tests.backbones import families
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.adapter_contract import small
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

X = models.tokens()


class Prefix(AdapterContract):
    at_once = True
    cannot_fold = "cannot be merged"
    no_images = "no attention layer"


class TestPrefixTuning(Prefix):
    learns = {"prefix_keys", "prefix_values"}
    parameters = 2 * 4 * 16

    def recipe(self, **kwargs):
        return adapters.PrefixTuning(tokens=4, **kwargs)


class TestProjection(Prefix):
    learns = {
        *("prefix_inputs", "prefix_down", "prefix_down_bias"),
        *("prefix_up", "prefix_up_bias"),
    }
    parameters = 4 * 16 + 16 * 5 + 5 + 5 * 32 + 32

    def recipe(self, **kwargs):
        return adapters.PrefixTuning(tokens=4, projection=5, **kwargs)


def attention_of(x, **kwargs):
    """Return a model of one attention layer over itself, with a prefix of 3 keys."""
    inputs = keras.Input(x.shape[1:])
    layer = keras.layers.MultiHeadAttention(2, 4, name="attention", **kwargs)
    model = keras.Model(inputs, layer(inputs, inputs))
    adapters.PrefixTuning(tokens=3).attach(model, verbose=0)
    models.disturb(model, 1.0)
    return model, layer


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_attention_by_hand():
    inputs, mask = keras.Input((5, 6)), keras.Input((5, 5), dtype="bool")
    layer = keras.layers.MultiHeadAttention(2, 4, value_dim=3)
    model = keras.Model([inputs, mask], layer(inputs, inputs, attention_mask=mask))
    adapters.PrefixTuning(tokens=3).attach(model, verbose=0)
    models.disturb(model, 1.0)
    x = random(2, 5, 6)
    seen = np.tril(np.ones((2, 5, 5), bool))
    seen[0, :, 3:] = False
    w = {v.path.split("/", 1)[1]: array(v) for v in layer.weights}

    def project(name):
        kernel, bias = w[f"{name}/kernel"], w[f"{name}/bias"]
        return np.einsum("bsd,dhf->bshf", x, kernel) + bias

    _, _, part = next(places(model))
    before = [np.repeat(array(v)[None], 2, 0) for v in part.keys_and_values()]
    keys = np.concatenate([before[0], project("key")], 1)
    values = np.concatenate([before[1], project("value")], 1)
    scores = np.einsum("bqhf,bkhf->bhqk", project("query"), keys) / 4**0.5
    open_to_all = np.concatenate([np.ones((2, 5, 3), bool), seen], -1)
    weights = softmax(np.where(open_to_all[:, None], scores, -1e9))
    heads = np.einsum("bhqk,bkhf->bqhf", weights, values)
    kernel = w["attention_output/kernel"]
    expected = np.einsum("bqhf,hfd->bqd", heads, kernel) + w["attention_output/bias"]
    assert_close(model([x, seen]), expected, 1e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_keys_of_real_tokens_are_these_tokens(grouped):
    kind = keras.layers.GroupQueryAttention if grouped else None
    layer = kind(4, 4, 2) if grouped else keras.layers.MultiHeadAttention(4, 4)
    x, extra = random(2, 5, 6), random(3, 6)
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, layer(inputs, inputs))
    both = np.concatenate([np.repeat(extra[None], 2, 0), x], 1)
    expected = array(layer(x, both))
    adapters.PrefixTuning(tokens=3).attach(model, verbose=0)
    _, _, part = next(places(model))
    part.prefix_keys.assign(layer._key_dense(extra[None])[0])
    part.prefix_values.assign(layer._value_dense(extra[None])[0])
    assert_close(model(x), expected, 1e-6)


def test_keys_without_weight_leave_the_base_model():
    x = random(2, 5, 6)
    model, layer = attention_of(x)
    layer._query_dense.kernel.assign(layer._query_dense.kernel * 0)
    layer._query_dense.bias.assign(layer._query_dense.bias * 0 + 1)
    _, _, part = next(places(model))
    part.prefix_keys.assign(part.prefix_keys * 0 - 1e4)
    with adapters.disabled(model):
        expected = array(model(x))
    assert_close(model(x), expected, 1e-6)


def test_scores_are_those_of_the_text():
    x = random(2, 5, 6)
    model, layer = attention_of(x)
    outputs, scores = layer(x, x, return_attention_scores=True)
    assert_close(outputs, model(x), 1e-6)
    assert scores.shape == (2, 2, 5, 5)
    assert (array(scores).sum(-1) < 1).all()


def test_masked_tokens_change_nothing():
    model = small()
    adapters.PrefixTuning(tokens=3).attach(model, verbose=0)
    models.disturb(model, 1.0)
    other = dict(X, token_ids=np.where(X["padding_mask"], X["token_ids"], 9))
    assert (other["token_ids"] != X["token_ids"]).any()
    assert_close(run(model, other), run(model, X), 1e-6)


@pytest.mark.parametrize("name", prompt_models.QUICK)
def test_generation_with_a_cache_equals_no_cache(name):
    recipe = adapters.PrefixTuning(3, 5 if name == "GPT2" else None)
    prompt_models.check_generation(name, recipe)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [x for x in prompt_models.DECODERS if x not in prompt_models.QUICK]
)
def test_generation_of_other_families(name):
    prompt_models.check_generation(name, adapters.PrefixTuning(3))


def test_folding_the_network_keeps_the_outputs(tmp_path):
    model = models.nested()
    adapters.PrefixTuning(3, projection=5).attach(model, verbose=0)
    adapters.PrefixTuning(2).attach(model, "other", verbose=0)
    adapters.use(model, "default")
    models.disturb(model, 1.0)
    y = run(model, X)
    assert adapters.fold_projection(model) is model
    assert_close(run(model, X), y, 1e-6)
    assert adapters.active(model) == {"default": 1.0}
    names = {v.name for v in model.trainable_weights}
    assert names == {"prefix_keys", "prefix_values", "kernel", "bias"}
    assert adapters.attached(model)["default"].projection is None
    with pytest.raises(ValueError, match="nothing to fold"):
        adapters.fold_projection(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, X), y, 1e-6)
    models.compiled(model).fit(X, models.labels(), verbose=0)


@pytest.mark.parametrize("projection", [None, 5])
def test_adapter_files(tmp_path, projection):
    model = models.nested(num_layers=3)
    adapters.PrefixTuning(3, projection).attach(model, verbose=0)
    models.disturb_head(models.disturb(model, 1.0))
    y = run(model, X)
    kt.save_adapter(model, tmp_path / "prefix.safetensors", verbose=0)
    adapters.detach(model)
    kt.load_adapter(model, tmp_path / "prefix.safetensors", verbose=0)
    assert_close(run(model, X), y)
    others = models.nested(num_layers=3)
    with pytest.raises(ValueError, match="base"):
        kt.load_adapter(others, tmp_path / "prefix.safetensors")


def test_a_file_for_other_heads_raises(tmp_path):
    x = random(2, 5, 6)
    model, _ = attention_of(x)
    kt.save_adapter(model, tmp_path / "prefix.safetensors", verbose=0)
    inputs = keras.Input((5, 6))
    layer = keras.layers.MultiHeadAttention(4, 2, name="attention")
    other = keras.Model(inputs, layer(inputs, inputs))
    with pytest.raises(ValueError, match=r"\(3, 2, 4\)"):
        kt.load_adapter(other, tmp_path / "prefix.safetensors", check_base=False)
    assert adapters.attached(other) == {}


@pytest.mark.slow
def test_a_traced_function_stays_valid():
    model = small()
    adapters.PrefixTuning(tokens=3).attach(model, "first", verbose=0)
    adapters.PrefixTuning(tokens=2).attach(model, "second", verbose=0)
    models.disturb(model, 1.0)
    y = model.predict(X, verbose=0)
    function = model.predict_function
    adapters.use(model, "first")
    other = model.predict(X, verbose=0)
    assert np.abs(other - y).max() > 1e-3
    model.predict_function = function
    assert_close(model.predict(X, verbose=0), other, 1e-6)


@pytest.mark.parametrize("name", ["t5", "deberta_v3", "xlnet", "esm"])
def test_families_that_are_refused_by_name(name):
    model = families.build(name)
    with pytest.raises(ValueError, match=r"cannot be added to the \w+Attention at"):
        adapters.PrefixTuning(tokens=2).attach(model)
    assert adapters.attached(model) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["roberta", "distilbert", "albert", "electra", "xlm_roberta", "bart"]
)
def test_other_encoders(name):
    model = families.build(name)
    x = {key: np.ones((2, 8), "int32") for key in model.input}
    y = run(model, x)
    adapters.PrefixTuning(tokens=2).attach(model, verbose=0)
    models.disturb(model, 1.0)
    changed = run(model, x)
    for a, b in zip(keras.tree.flatten(y), keras.tree.flatten(changed), strict=True):
        assert a.shape == b.shape
    with adapters.disabled(model):
        assert_close(run(model, x), y)


def test_invalid_arguments_raise():
    for tokens in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="tokens"):
            adapters.PrefixTuning(tokens)
    with pytest.raises(ValueError, match="projection"):
        adapters.PrefixTuning(3, 0)
    with pytest.raises(ValueError, match="PrefixTuning cannot adapt"):
        adapters.PrefixTuning(targets="logits").attach(models.nested())


def test_shifted_positions(tmp_path):
    model = models.nested()
    adapters.PrefixTuning(3, shift_positions=True).attach(model, verbose=0)
    for _, host, part in places(model):
        if part.named_weights:  # no weight for the prefix, so only positions count
            part.prefix_values.assign(part.prefix_values * 0)
            part.prefix_keys.assign(part.prefix_keys * 0 - 1e6)
            host._query_dense.kernel.assign(host._query_dense.kernel * 0)
            host._query_dense.bias.assign(host._query_dense.bias * 0 + 1)
    y = array(run(model, X))
    kt.save_adapter(model, tmp_path / "a.safetensors", verbose=0)
    layer = model.get_layer("backbone").position_embedding
    with adapters.disabled(model):
        base = array(run(model, X))
        assert np.abs(base - y).max() > 1e-4
        table = array(layer.position_embeddings)
        layer.position_embeddings.assign(np.roll(table, -3, 0))
        assert_close(run(model, X), y, 1e-6)
        layer.position_embeddings.assign(table)
    adapters.detach(model)
    kt.load_adapter(model, tmp_path / "a.safetensors", verbose=0)
    assert_close(run(model, X), y)
    long = {key: np.repeat(value, 2, 1)[:, :10] for key, value in X.items()}
    with pytest.raises(ValueError, match="only 12 positions.*to 9 tokens"):
        run(model, long)
    with pytest.raises(ValueError, match="no learned positions"):
        adapters.PrefixTuning(3, shift_positions=True).attach(families.build("llama"))


@pytest.mark.slow
def test_two_replicas_train_as_one(strategy):
    prompt_models.check_two_replicas(adapters.PrefixTuning(2), strategy)
