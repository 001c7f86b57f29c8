"""EnergyUse: energy, CO2 and pretraining, as text, Markdown, JSON and HTML."""

from __future__ import annotations

from collections.abc import Sequence

from keras_transfer.analysis.energy.energy_section import energy_section
from keras_transfer.analysis.energy.energy_section import reading_in
from keras_transfer.analysis.energy.energy_section import shown
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section


class EnergyUse(SavedResult):
    """The time and energy of a training, as text, Markdown, JSON and HTML.

    `kt.callbacks.Energy` makes it. A part of the machine that has no counter is "not
    measured", and the total is then not known either. A value that comes from a model
    of the hardware, and not from a counter, is marked as an estimate.

    Args:
        content: Dict that JSON can store, the content of the result.

    Example:
        ```python
        import keras_transfer as kt

        parts = {"kwh": {"cpu": 0.02}, "estimated": [], "missing": {}}
        content = {"seconds": 60.0, "cpu_seconds": 90.0, "source": "RAPL", **parts}
        content |= {"kg_per_kwh": 0.4, "pretrained": None}
        use = kt.analysis.EnergyUse(content)
        print(use)
        assert use.kwh == 0.02 and abs(use.kg - 0.008) < 1e-12
        ```

    Reference:
        Lacoste et al. 2019, Quantifying the Carbon Emissions of Machine Learning,
        arXiv:1910.09700.
    """

    kind = "energy use"

    @property
    def kwh(self) -> float | None:
        """The kWh of the parts that are shown; None if one was not measured.

        RAPL without codecarbon counts the processors and no memory.
        """
        return reading_in(self._content).total

    @property
    def kg(self) -> float | None:
        """The kg of CO2 equivalents; None without a factor or a total."""
        factor = self._content["kg_per_kwh"]
        return None if None in (factor, self.kwh) else factor * self.kwh

    def __repr__(self) -> str:
        return f"<EnergyUse, {shown(self.kwh, 'kWh')}. Use print() to show it>"

    def _sections(self) -> Sequence[Section]:
        """Return the sections that all text formats share."""
        return [energy_section(self._content)]
