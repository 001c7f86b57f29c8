"""Energy: adds up fits, tells the History, and is a row of the report."""

import json

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.analysis.energy import meter
from keras_transfer.analysis.energy.rapl import RaplCounters
from tests import tiny
from tests.analysis.energy.test_rapl import write
from tests.contracts.callback_contract import CallbackContract
from tests.contracts.compare import build

Energy = kt.callbacks.Energy


@pytest.fixture
def counter(monkeypatch, tmp_path):
    """A function that sets the counter of the only processor, in kWh."""
    monkeypatch.setattr(meter, "has_codecarbon", lambda: False)
    monkeypatch.setattr(meter, "RaplCounters", lambda: RaplCounters(tmp_path))

    def set_to(kwh):
        write(tmp_path, {"intel-rapl:0": round(kwh * 3.6e12)}, size=10**15)

    set_to(0)
    return set_to


class TestEnergy(CallbackContract):
    epochs = 3
    # It does nothing during the steps.
    test_steps_per_execution_trains_the_same = test_xla_trains_the_same = None

    @pytest.fixture(autouse=True)
    def counted(self, counter):
        """Use the counter of these tests."""

    def make_callbacks(self, model):
        return [Energy()]


class Use(keras.callbacks.Callback):
    """Use energy in the first epoch of a fit."""

    def __init__(self, set_to, kwh):
        super().__init__()
        self.set_to, self.kwh = set_to, kwh

    def on_epoch_end(self, epoch, logs=None):
        self.set_to(self.kwh)


def fit(*callbacks):
    model = tiny.mlp()
    model.compile("sgd", "mse", jit_compile=False)
    x, y = np.ones((8, 6), "float32"), np.ones((8, 3), "float32")
    build(model, x, y)
    return model, model.fit(x, y, callbacks=list(callbacks), verbose=0)


def test_fits_add_up_and_the_report_shows_the_energy(counter, tmp_path):
    energy = Energy(kg_per_kwh=0.25, pretrained="BERT-base")
    with pytest.raises(ValueError, match="Nothing is measured yet"):
        energy.use  # noqa: B018
    fit(energy, Use(counter, 1.0))
    assert energy.use.kwh == pytest.approx(1.0)
    model, history = fit(energy, Use(counter, 3.0))
    assert energy.use.kwh == pytest.approx(3.0) and energy.use.kg == pytest.approx(0.75)
    text = str(kt.report(model, history))
    assert "3 kWh" in text and "0.75 kg" in text and "RAPL" in text
    assert "502 times this training" in text  # 1,507 / 3
    assert kt.report(model, history).to_dict()["energy"] == energy.use.to_dict()
    path = tmp_path / "energy.json"
    energy.use.save(path)
    assert kt.analysis.EnergyUse(json.loads(path.read_text())).kg == energy.use.kg
    assert "<table>" in energy.use.to_html() and "3 kWh" in repr(energy.use)


def test_what_is_not_measured_is_never_a_number(monkeypatch, tmp_path):
    monkeypatch.setattr(meter, "has_codecarbon", lambda: False)
    monkeypatch.setattr(meter, "RaplCounters", lambda: RaplCounters(tmp_path))
    energy = Energy(kg_per_kwh=0.25, pretrained="ELMo")
    model, history = fit(energy)
    assert energy.use.kwh is None and energy.use.kg is None
    rows = {row[0]: row[1] for row in energy.use._sections()[0].rows}
    assert rows["processor"] == rows["sum of these"] == "not measured"
    assert rows["CO2 equivalents"] == "not measured"
    assert rows["pretraining of ELMo"] == "275 kWh"  # and no ratio
    assert kt.report(model, history.history).to_dict()["energy"] is None


def test_a_failed_fit_is_left_out(counter):
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("stop")

    energy = Energy()
    with pytest.raises(RuntimeError, match="stop"):
        fit(energy, Use(counter, 5.0), Fail())
    fit(energy, Use(counter, 6.0))
    assert energy.use.kwh == pytest.approx(1.0)


def test_fine_tune_gives_its_history_the_energy_of_all_phases(counter):
    energy = Energy()
    model = tiny.mlp((4, 3))
    model.compile("sgd", "mse", jit_compile=False)
    x, y = np.ones((8, 6), "float32"), np.ones((8, 3), "float32")
    callbacks = [energy, Use(counter, 2.0)]
    history = kt.fine_tune(
        model, (x, y), epochs=2, strategy="lp-ft", callbacks=callbacks, verbose=0
    )
    assert history.energy == energy.use.to_dict()
    assert energy.use.kwh == pytest.approx(2.0)


def test_numbers_of_numpy_can_be_saved(counter):
    energy = Energy(kg_per_kwh=np.float32(0.5), tpu_watts=np.int64(180))
    fit(energy, Use(counter, 1.0))
    assert json.loads(json.dumps(energy.get_config()))["tpu_watts"] == 180
    assert json.loads(energy.use.to_json())["kg_per_kwh"] == 0.5


def test_config_and_bad_arguments():
    energy = Energy(kg_per_kwh=0.4, tpu_watts=180, pretrained="ELMo")
    assert Energy.from_config(energy.get_config()).get_config() == energy.get_config()
    for argument, value in (
        ("kg_per_kwh", -1),
        ("kg_per_kwh", float("nan")),
        ("tpu_watts", 0),
        ("pretrained", "MiniLM"),
    ):
        with pytest.raises(ValueError, match=argument):
            Energy(**{argument: value})
