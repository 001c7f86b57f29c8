"""The table of an energy use."""

from __future__ import annotations

from keras_transfer.analysis.energy.published import published
from keras_transfer.analysis.energy.reading import Reading
from keras_transfer.analysis.report.section import Section

NOT_MEASURED = "not measured"
TITLES = {"cpu": "processor", "memory": "memory", "gpu": "GPU", "tpu": "TPU"}


def energy_section(content: dict) -> Section:
    """Return the table of the content of an `EnergyUse`."""
    reading, factor = reading_in(content), content["kg_per_kwh"]
    total = reading.total
    rows = [("time", f"{reading.seconds:.1f} s", "")]
    rows += [("CPU time of this process", f"{reading.cpu_seconds:.1f} s", "")]
    for part, title in TITLES.items():
        if part in reading.kwh:
            how = "estimate" if part in reading.estimated else "counter"
            rows.append((title, shown(reading.kwh[part], "kWh"), how))
        elif part in reading.missing:
            rows.append((title, NOT_MEASURED, reading.missing[part]))
    partly = reading.estimated and total is not None
    # RAPL alone counts no memory, so it is not the total of the machine.
    rows.append(
        ("sum of these", shown(total, "kWh"), "partly an estimate" * bool(partly))
    )
    if factor is not None:
        kg = None if total is None else factor * total
        rows.append(
            ("CO2 equivalents", shown(kg, "kg"), f"{factor:g} kg per kWh, as given")
        )
    if content["pretrained"] is not None:
        found = published(content["pretrained"])
        name = f"pretraining of {found.name}"
        rows.append((name, f"{found.kwh:,.0f} kWh", f"{found.source}: {found.covers}"))
        if total:
            rows.append((name, f"{found.kwh / total:,.0f} times this training", ""))
    notes = (f"Measured by: {reading.source or 'nothing'}.",)
    header = ("what", "value", "how")
    return Section("energy", "Energy", notes, header, tuple(rows), (0, 1, 2))


def reading_in(content: dict) -> Reading:
    """Return the reading in the content of an `EnergyUse`."""
    given = ("kg_per_kwh", "pretrained")
    return Reading.from_config({k: v for k, v in content.items() if k not in given})


def shown(value: float | None, unit: str) -> str:
    """Return a value as text; "not measured" for None."""
    return NOT_MEASURED if value is None else f"{value:.3g} {unit}"
