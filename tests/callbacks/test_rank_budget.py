"""RankBudget: the contract of callbacks, its schedule, other callbacks, wrong input."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts.callback_contract import CallbackContract
from tests.contracts.compare import array

RankBudget = kt.callbacks.RankBudget


def adapted(optimizer=None, **kwargs):
    model = tiny.mlp()
    recipe = kt.adapters.AdaLoRA(1, initial_rank=3, targets=["_0$", "_1$"])
    recipe.attach(model, train=["dense_2"], verbose=0)
    settings = dict(jit_compile=False) | kwargs
    model.compile(optimizer or keras.optimizers.Adam(0.05), "mse", **settings)
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 6)).astype("float32")
    return x, rng.normal(size=(16, 3)).astype("float32")


def fit(model, *callbacks, epochs=4, **kwargs):
    settings = dict(batch_size=4, shuffle=False, verbose=0) | kwargs
    return model.fit(*data(), epochs=epochs, callbacks=list(callbacks), **settings)


class TestRankBudget(CallbackContract):
    replaces_optimizer = True

    def make_model(self, **compile_kwargs):
        return adapted(**compile_kwargs)

    def make_callbacks(self, model):
        return [RankBudget(16, interval=2, verbose=0)]

    @pytest.mark.slow
    def test_backup_may_come_first(self, tmp_path):
        self.check_backup(tmp_path, backup_first=True)


class Counts(keras.callbacks.Callback):
    """Records the total rank after each batch, and the optimizer of the model."""

    def on_train_begin(self, logs=None):
        self.totals = []

    def on_train_batch_end(self, batch, logs=None):
        self.totals.append(sum(kt.adapters.ranks(self.model).values()))


def test_triplets_return_between_choices_and_stay_zero_at_the_end():
    model, counts = adapted(), Counts()
    budget = RankBudget(warmup_steps=3, final_steps=4, interval=3, verbose=0)
    layers = len(kt.adapters.ranks(model))
    fit(model, budget, counts)
    total = 3 * layers
    assert counts.totals[:5] == [total] * 5
    assert counts.totals[5] < total == counts.totals[6]
    assert counts.totals[11:] == [layers] * 5
    # Without the callback the optimizer continues: its schedule has ended.
    fit(model, epochs=1)
    assert sum(kt.adapters.ranks(model).values()) == layers


def test_an_update_without_a_budget_raises():
    model = adapted()
    with pytest.raises(ValueError, match="Pass callbacks=.*RankBudget"):
        fit(model)


@pytest.mark.slow
def test_a_loaded_model_continues_its_schedule(tmp_path):
    whole = adapted()
    fit(whole, RankBudget(16, interval=2, verbose=0))
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    half = adapted()
    fit(half, RankBudget(16, interval=2, verbose=0), epochs=2)
    half.save(tmp_path / "half.keras")
    again = keras.models.load_model(tmp_path / "half.keras")
    assert type(again.optimizer) is type(whole.optimizer)
    fit(again, RankBudget(16, interval=2, verbose=0), initial_epoch=2)
    for a, b in zip(again.weights, whole.weights, strict=True):
        np.testing.assert_allclose(array(a), array(b), rtol=0, atol=1e-6)


def test_another_schedule_for_a_trained_optimizer_raises():
    model = adapted()
    fit(model, RankBudget(verbose=0), epochs=2)
    with pytest.raises(ValueError, match="has made 8 updates"):
        fit(model, RankBudget(verbose=0), epochs=3)
    kt.adapters.merge(model)
    assert type(model.optimizer) is keras.optimizers.Adam


def test_a_new_schedule_replaces_one_that_made_no_update():
    model = adapted()
    for steps in (40, 16):
        budget = RankBudget(steps, verbose=0)
        budget.set_model(model)
        budget.set_params({"epochs": 4, "steps": 4})
    assert model.optimizer.allocation.total_steps == 16


def test_rates_by_group_and_gradual_unfreezing():
    model = adapted()
    model.compile(
        kt.optimizers.discriminative(keras.optimizers.SGD(0.1), model),
        "mse",
        jit_compile=False,
    )
    head_first = kt.callbacks.GradualUnfreezing.lp_ft(model)
    fit(model, head_first, RankBudget(interval=1, verbose=0))
    found = kt.adapters.ranks(model)
    assert sum(found.values()) == len(found)


@pytest.mark.slow
def test_float16_scales_the_loss_but_not_the_importance():
    keras.config.set_dtype_policy("mixed_float16")
    model = adapted()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    fit(model, RankBudget(interval=1, verbose=0))
    found = kt.adapters.ranks(model)
    assert sum(found.values()) == len(found)
    largest = max(
        float(keras.ops.max(each))
        for each in model.optimizer.inner_optimizer.importance()
    )
    assert 0 < largest < 10


def test_a_fit_that_cannot_have_a_budget_changes_nothing():
    def refused(match, model, budget, **kwargs):
        optimizer = model.optimizer
        with pytest.raises(ValueError, match=match):
            fit(model, budget, **kwargs)
        assert model.optimizer is optimizer

    refused("no update is left", adapted(), RankBudget(warmup_steps=12, final_steps=4))
    refused(
        "use_ema=True", adapted(keras.optimizers.SGD(0.1, use_ema=True)), RankBudget()
    )
    refused("Ftrl cannot", adapted(keras.optimizers.Ftrl()), RankBudget())
    plain = tiny.mlp()
    plain.compile("sgd", "mse")
    refused("no AdaLoRA in use", plain, RankBudget())

    def batches():
        while True:
            yield data()

    model = adapted()
    with pytest.raises(ValueError, match="number of batches .* is unknown"):
        model.fit(batches(), callbacks=[RankBudget()], shuffle=False, verbose=0)


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(total_steps=0),
        dict(warmup_steps=-1),
        dict(final_steps=1.5),
        dict(interval=0),
        dict(beta_1=1.0),
        dict(beta_2=-0.1),
    ],
)
def test_numbers_out_of_range_raise(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))}="):
        RankBudget(**kwargs)
