"""NVML: millijoules of all GPUs, and errors of a driver. No GPU is needed."""

import sys
import types

import pytest

from keras_transfer.analysis.energy.nvml import NvmlCounters


class Driver(types.ModuleType):
    """The functions of pynvml that are read, with two counters."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__("pynvml")
        self.millijoules = [1_000, 5_000]

    def nvmlInit(self):
        if self.millijoules is None:
            raise self.NVMLError("no permission")

    def nvmlDeviceGetCount(self):
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self.millijoules[handle]


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


def test_all_gpus_are_added(driver):
    counters = NvmlCounters()
    assert counters.read() == 0.0
    driver.millijoules = [1_000 + 3_600_000, 5_000 + 7_200_000]
    assert counters.read() == pytest.approx(10.8e6 / 3.6e9)  # 3.6e9 millijoules


def test_errors_are_told(driver, monkeypatch):
    driver.millijoules = None
    with pytest.raises(OSError, match="NVML cannot read the GPUs: no permission"):
        NvmlCounters()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(OSError, match="pip install nvidia-ml-py"):
        NvmlCounters()
