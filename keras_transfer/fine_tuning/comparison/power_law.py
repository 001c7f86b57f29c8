"""A power law of the score by the number of labels, with its uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EXPONENTS = np.geomspace(0.05, 3, 300)
SAMPLES = 1000
LEVEL = 0.9


class Forecast(NamedTuple):
    """The expected gain at a number of labels, and its 90 % interval.

    Args:
        size: Number of labels.
        gain: By how much the score is better than at the largest measured size.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    size: int
    gain: float
    low: float
    high: float


class PowerLaw:
    """The law `loss = a + b n⁻ᶜ`, fitted to means by least squares.

    For each of many exponents `c`, the best `a` and `b` have a closed form, and the
    exponent with the smallest error is chosen. The uncertainty is that of the fit to
    means that are drawn from their standard errors.

    Args:
        sizes: Array of shape `(sizes,)`, the numbers of labels.
        losses: Array of shape `(sizes,)`, the mean losses, where smaller is better.
        errors: Array of shape `(sizes,)`, the standard errors of the means.
        least: The smallest possible `a`, or None.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        losses: np.ndarray,
        errors: np.ndarray,
        least: float | None,
        seed: int = 0,
    ) -> None:
        self.sizes = np.asarray(sizes, "float64")
        self.errors = np.maximum(errors, 1e-3 * max(1e-12, np.ptp(losses)))
        self.least = least
        drawn = np.random.default_rng(seed).normal(size=(SAMPLES, len(sizes)))
        self.fit = self._fitted(np.asarray(losses)[None])
        self.samples = self._fitted(losses + self.errors * drawn)

    def forecast(self, size: int) -> Forecast:
        """Return the expected gain at `size` labels."""
        last = self.sizes[-1:]
        gains = _at(self.samples, last) - _at(self.samples, np.array([size]))
        gain = (_at(self.fit, last) - _at(self.fit, np.array([size])))[0, 0]
        low, high = np.quantile(gains, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return Forecast(int(size), float(gain), float(low), float(high))

    def losses(self, sizes: np.ndarray) -> np.ndarray:
        """Return the fitted losses at `sizes`."""
        return _at(self.fit, np.asarray(sizes, "float64"))[0]

    def _fitted(self, losses: np.ndarray) -> np.ndarray:
        """Return `a`, `b` and `c` for each row of losses, as `(rows, 3)`."""
        weights = 1 / self.errors**2
        weights = weights / weights.sum()
        powers = (self.sizes / self.sizes[-1]) ** -EXPONENTS[:, None]
        mean_power = powers @ weights
        centered = powers - mean_power[:, None]
        slope = (losses * weights) @ centered.T / (centered**2 @ weights)
        start = (losses @ weights)[:, None] - slope * mean_power
        if self.least is not None:
            # Below the smallest `a`, the best fit with this `a` takes its place.
            free = losses - self.least
            alone = (free * weights) @ powers.T / (powers**2 @ weights)
            below = start < self.least
            slope, start = (
                np.where(below, alone, slope),
                np.where(below, self.least, start),
            )
        fitted = start[..., None] + slope[..., None] * powers
        wrong = ((fitted - losses[:, None]) ** 2) @ weights
        best = wrong.argmin(1)
        rows = np.arange(len(losses))
        found = start[rows, best], slope[rows, best], EXPONENTS[best]
        # `b` belongs to the number of labels itself.
        scaled = found[1] * self.sizes[-1] ** found[2]
        return np.stack([found[0], scaled, found[2]], axis=1)


def _at(laws: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    start, slope, exponent = laws.T[:, :, None]
    return start + slope * sizes[None] ** -exponent
