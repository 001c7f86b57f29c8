"""RAPL: counters of several processors, which begin again when they are full."""

import pathlib

import pytest

from keras_transfer.analysis.energy.rapl import RaplCounters


def write(folder, values, size=1_000_000):
    for name, value in values.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "energy_uj").write_text(f"{value}\n")
        (folder / name / "max_energy_range_uj").write_text(f"{size}\n")


def test_packages_are_added_and_their_parts_are_not(tmp_path):
    write(tmp_path, {"intel-rapl:0": 10, "intel-rapl:1": 20, "intel-rapl:0:0": 5})
    counters = RaplCounters(tmp_path)
    assert counters.read() == 0.0
    write(tmp_path, {"intel-rapl:0": 3_610, "intel-rapl:1": 20, "intel-rapl:0:0": 905})
    assert counters.read() == pytest.approx(3_600 / 3.6e12)  # microjoules
    write(tmp_path, {"intel-rapl:1": 3_620})
    assert counters.read() == pytest.approx(7_200 / 3.6e12)


def test_a_full_counter_begins_again(tmp_path):
    write(tmp_path, {"intel-rapl:0": 999_000}, size=1_000_000)
    counters = RaplCounters(tmp_path)
    for _ in range(2):
        write(tmp_path, {"intel-rapl:0": 500}, size=1_000_000)
        assert counters.read() == pytest.approx(1_500 / 3.6e12)


def test_no_counter_and_no_permission_are_told(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="has no RAPL counter"):
        RaplCounters(tmp_path)
    write(tmp_path, {"intel-rapl:0": 10})

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "read_text", refuse)
    with pytest.raises(PermissionError, match="only by root.*chmod a\\+r"):
        RaplCounters(tmp_path)
