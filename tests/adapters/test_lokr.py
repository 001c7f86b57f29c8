"""LoKr: the contract of recipes, np.kron as the oracle, PEFT's files."""

import json

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.kronecker import factored
from keras_transfer.adapters.switching import places
from keras_transfer.saving.peft.load import load_peft
from keras_transfer.saving.peft.save import save_peft
from tests import tiny
from tests.adapters import models
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.saving import peft_models


class TestLoKr(AdapterContract):
    learns = {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}
    parameters = 2 * (4 * 4 + 4 + 4)  # query and value, 16 is factored into 4 x 4

    def recipe(self, **kwargs):
        return adapters.LoKr(rank=1, alpha=3, **kwargs)


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def adapted(layer, x, rank=1, **kwargs):
    """Return a model of one layer with a disturbed LoKr, and its part."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.set_weights([random(*v.shape) for v in layer.weights])
    adapters.LoKr(rank=rank, alpha=3, targets=layer.name, **kwargs).attach(model)
    models.disturb(model)
    return model, next(places(model))[2]


def change(part):
    """Return alpha / rank times the Kronecker product, with rows for the outputs."""
    weights = {name: array(value) for name, value in part.named_weights.items()}
    both = []
    for name in ("lokr_w1", "lokr_w2"):
        factors = [weights[x] for x in sorted(weights) if x.startswith(name)]
        both.append(factors[0] if len(factors) == 1 else factors[0] @ factors[1])
    return 3 / part.rank * np.kron(*both)


FORMS = {
    "a factored W2": (dict(rank=1), ["lokr_w1", "lokr_w2_a", "lokr_w2_b"]),
    "whole matrices": (dict(rank=2), ["lokr_w1", "lokr_w2"]),
    "a large rank": (dict(rank=8), ["lokr_w1", "lokr_w2"]),
    "both factored": (
        dict(rank=1, decompose_both=True),
        ["lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"],
    ),
    "a chosen factor": (
        dict(rank=1, decompose_factor=4, decompose_both=True),
        ["lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_dense_by_hand(form):
    arguments, names = FORMS[form]
    x = random(2, 8)
    layer = keras.layers.Dense(12, "tanh", name="it")
    model, part = adapted(layer, x, **arguments)
    assert sorted(part.named_weights) == names
    weight = array(layer.kernel) + change(part).T
    expected = np.tanh(x @ weight + array(layer.bias))
    assert_close(model(x), expected, 1e-5)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-5)


@pytest.mark.parametrize(
    "equation, features, shape, order",
    [
        ("abc,cde->abde", (6,), (5, 2, 3), "cde"),
        ("abcd,dec->aeb", (2, 3), (4, 5), "dce"),  # the new axis between the others
    ],
)
def test_einsum_by_hand(equation, features, shape, order):
    x = random(2, 5, *features)
    layer = keras.layers.EinsumDense(equation, shape, name="it")
    model, part = adapted(layer, x)
    letters = equation.split(",")[1][:3]
    kernel = array(layer.kernel)
    size = dict(zip(letters, kernel.shape, strict=True))
    matrix = change(part).T.reshape([size[x] for x in order])
    weight = kernel + np.einsum(f"{order}->{letters}", matrix)
    assert_close(model(x), np.einsum(equation, x, weight), 1e-4)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_by_hand(groups):
    x = random(2, 6, 6, 8)
    layer = keras.layers.Conv2D(6, 3, strides=2, groups=groups, name="it")
    model, part = adapted(layer, x)
    # PEFT's kernel is (out, in, height, width).
    delta = change(part).reshape(6, 8 // groups, 3, 3).transpose(2, 3, 1, 0)
    weight = array(layer.kernel) + delta
    expected = keras.ops.conv(x, weight, strides=2)
    assert_close(model(x), expected + array(layer.bias), 1e-4)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-5)


def test_the_rank_is_the_product_of_two_ranks():
    _, part = adapted(keras.layers.Dense(16, name="it"), random(2, 16))
    assert np.linalg.matrix_rank(change(part)) == 4 * 1


@pytest.mark.parametrize(
    "size, factor, found",
    [
        (768, -1, (24, 32)),
        (127, -1, (1, 127)),
        (16, -1, (4, 4)),
        (128, 4, (4, 32)),
        (12, 6, (6, 2)),  # a divisor is taken even if it is the larger number
        (20, 3, (2, 10)),
    ],
)
def test_numbers_are_factored_as_in_peft(size, factor, found):
    assert factored(size, factor) == found


def test_patterns_set_rank_and_alpha_by_layer():
    model = models.nested()
    recipe = adapters.LoKr(
        rank=1, rank_pattern={"query": 2}, alpha_pattern={"value": 5}
    )
    recipe.attach(model)
    numbers = {path.split("/")[-1]: (p.rank, p.scaling) for path, _, p in places(model)}
    assert numbers == {"query": (2, 8 / 2), "value": (1, 5 / 1)}


@pytest.mark.parametrize(
    "kwargs, match",
    [
        (dict(rank=0), "rank=0"),
        (dict(alpha=0), "alpha=0"),
        (dict(decompose_factor=0), "decompose_factor=0"),
        (dict(decompose_factor=2.5), "decompose_factor=2.5"),
        (dict(decompose_both="yes"), "decompose_both='yes'"),
    ],
)
def test_arguments_out_of_range_raise(kwargs, match):
    with pytest.raises(ValueError, match=match):
        adapters.LoKr(**kwargs)


@pytest.mark.parametrize(
    "kwargs, match",
    [
        (dict(rank_pattern={"qery": 1}), "matches none of the targets"),
        (dict(targets="token_embedding"), "Embedding, which LoKr cannot"),
    ],
)
def test_a_failing_attach_changes_nothing(kwargs, match):
    model = tiny.bert(num_layers=1)
    classes = models.classes(model)
    with pytest.raises(ValueError, match=match):
        adapters.LoKr(**dict(rank=1) | kwargs).attach(model)
    assert models.classes(model) == classes
    assert adapters.attached(model) == {}


def test_a_weighted_sum_raises():
    model = models.nested()
    for name in ("first", "second"):
        adapters.LoKr(rank=1).attach(model, name)
    with pytest.raises(ValueError, match="not linear"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})


def saved(tmp_path, family="bert", **kwargs):
    model = peft_models.backbone(family)
    adapters.LoKr(**dict(rank=1, alpha=3) | kwargs).attach(model)
    models.disturb(model)
    save_peft(model, tmp_path)
    return model


@pytest.mark.slow
def test_a_saved_peft_file_loads(tmp_path):
    # tests/saving/peft checks PEFT's own files and their outputs in PyTorch.
    arguments = dict(decompose_factor=2, decompose_both=True)
    model = saved(
        tmp_path, targets="all-linear", rank_pattern={"query": 2}, **arguments
    )
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["alpha"]) == ("LOKR", 1, 3)
    assert (config["decompose_factor"], config["decompose_both"]) == (2, True)
    again = peft_models.backbone("bert")
    load_peft(again, tmp_path)
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs, 2e-6)


@pytest.mark.parametrize(
    "setting, match",
    [
        (dict(module_dropout=0.1), "module_dropout"),
        (dict(decompose_factor=0), "decompose_factor=0"),
        (dict(decompose_factor=2), "has the shape|has the tensors"),
        (dict(r=5), "has the tensors"),
    ],
)
def test_settings_that_do_not_fit_the_tensors_raise(tmp_path, setting, match):
    saved(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    with pytest.raises(ValueError, match=match):
        load_peft(peft_models.backbone("bert"), tmp_path)


@pytest.mark.parametrize(
    "recipe, target, match",
    [
        (adapters.LoKr, "query", "the module as a whole"),
        (adapters.LoHa, "attention_output", "Conv1D, for which PEFT has no LoHa"),
    ],
)
def test_modules_that_peft_cannot_have_are_refused(tmp_path, recipe, target, match):
    model = peft_models.backbone("gpt2")
    recipe(rank=1, targets=target).attach(model)
    with pytest.raises(ValueError, match=match):
        save_peft(model, tmp_path)
    assert not list(tmp_path.iterdir())
