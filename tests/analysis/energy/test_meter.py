"""EnergyMeter: what measures, what is missing and why, and sums of readings."""

import dataclasses
import json
import time

import pytest

from keras_transfer.analysis.energy import meter
from keras_transfer.analysis.energy.published import published
from keras_transfer.analysis.energy.rapl import RaplCounters
from keras_transfer.analysis.energy.reading import Reading
from tests.analysis.energy.test_rapl import write


@pytest.fixture
def alone(monkeypatch):
    """No codecarbon, whether it is installed or not."""
    monkeypatch.setattr(meter, "has_codecarbon", lambda: False)


def devices(monkeypatch, *names):
    monkeypatch.setattr(meter.keras.distribution, "list_devices", lambda: list(names))


def test_without_a_counter_only_the_time_is_measured(alone, monkeypatch, tmp_path):
    monkeypatch.setattr(meter, "RaplCounters", lambda: RaplCounters(tmp_path))
    measured = meter.EnergyMeter()
    began = time.perf_counter()
    while time.perf_counter() < began + 0.05:
        pass
    reading = measured.stop()
    assert reading.total is None and reading.kwh == {} and reading.source == ""
    assert reading.seconds >= 0.05 and reading.cpu_seconds > 0
    assert "has no RAPL counter" in reading.missing["cpu"]
    assert "the extra `energy`" in reading.missing["cpu"]


def test_counters_are_read_at_the_beginning_and_the_end(alone, monkeypatch, tmp_path):
    write(tmp_path, {"intel-rapl:0": 100_000}, size=10**9)
    monkeypatch.setattr(meter, "RaplCounters", lambda: RaplCounters(tmp_path))
    measured = meter.EnergyMeter()
    write(tmp_path, {"intel-rapl:0": 460_000}, size=10**9)
    reading = measured.stop()
    assert reading.total == pytest.approx(1e-7) and reading.source == "RAPL"
    assert reading.estimated == () and reading.missing == {}


def test_a_gpu_without_nvml_leaves_the_total_open(alone, monkeypatch, tmp_path):
    def refuse():
        raise OSError("NVML cannot read the GPUs: no permission")

    write(tmp_path, {"intel-rapl:0": 1})
    monkeypatch.setattr(meter, "RaplCounters", lambda: RaplCounters(tmp_path))
    monkeypatch.setattr(meter, "NvmlCounters", refuse)
    devices(monkeypatch, "gpu:0")
    reading = meter.EnergyMeter().stop()
    assert reading.kwh == {"cpu": 0.0} and reading.total is None
    assert reading.missing == {"gpu": "NVML cannot read the GPUs: no permission"}


def test_a_gpu_that_codecarbon_does_not_see_leaves_the_total_open(monkeypatch):
    class Blind:
        version = "3.0"

        def stop(self):
            return {"cpu": 0.1, "memory": 0.1}

    monkeypatch.setattr(meter, "has_codecarbon", lambda: True)
    monkeypatch.setattr(meter, "CodeCarbon", Blind)
    assert meter.EnergyMeter().stop().total == pytest.approx(0.2)
    devices(monkeypatch, "cpu:0", "gpu:0")
    reading = meter.EnergyMeter().stop()
    assert reading.total is None and "no GPU" in reading.missing["gpu"]


def test_a_tpu_is_estimated_from_a_given_power_only(alone, monkeypatch, tmp_path):
    write(tmp_path, {"intel-rapl:0": 1})
    monkeypatch.setattr(meter, "RaplCounters", lambda: RaplCounters(tmp_path))
    devices(monkeypatch, "tpu:0", "tpu:1")
    assert "pass tpu_watts" in meter.EnergyMeter().stop().missing["tpu"]
    reading = meter.EnergyMeter(tpu_watts=180).stop()
    assert reading.kwh["tpu"] == pytest.approx(2 * 180 * reading.seconds / 3.6e6)
    assert reading.estimated == ("tpu",) and reading.missing == {}
    assert reading.source == "RAPL, 180 W for each of 2 TPU chips"


def test_readings_add_up_and_a_gap_stays_a_gap():
    first = Reading(1.0, 2.0, {"cpu": 0.1, "memory": 0.2}, ("memory",), {}, "one")
    total = first + first
    assert total == Reading(
        2.0, 4.0, {"cpu": 0.2, "memory": 0.4}, ("memory",), {}, "one"
    )
    gap = dataclasses.replace(first, kwh={"cpu": 0.1}, estimated=(), source="two")
    total = first + gap
    assert total.kwh == {"cpu": 0.2} and total.total is None
    assert total.source == "one, two" and total.estimated == ()
    assert total.missing == {"memory": "a part of the time was not measured"}
    config = json.loads(json.dumps(total.to_config(), allow_nan=False))
    assert Reading.from_config(config) == total


def test_published_energy_is_known_for_a_few_models_only():
    # 12,041.51 W for 79 hours, and 1.58 for the data center.
    wanted = 12.04151 * 79 * 1.58
    assert published("BERT-base").kwh == pytest.approx(wanted, rel=0.01)
    with pytest.raises(ValueError, match="one of .*BERT-base"):
        published("MiniLM")


@pytest.mark.energy
@pytest.mark.slow
def test_codecarbon_measures_and_writes_nothing(tmp_path, monkeypatch, capfd):
    pytest.importorskip("codecarbon", reason="codecarbon is not installed")
    monkeypatch.chdir(tmp_path)
    measured = meter.EnergyMeter()
    began = time.process_time()
    while time.process_time() < began + 1.0:
        pass
    reading = measured.stop()
    assert reading.source.startswith("codecarbon 3")
    assert reading.total > 0 and reading.kwh["cpu"] > 0 and reading.kwh["memory"] > 0
    assert reading.total < 1e-3  # a second of less than 3.6 kW
    assert "memory" in reading.estimated
    assert [*tmp_path.iterdir()] == [] and "codecarbon" not in capfd.readouterr().err
