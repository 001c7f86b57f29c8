"""resample: sounds at another sampling rate, and what is refused."""

import numpy as np
import pytest

from keras_transfer.data import resample


def tone(pitch, rate, seconds=0.5):
    return np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("rate, new", [(8000, 16000), (44100, 16000), (16000, 11025)])
def test_a_tone_stays_the_same_tone(rate, new):
    found = resample(tone(440, rate), rate, new)
    wanted = tone(440, new)
    assert found.dtype == "float32" and abs(len(found) - len(wanted)) <= 1
    middle = slice(500, 4500)  # at the ends the filter sees the silence outside
    np.testing.assert_allclose(found[middle], wanted[middle], atol=2e-3)


def test_tones_that_the_new_rate_cannot_hold_are_removed():
    # Without a filter, 5,000 Hz at 8,000 Hz would be a tone of 3,000 Hz.
    found = resample(tone(5000, 16000), 16000, 8000)
    assert np.abs(found[200:-200]).max() < 1e-2


def test_rows_are_single_sounds():
    rows = np.stack([tone(440, 8000), tone(880, 8000)])
    found = resample(rows, 8000)
    assert found.shape == (2, 8000)
    for row, waveform in zip(found, rows, strict=True):
        np.testing.assert_array_equal(row, resample(waveform, 8000))
    several = resample([rows[0], rows[1][:101]], 8000)
    assert [len(each) for each in several] == [8000, 202]
    np.testing.assert_array_equal(several[0], found[0])


def test_whole_numbers_are_divided_by_their_full_scale():
    waveform = np.array([-(2**15), 0, 2**14], "int16")
    np.testing.assert_array_equal(resample(waveform, 16000), [-1.0, 0.0, 0.5])
    waveform = np.array([-(2**31), 0, 2**30], "int32")
    np.testing.assert_array_equal(resample([waveform], 16000)[0], [-1.0, 0.0, 0.5])


def test_zeros_after_the_end_stay_zeros():
    padded = np.pad(tone(440, 8000, 0.1), (0, 800))
    found = resample(padded, 8000)
    assert not found[1600 + 40 :].any()  # the filter is some samples long


@pytest.mark.parametrize(
    "waveforms, error, text",
    [
        (np.zeros(0), ValueError, "there is no sample"),
        ([np.ones(9), np.zeros(0)], ValueError, "Waveform 1 of shape .* no sample"),
        ([], ValueError, "There is no waveform"),
        (np.zeros((16000, 2)), ValueError, "Average the channels of stereo"),
        (np.zeros((3, 16000, 2)), ValueError, "Average the channels of stereo"),
        ([np.zeros((16000, 2))], ValueError, "Waveform 0 .*one channel"),
        (np.float32(1.0), ValueError, "shape is"),
        (np.array([[0.0, 1.0], [0.0, np.nan]]), ValueError, "NaN.*first in row 1"),
        ([np.array([0.0, np.inf])], ValueError, "Waveform 0 .*infinite"),
        (np.array([0.0, -3000.0]), ValueError, "value of 3000.*Divide values"),
        (np.zeros(9, "uint8"), TypeError, "dtype uint8: pass floats"),
        (["a.wav"], TypeError, "pass floats"),
    ],
)
def test_refuses_what_is_not_a_sound(waveforms, error, text):
    with pytest.raises(error, match=text):
        resample(waveforms, 8000)


@pytest.mark.parametrize("rate", [0, -8000, 22050.5, "8000", None, np.nan])
def test_rates_are_whole_numbers_above_0(rate):
    with pytest.raises(ValueError, match="sampling_rate=.*samples in a second"):
        resample(np.ones(100), rate)
    with pytest.raises(ValueError, match="new_rate=.*samples in a second"):
        resample(np.ones(100), 8000, rate)
