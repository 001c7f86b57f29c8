"""Checks of waveforms: numbers from -1 to 1, one channel, no NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31}  # of the values in WAV files
LOUDEST = 16.0  # a resampled or decoded sound can go a little beyond 1, not this far
CHANNELS = 8


def checked_waveforms(waveforms: Any) -> np.ndarray | list[np.ndarray]:
    """Return waveforms as float32 from about -1 to 1.

    Args:
        waveforms: Array `(samples,)` or `(batch, samples)`, or a list of arrays
            `(samples,)` of any lengths. int16 and int32 are divided by their full
            scale.

    Returns:
        An array of the same shape, or a list of arrays.

    Raises:
        TypeError: If the values are not numbers of these dtypes.
        ValueError: If a waveform is empty, has several channels, has values that are
            not finite, or values far above 1.
    """
    if _is_list(waveforms):
        if not len(waveforms):
            raise ValueError("There is no waveform. Pass a list of one or more.")
        return [
            _checked(_array(each), f"Waveform {number}", 1)
            for number, each in enumerate(waveforms)
        ]
    return _checked(_array(waveforms), "The waveforms", 2)


def _is_list(waveforms: Any) -> bool:
    if isinstance(waveforms, np.ndarray):
        return waveforms.dtype == object
    return isinstance(waveforms, Sequence) and any(map(np.ndim, waveforms[:1] or [[]]))


def _array(values: Any) -> np.ndarray:
    if keras.ops.is_tensor(values):
        return keras.ops.convert_to_numpy(values)
    return np.asarray(values)


def _checked(array: np.ndarray, what: str, most_axes: int) -> np.ndarray:
    several = array.ndim == 2 and array.shape[1] <= CHANNELS < array.shape[0]
    if not 1 <= array.ndim <= most_axes or several:
        raise ValueError(
            f"{what} of shape {array.shape}: a waveform has one channel, so the shape "
            "is (samples,), or (batch, samples) for several. Average the channels of "
            "stereo, such as `waveform.mean(-1)` for (samples, channels)."
        )
    if not array.size:
        raise ValueError(
            f"{what} of shape {array.shape}: there is no sample. Remove empty sounds."
        )
    scale = FULL_SCALE.get(array.dtype.name)
    if scale is None and array.dtype.kind != "f":
        raise TypeError(
            f"{what} of dtype {array.dtype}: pass floats from -1 to 1, or int16 or "
            "int32 as in WAV files, which are divided by 32,768 or 2**31."
        )
    if scale is not None:
        return (array / scale).astype("float32")
    loudest = np.abs(array).max()
    if not np.isfinite(loudest):
        rows = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
        where = f", the first in row {rows[0]}" if array.ndim == 2 else ""
        raise ValueError(
            f"{what} of shape {array.shape}: there are samples that are NaN or "
            f"infinite{where}. Remove them, because one makes all features NaN."
        )
    if loudest > LOUDEST:
        raise ValueError(
            f"{what} of dtype {array.dtype}: there is a value of {loudest:g}, but "
            "floats go from -1 to 1. Divide values of 16 bits by 32,768, or pass them "
            "as int16."
        )
    return array.astype("float32")
