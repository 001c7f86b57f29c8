"""EnergyMeter: measures time and energy between start and stop."""

from __future__ import annotations

import importlib.util
import time

import keras

from keras_transfer.analysis.energy.code_carbon import CodeCarbon
from keras_transfer.analysis.energy.nvml import NvmlCounters
from keras_transfer.analysis.energy.rapl import RaplCounters
from keras_transfer.analysis.energy.reading import Reading

JOULES_PER_KWH = 3.6e6
INSTEAD = "or install codecarbon, the extra `energy`, which estimates it"


class EnergyMeter:
    """Measure from the creation of the object to `stop`.

    codecarbon measures if it is installed. Otherwise, the counters of the processor
    (RAPL) and of NVIDIA's GPUs (NVML) are read. A device without a counter is not
    measured, and the reading says why. A TPU has none, so its energy is estimated, and
    only from a power that the user gives.

    Args:
        tpu_watts: Mean power of one TPU chip in watts, or None.
    """

    def __init__(self, tpu_watts: float | None = None) -> None:
        self._missing: dict[str, str] = {}
        self._counters: dict[str, RaplCounters | NvmlCounters] = {}
        self._tracker = None
        devices = keras.distribution.list_devices()
        self._tpus = sum(device.startswith("tpu:") for device in devices)
        self._gpus = any(device.startswith("gpu:") for device in devices)
        self._tpu_watts = tpu_watts
        if has_codecarbon():
            self._tracker = CodeCarbon()
        else:
            self._open("cpu", RaplCounters)
            if self._gpus:
                self._open("gpu", NvmlCounters)
        if self._tpus and tpu_watts is None:
            self._missing["tpu"] = "a TPU has no counter: pass tpu_watts to estimate it"
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> Reading:
        """Return the reading. The meter cannot be used again."""
        began, cpu_began = self._began
        seconds = time.perf_counter() - began
        cpu_seconds = time.process_time() - cpu_began
        kwh, sources = {}, []
        if self._tracker is not None:
            try:
                kwh |= self._tracker.stop()
                sources.append(f"codecarbon {self._tracker.version}")
                if self._gpus and "gpu" not in kwh:
                    self._missing["gpu"] = "codecarbon found no GPU that it can read"
            except OSError as error:
                self._missing["cpu"] = str(error)
        for part, counters in self._counters.items():
            try:
                kwh[part] = counters.read()
                sources.append({"cpu": "RAPL", "gpu": "NVML"}[part])
            except OSError as error:
                self._missing[part] = str(error)
        estimated = ["memory"] if "memory" in kwh else []
        if self._tracker is not None and "cpu" in kwh and not _has_rapl():
            estimated.append("cpu")
        if self._tpus and self._tpu_watts is not None:
            kwh["tpu"] = self._tpus * self._tpu_watts * seconds / JOULES_PER_KWH
            sources.append(f"{self._tpu_watts:g} W for each of {self._tpus} TPU chips")
            estimated.append("tpu")
        return Reading(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            kwh=kwh,
            estimated=tuple(sorted(estimated)),
            missing=self._missing,
            source=", ".join(sources),
        )

    def _open(self, part: str, kind: type) -> None:
        try:
            self._counters[part] = kind()
        except OSError as error:
            self._missing[part] = f"{error}; {INSTEAD}" if part == "cpu" else str(error)


def has_codecarbon() -> bool:
    """Return whether codecarbon is installed, without importing it."""
    return importlib.util.find_spec("codecarbon") is not None


def _has_rapl() -> bool:
    """Return whether codecarbon could read the counters of the processor."""
    try:
        RaplCounters()
    except OSError:
        return False
    return True
