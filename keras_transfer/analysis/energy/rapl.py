"""RAPL: the energy counters of processors, which Linux shows as files."""

from __future__ import annotations

import os
import pathlib

FOLDER = pathlib.Path("/sys/class/powercap")
PER_KWH = 3.6e12  # microjoules


class RaplCounters:
    """The energy of all processor packages since `start`.

    RAPL (running average power limit) counts the energy of whole processors, and so of
    all processes on them. A counter begins again at 0 when it is full. `read` must be
    called before it is full twice, which takes minutes at full load.

    Args:
        folder: The folder of the counters.

    Raises:
        OSError: If there are no counters, or they may not be read.
    """

    def __init__(self, folder: str | os.PathLike = FOLDER) -> None:
        # A package is "intel-rapl:0", also of AMD; "intel-rapl:0:1" is a part of it.
        folder = pathlib.Path(folder)
        packages = sorted(
            path
            for path in folder.glob("intel-rapl:*")
            if path.name.count(":") == 1 and (path / "energy_uj").exists()
        )
        if not packages:
            raise FileNotFoundError(
                f"{str(folder)!r} has no RAPL counter: virtual machines and some "
                "processors have none"
            )
        self._files = [path / "energy_uj" for path in packages]
        self._sizes = [_number(path / "max_energy_range_uj") for path in packages]
        self._last = [_number(file) for file in self._files]
        self._total = 0

    def read(self) -> float:
        """Return the kWh since the object was made."""
        now = [_number(file) for file in self._files]
        for new, old, size in zip(now, self._last, self._sizes, strict=True):
            self._total += new - old if new >= old else new - old + size
        self._last = now
        return self._total / PER_KWH


def _number(file: pathlib.Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise PermissionError(
            f"{str(file)!r} may be read only by root. An administrator can allow it "
            f"with `chmod a+r {file}`"
        ) from error
