"""LoHa: the contract of recipes, its formula by hand, PEFT's files, the export."""

import json

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from keras_transfer.saving.peft.files import check_config
from keras_transfer.saving.peft.load import load_peft
from keras_transfer.saving.peft.save import save_peft
from tests import tiny
from tests.adapters import models
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compute import tensorflow_only
from tests.contracts.compute import tensors
from tests.contracts.compute import value_and_gradients
from tests.contracts.compute import weight_gradients
from tests.export import test_many_adapters as many
from tests.saving import peft_models

SCALING = 1.5


class TestLoHa(AdapterContract):
    learns = {"loha_a1", "loha_b1", "loha_a2", "loha_b2"}
    parameters = 2 * 2 * (16 * 2 + 2 * 16)  # query and value, two pairs of rank 2

    def recipe(self, **kwargs):
        return adapters.LoHa(rank=2, alpha=3, **kwargs)


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def adapted(layer, x, **kwargs):
    """Return a model of one layer with a disturbed LoHa, and its part."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.set_weights([random(*v.shape) for v in layer.weights])
    adapters.LoHa(rank=2, alpha=3, targets=layer.name, **kwargs).attach(model)
    models.disturb(model)
    return model, next(places(model))[2]


def change(part):
    """Return the paper's Hadamard product, as a matrix of inputs and outputs."""
    a1, b1, a2, b2 = (
        array(part.named_weights[f"loha_{name}"]) for name in ("a1", "b1", "a2", "b2")
    )
    first = a1.reshape(-1, a1.shape[-1]) @ b1
    return SCALING * first * (a2.reshape(-1, a2.shape[-1]) @ b2)


def test_dense_by_hand():
    x = random(2, 4)
    layer = keras.layers.Dense(3, "tanh", name="it")
    model, part = adapted(layer, x)
    weight = array(layer.kernel) + change(part)
    expected = np.tanh(x @ weight + array(layer.bias))
    assert_close(model(x), expected, 1e-5)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-5)
    assert_close(model(x), expected, 1e-5)


@pytest.mark.parametrize(
    "equation, features, shape, order",
    [
        ("abc,cde->abde", (6,), (5, 2, 3), "cde"),
        ("abcd,cde->abe", (2, 3), (5, 4), "cde"),
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
    matrix = change(part).reshape([size[x] for x in order])
    weight = kernel + np.einsum(f"{order}->{letters}", matrix)
    expected = np.einsum(equation, x, weight)
    assert_close(model(x), expected, 1e-4)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-5)


def test_a_convolution_by_hand():
    x = random(2, 6, 6, 3)
    layer = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="it")
    model, part = adapted(layer, x)
    weight = array(layer.kernel) + change(part).reshape(3, 3, 3, 4)
    expected = keras.ops.conv(x, weight, strides=2, padding="same")
    assert_close(model(x), expected + array(layer.bias), 1e-4)
    adapters.merge(model)
    assert_close(layer.kernel, weight, 1e-5)


def test_the_gradient_matches_the_product_of_two_matrices():
    x = tensors(random(5, 4))
    layer = keras.layers.Dense(3, use_bias=False, name="it")
    model, part = adapted(layer, x)
    weights = list(part.named_weights.values())
    found = weight_gradients(lambda: keras.ops.sum(model(x) ** 2), weights)
    kernel = array(layer.kernel)

    def loss(a1, b1, a2, b2):
        matrix = kernel + SCALING * (a1 @ b1) * (a2 @ b2)
        return keras.ops.sum((x @ matrix) ** 2)

    _, expected = value_and_gradients(loss, *tensors(arrays(weights)))
    assert_close(found, expected, 1e-4)


def test_the_change_has_the_squared_rank():
    layer = keras.layers.Dense(9, name="it")
    _, part = adapted(layer, random(2, 8))
    assert np.linalg.matrix_rank(change(part)) == 4
    a, b = part.low_rank_factors()
    assert a.shape == (8, 4) and b.shape == (4, 9)
    assert_close(a @ b, change(part), 1e-5)


