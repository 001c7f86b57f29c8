"""Reading: the time and the energy of one measurement, and sums of readings."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Reading:
    """The time and energy of one measurement.

    Args:
        seconds: Seconds on the clock.
        cpu_seconds: Seconds of all cores of this process, without its children.
        kwh: Dict from a part, "cpu", "memory", "gpu" or "tpu", to its kWh.
        estimated: The parts whose kWh come from a model of the hardware.
        missing: Dict from the parts that were not measured to the reason.
        source: What measured, for readers. Empty if nothing did.
    """

    seconds: float
    cpu_seconds: float
    kwh: dict[str, float]
    estimated: tuple[str, ...]
    missing: dict[str, str]
    source: str

    @property
    def total(self) -> float | None:
        """The kWh of all parts, or None if a part was not measured."""
        if self.missing or not self.kwh:
            return None
        return sum(self.kwh.values())

    def __add__(self, other: Reading) -> Reading:
        """Return the reading of two measurements, one after the other."""
        parts = sorted({*self.kwh, *other.kwh})
        missing = self.missing | other.missing
        for part in parts:
            if part not in self.kwh or part not in other.kwh:
                missing.setdefault(part, "a part of the time was not measured")
        kwh = {
            part: self.kwh[part] + other.kwh[part]
            for part in parts
            if part not in missing
        }
        return Reading(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            kwh,
            tuple(sorted({*self.estimated, *other.estimated} & {*kwh})),
            missing,
            ", ".join(dict.fromkeys(filter(None, [self.source, other.source]))),
        )

    def to_config(self) -> dict[str, Any]:
        """Return a dict that JSON can store."""
        return dataclasses.asdict(self) | {"estimated": list(self.estimated)}

    @classmethod
    def from_config(cls, config: dict) -> Reading:
        """Return the reading of a dict from `to_config`."""
        return cls(**config | {"estimated": tuple(config["estimated"])})
