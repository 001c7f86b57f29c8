"""resample: waveforms at the sampling rate that a model needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.data.waveforms import checked_waveforms


def resample(
    waveforms: Any, sampling_rate: int, new_rate: int = 16_000
) -> np.ndarray | list[np.ndarray]:
    """Return waveforms at another sampling rate, as float32 from -1 to 1.

    The number of samples becomes `ceil(samples * new_rate / sampling_rate)`. A
    polyphase filter removes what the new rate cannot hold, frequencies above
    `new_rate / 2`, which would come back as wrong lower ones. Going up adds no
    frequencies: a telephone's 8,000 Hz has nothing above 4,000 Hz after it. int16 and
    int32, as in WAV files, are divided by 32,768 and 2**31. At equal rates only this is
    done.

    Args:
        waveforms: Array `(samples,)` or `(batch, samples)`, or a list of arrays
            `(samples,)` of any lengths, with one channel.
        sampling_rate: Samples in a second of the waveforms, a whole number.
        new_rate: Samples in a second of the result, a whole number. Defaults to
            16,000, the rate of Whisper.

    Returns:
        A float32 array with the same axes, or a list of arrays for a list.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        second = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
        assert kt.data.resample(second, 8000).shape == (16000,)
        assert kt.data.resample([second, second[:99]], 8000)[1].shape == (198,)
        ```

    Raises:
        TypeError: If the waveforms are not floats, int16 or int32.
        ValueError: If a rate is not a whole number above 0, or a waveform is empty, has
            several channels, NaN, or values far above 1.

    Reference:
        Crochiere and Rabiner, 1983, "Multirate Digital Signal Processing"; SciPy,
        `scipy.signal.resample_poly`.
    """
    from scipy.signal import resample_poly

    why = "it is the number of samples in a second"
    whole_number("sampling_rate", sampling_rate, floats=True, why=why)
    whole_number("new_rate", new_rate, floats=True, why=why)
    found = checked_waveforms(waveforms)
    if sampling_rate == new_rate:
        return found
    divisor = math.gcd(int(new_rate), int(sampling_rate))
    up, down = int(new_rate) // divisor, int(sampling_rate) // divisor

    def resampled(waveform: np.ndarray) -> np.ndarray:
        return resample_poly(waveform, up, down, axis=-1).astype("float32")

    if isinstance(found, list):
        return [resampled(each) for each in found]
    return resampled(found)
