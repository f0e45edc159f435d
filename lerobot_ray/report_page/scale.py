"""From values to places in a picture, and where its axis has marks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scale:
    """`low` is drawn at `start`, `high` at `end` (in picture units), linearly or by the logarithm."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: np.ndarray | float) -> np.ndarray:
        """Where values are drawn; those beyond the ends are drawn at them."""
        inside = np.clip(np.asarray(value, dtype=np.float64), self.low, self.high)
        low, high = self.low, self.high
        if self.is_log:
            inside, low, high = np.log10(inside), math.log10(low), math.log10(high)
        return np.asarray(self.start + (inside - low) / (high - low) * (self.end - self.start))

    def ticks(self, about: int = 5) -> list[float]:
        return log_ticks(self.low, self.high) if self.is_log else ticks(self.low, self.high, about)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many."""
    rough = (high - low) / max(about, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, len(decades) // 6)
    factors = (1,) if len(decades) > 4 else (1, 2, 5) if len(decades) > 2 else (1, 2, 3, 5, 7)
    marks = [factor * 10.0**decade for decade in decades if decade % every == 0 for factor in factors]
    return [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]


def wants_log(values: np.ndarray) -> bool:
    """Whether a curve loses its shape on a linear axis: all positive, and the bulk spans more than a factor of 20."""
    values = values[np.isfinite(values)]
    return len(values) > 2 and values.min() > 0 and np.quantile(values, 0.98) / np.quantile(values, 0.02) > 20


def value_scale(values: np.ndarray, start: float, end: float, *, is_log: bool, from_zero: bool = False) -> Scale:
    """A scale with some air around the values; a lone spike does not flatten all the rest."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Scale(0, 1, start, end)
    low, high = float(values.min()), float(values.max())
    if is_log:
        decades = max(math.log10(high) - math.log10(low), 0.2)
        return Scale(low / 10 ** (0.04 * decades), high * 10 ** (0.04 * decades), start, end, is_log=True)
    bulk = float(np.quantile(values, 0.98))
    if len(values) > 50 and high > 4 * bulk > 0:
        high = 1.5 * bulk
    if from_zero or (0 < low < 0.4 * high):
        low = min(0.0, low)
    if high <= low:
        return Scale(low - max(abs(low) * 0.1, 1e-9), high + max(abs(high) * 0.1, 1e-9), start, end)
    air = 0.06 * (high - low)
    return Scale(low if low == 0 else low - air, high + air, start, end)
