"""Energy: the energy of training, as a callback of `fit`."""

from __future__ import annotations

import keras

from keras_transfer._arguments import number
from keras_transfer.analysis.energy.energy_use import EnergyUse
from keras_transfer.analysis.energy.meter import EnergyMeter
from keras_transfer.analysis.energy.published import published
from keras_transfer.analysis.energy.reading import Reading


@keras.saving.register_keras_serializable(package="keras_transfer")
class Energy(keras.callbacks.Callback):
    """Measure the energy of training: kWh by counters, and kg of CO2 by a given factor.

    If codecarbon is installed (`pip install "keras_transfer[energy]"`), its offline
    tracker measures the processor, the memory and the GPUs. It estimates the memory,
    and also the processor where the RAPL counters cannot be read. Without codecarbon,
    RAPL is read for the processors and NVML for NVIDIA's GPUs. RAPL and NVML count
    whole devices, so other processes on them count too. A TPU has no counter: its
    energy is a given power, times the number of chips and the time, and is marked as an
    estimate. What cannot be measured is "not measured", with the reason, and the total
    is then not known. The time and the CPU time of the process are always measured.

    The callback measures from the beginning of a `fit` to its end. Several `fit` calls
    add up. A `fit` that an exception or an interrupt ends is left out. With
    `kt.fine_tune`, the trial runs of a pilot and the pairs of `"contrastive"` are left
    out, and a run that continues from a `directory` has only the epochs of this call.
    `print(energy.use)` shows the result, and the `History` has it as `history.energy`,
    where `kt.report` finds it.

    Args:
        kg_per_kwh: Number of at least 0, the kg of CO2 equivalents for each kWh of the
            power grid, as a national agency publishes it. Defaults to None, which gives
            no CO2.
        tpu_watts: Number above 0, the mean power of one TPU chip in watts. Defaults to
            None, which does not estimate TPUs.
        pretrained: Name of the pretrained model, to compare with the energy of training
            it from scratch. Papers have published it for "BERT-base" and "ELMo".
            Defaults to None, no comparison.

    Raises:
        ValueError: If an argument is out of its range, or no energy is known for
            `pretrained`.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile("adam", "mse")
        energy = kt.callbacks.Energy(kg_per_kwh=0.4)
        x, y = np.ones((8, 4)), np.ones((8, 2))
        history = model.fit(x, y, callbacks=[energy], verbose=0)
        print(energy.use)
        print(kt.report(model, history))
        assert energy.use.to_dict()["seconds"] > 0
        ```

    Reference:
        Strubell, Ganesh and McCallum 2019, Energy and Policy Considerations for Deep
        Learning in NLP, arXiv:1906.02243. Lacoste et al. 2019, Quantifying the Carbon
        Emissions of Machine Learning, arXiv:1910.09700.
    """

    def __init__(
        self,
        *,
        kg_per_kwh: float | None = None,
        tpu_watts: float | None = None,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        if kg_per_kwh is not None:
            kg_per_kwh = number("kg_per_kwh", kg_per_kwh, 0)
        if tpu_watts is not None:
            tpu_watts = number("tpu_watts", tpu_watts, above=0)
        if pretrained is not None:
            published(pretrained)
        self.kg_per_kwh = kg_per_kwh
        self.tpu_watts = tpu_watts
        self.pretrained = pretrained
        self._meter: EnergyMeter | None = None
        self._reading: Reading | None = None

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "kg_per_kwh": self.kg_per_kwh,
            "tpu_watts": self.tpu_watts,
            "pretrained": self.pretrained,
        }

    @classmethod
    def from_config(cls, config: dict) -> Energy:
        """Return a callback that has measured nothing."""
        return cls(**config)

    @property
    def use(self) -> EnergyUse:
        """The `kt.analysis.EnergyUse` of all finished `fit` calls.

        Raises:
            ValueError: If no `fit` has finished with this callback.
        """
        if self._reading is None:
            raise ValueError(
                "Nothing is measured yet: no `fit` with this callback has finished. "
                "Pass it as `callbacks=[energy]` to `fit`."
            )
        given = {"kg_per_kwh": self.kg_per_kwh, "pretrained": self.pretrained}
        return EnergyUse(self._reading.to_config() | given)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begin to measure."""
        self._discard()
        self._meter = EnergyMeter(self.tpu_watts)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Add what was measured, and give it to the History."""
        new, self._meter = self._meter.stop(), None
        self._reading = new if self._reading is None else self._reading + new
        history = getattr(self.model, "history", None)
        if history is not None:
            history.energy = self.use.to_dict()

    def _discard(self) -> None:
        """Stop the meter of a `fit` that an exception ended."""
        if self._meter is not None:
            self._meter.stop()
            self._meter = None
