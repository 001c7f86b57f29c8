"""NVML: the energy counters of NVIDIA's GPUs."""

from __future__ import annotations

PER_KWH = 3.6e9  # millijoules


class NvmlCounters:
    """The energy of all GPUs of this machine since the object was made.

    Raises:
        OSError: If nvidia-ml-py is not installed, or a GPU has no counter.
    """

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise OSError(
                "reading a GPU needs nvidia-ml-py: pip install nvidia-ml-py, or the "
                "extra `energy`"
            ) from error
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
            self._start = self._sum()
        except pynvml.NVMLError as error:
            raise OSError(f"NVML cannot read the GPUs: {error}") from error

    def read(self) -> float:
        """Return the kWh since the object was made."""
        return (self._sum() - self._start) / PER_KWH

    def _sum(self) -> int:
        return sum(map(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._gpus))