def test_the_two_pairs_start_with_different_values():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="it")])
    adapters.LoHa(rank=2, targets="it").attach(model)
    weights = next(places(model))[2].named_weights
    assert np.abs(weights["loha_b1"] - weights["loha_b2"]).max() > 0.01
    assert not np.any(weights["loha_a2"])


def test_patterns_set_rank_and_alpha_by_layer():
    model = models.nested()
    recipe = adapters.LoHa(
        rank=2, rank_pattern={"query": 3}, alpha_pattern={"value": 5}
    )
    recipe.attach(model)
    numbers = {path.split("/")[-1]: (p.rank, p.scaling) for path, _, p in places(model)}
    assert numbers == {"query": (3, 8 / 3), "value": (2, 5 / 2)}


def test_a_weighted_sum_raises():
    model = models.nested()
    for name in ("first", "second"):
        adapters.LoHa(rank=2).attach(model, name)
    with pytest.raises(ValueError, match="not linear"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})
    assert list(adapters.attached(model)) == ["first", "second"]


@pytest.mark.parametrize(
    "kwargs, error, match",
    [
        (dict(rank=0), ValueError, "rank=0"),
        (dict(rank_pattern={"query": 0}), ValueError, "rank=0"),
        (dict(alpha=float("nan")), ValueError, "alpha=nan"),
        (dict(alpha=0), ValueError, "alpha=0"),
        (dict(alpha_pattern=[("query", 2)]), TypeError, "dict"),
    ],
)
def test_numbers_out_of_range_raise(kwargs, error, match):
    with pytest.raises(error, match=match):
        adapters.LoHa(**kwargs)


@pytest.mark.parametrize(
    "kwargs, match",
    [
        (dict(rank=17), "too large"),
        (dict(rank_pattern={"qery": 2}), "matches none of the targets"),
        (dict(targets="token_embedding"), "Embedding, which LoHa cannot"),
    ],
)
def test_a_failing_attach_changes_nothing(kwargs, match):
    model = tiny.bert(num_layers=1)
    classes = models.classes(model)
    with pytest.raises(ValueError, match=match):
        adapters.LoHa(**dict(rank=2) | kwargs).attach(model)
    assert models.classes(model) == classes
    assert adapters.attached(model) == {}


@pytest.mark.slow
def test_a_saved_peft_file_loads(tmp_path):
    # tests/saving/peft checks PEFT's own files and their outputs in PyTorch.
    model = peft_models.backbone("bert")
    recipe = adapters.LoHa(rank=2, targets="all-linear", rank_pattern={"query": 3})
    recipe.attach(model)
    models.disturb(model)
    save_peft(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["alpha"]) == ("LOHA", 2, 8)
    assert set(config["rank_pattern"].values()) == {3}
    again = peft_models.backbone("bert")
    load_peft(again, tmp_path)
    assert type(adapters.attached(again)["default"]) is adapters.LoHa
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs, 2e-6)


def test_an_unsupported_peft_setting_raises(tmp_path):
    folder = peft_models.GOLDEN / "bert" / "loha"
    config = json.loads((folder / "adapter_config.json").read_text())
    text = json.dumps(config | {"rank_dropout": 0.1})
    (tmp_path / "adapter_config.json").write_text(text)
    weights = folder / "adapter_model.safetensors"
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    with pytest.raises(ValueError, match="rank_dropout"):
        load_peft(peft_models.backbone("bert"), tmp_path)


def test_an_unknown_peft_initialization_raises():
    config = {"peft_type": "LOHA", "r": 2, "alpha": 4, "init_weights": "other"}
    with pytest.raises(ValueError, match="init_weights='other'") as caught:
        check_config(config, adapters.LoHa.peft)
    assert "LoRA" not in str(caught.value)


@tensorflow_only("a graph with many adapters is TensorFlow's")
def test_several_adapters_are_served_from_one_graph():
    model = many.around(keras.layers.Dense(4, name="hidden"), (6,))
    many.adapted(model, ranks=(2, 3, 1), kind=adapters.LoHa)
    x = random(len(many.WHO), 6)
    found = many.function_of(model)(x, many.WHO)
    assert_close(found, many.merged_rows(model, x, many.WHO), 1e-5)
