"""suggest: the LoRA that fits a budget, and what it costs once attached."""

import math

import keras
import pytest

import keras_transfer as kt
from tests import tiny


def classifier():
    backbone = tiny.bert(num_layers=2)
    return kt.models.TransferClassifier(backbone, num_classes=3)


def trains(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


@pytest.mark.parametrize("budget", [300, 10**6])
def test_the_cost_is_that_of_the_attached_recipe(budget):
    model = classifier()
    suggestion = kt.adapters.suggest(model, parameters=budget)
    assert suggestion.cost.parameters <= budget
    suggestion.recipe.attach(model)
    assert trains(model) == suggestion.cost.parameters


@pytest.mark.slow
def test_all_layers_with_rank_4_before_a_greater_rank_of_few():
    model = classifier()
    suggestion = kt.adapters.suggest(model, parameters=10**6)
    costs = {(x.targets, x.rank): x for x in (suggestion.cost, *suggestion.others)}
    assert suggestion.cost.targets == "all-linear"
    four = costs["all-linear", 4].parameters
    assert kt.adapters.suggest(model, parameters=four).cost == costs["all-linear", 4]
    below = kt.adapters.suggest(model, parameters=four - 1).cost
    assert below.targets is None
    assert below.parameters < four


def test_memory_counts_weights_gradients_and_moments():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    cost = kt.adapters.suggest(model, parameters=8 * 128).cost
    assert cost.rank == 8 and cost.parameters == 1024
    assert cost.memory == 4 * (64 * 64 + 64) + 4 * 4 * 1024
    assert kt.adapters.suggest(model, memory=cost.memory).cost == cost
    assert kt.adapters.suggest(model, memory=cost.memory - 1).cost.rank == 4


def test_it_prints_all_costs():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    text = str(kt.adapters.suggest(model, parameters=1024))
    assert "->   all-linear     8       1        1,024       0.0 MiB" in text
    assert len(text.splitlines()) == 1 + 7  # ranks from 1 to 64


def test_bad_budgets():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    with pytest.raises(ValueError, match="pass one budget"):
        kt.adapters.suggest(model)
    with pytest.raises(ValueError, match="pass one budget"):
        kt.adapters.suggest(model, parameters=5, memory=5)
    with pytest.raises(ValueError, match="smallest LoRA needs 128"):
        kt.adapters.suggest(model, parameters=127)
    with pytest.raises(ValueError, match="Quantize the model"):
        kt.adapters.suggest(model, memory=100)
