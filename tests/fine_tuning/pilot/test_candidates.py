"""The candidates of a pilot, for what a model and its optimizer allow."""

import keras_transfer as kt
from keras_transfer.fine_tuning import rates
from keras_transfer.fine_tuning.pilot.candidates import candidates
from tests import tiny


def names(model, strategy="lp-ft", batch_norm="auto", own_rates=False):
    found = candidates(model, strategy, batch_norm, own_rates=own_rates)
    assert len(set(found)) == len(found)
    return [str(each) for each in found]


LPFT = [f"lp-ft at {share} of the rate" for share in ("0.3", "0.45", "0.12")]
LORA = [f"lora at {share} of the rate" for share in ("1", "0.3", "0.03")]
OTHERS = ["full at 0.3 of the rate", "gradual at 0.3 of the rate"]
TRAINS = ", BatchNorm trains"


def test_the_default_comes_first():
    found = names(tiny.conv_blocks())
    assert found[0] == LPFT[0]
    assert set(found) == {*LPFT, *LORA[:2], *OTHERS}


def test_lora_is_a_candidate_only_where_it_fits():
    assert set(names(tiny.mlp())) == {*LPFT, *OTHERS}
    narrow = tiny.conv_blocks(filters=4)  # too narrow for the default rank
    assert set(names(narrow)) == {*LPFT, *OTHERS}


def test_batch_norm_is_a_candidate_only_with_auto():
    model = tiny.conv_blocks(batch_norm=True)
    assert LPFT[0] + TRAINS in names(model)
    assert not any(TRAINS in each for each in names(model, batch_norm="frozen"))
    assert all(TRAINS in each for each in names(model, batch_norm="train"))


def test_a_model_without_a_head_trains_completely():
    found = names(tiny.conv_blocks(), strategy="full")
    assert found[0] == OTHERS[0]
    assert not any(each.startswith(("lp-ft", "gradual")) for each in found)


def test_rates_of_the_user_are_not_varied():
    assert names(tiny.mlp(), own_rates=True) == [LPFT[0], *OTHERS]


def test_with_an_adapter_only_its_rate_varies():
    model = tiny.conv_blocks()
    kt.adapters.LoRA().attach(model, verbose=0)
    assert names(model) == LORA
    assert names(model, own_rates=True) == LORA[:1]


def test_rates_of_a_large_model_are_low(monkeypatch):
    assert names(tiny.mlp())[:2] == LPFT[:2]
    monkeypatch.setattr(rates, "LARGE", 30)
    found = [f"lp-ft at {share} of the rate" for share in ("0.05", "0.075")]
    assert names(tiny.mlp())[:2] == found
