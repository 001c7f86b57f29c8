"""The offline tracker of codecarbon, which measures or estimates a process."""

from __future__ import annotations

import logging
from importlib import metadata

EVERY = 5.0  # seconds between two measurements


class CodeCarbon:
    """The energy of the processor, memory and GPUs since the object was made.

    Nothing is written, sent or printed, whatever a codecarbon.config says.

    Raises:
        ImportError: If codecarbon is not installed.
    """

    def __init__(self) -> None:
        logger = logging.getLogger("codecarbon")
        logger.setLevel(logging.CRITICAL)  # it speaks before it reads its log_level
        from codecarbon import OfflineEmissionsTracker

        self.version = metadata.version("codecarbon")
        # codecarbon catches its own errors, so only its results show if it works.
        self._tracker = OfflineEmissionsTracker(
            output_methods=[],
            emissions_endpoint=None,
            log_level="critical",
            tracking_mode="process",
            measure_power_secs=EVERY,
            allow_multiple_runs=True,
        )
        self._tracker.start()

    def stop(self) -> dict[str, float]:
        """Return the kWh of "cpu", "memory" and "gpu".

        Raises:
            OSError: If codecarbon has no result.
        """
        self._tracker.stop()
        data = getattr(self._tracker, "final_emissions_data", None)
        if data is None:
            raise OSError(f"codecarbon {self.version} could not measure")
        found = {"cpu": data.cpu_energy, "memory": data.ram_energy}
        if data.gpu_count:
            found["gpu"] = data.gpu_energy
        return found
