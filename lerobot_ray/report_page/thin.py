"""A hundred thousand points as the few hundred that a picture can show, none of its peaks lost. And smoothed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Envelope:
    """A series in bins along the steps: what lies in each, from lowest to highest."""

    step: np.ndarray
    """The last step of each bin."""
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray
    is_exact: bool
    """Every bin holds one value."""


def envelope(step: np.ndarray, value: np.ndarray, max_points: int = 320) -> Envelope:
    """At most `max_points` bins of equal width in steps. Values that are not finite are left out."""
    finite = np.isfinite(value)
    step, value = step[finite], value[finite]
    if len(step) <= max_points:
        return Envelope(step, value, value, value, is_exact=True)
    edges = np.linspace(step[0], step[-1], max_points + 1)
    first = np.unique(np.searchsorted(step, edges[:-1], side="left"))
    counts = np.diff(np.append(first, len(step)))
    return Envelope(
        step=step[np.append(first[1:], len(step)) - 1],
        low=np.minimum.reduceat(value, first),
        mean=np.add.reduceat(value, first) / counts,
        high=np.maximum.reduceat(value, first),
        is_exact=False,
    )


def smoothed(value: np.ndarray, window: int | None = None) -> np.ndarray:
    """Running means around each point, over a fortieth of the series if nothing is said; shorter towards its ends.

    Centred, so that the curve does not lag behind what it smooths.
    """
    half = max(1, (window or max(5, len(value) // 40)) // 2)
    finite = np.isfinite(value)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, value, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    place = np.arange(len(value))
    reach = np.minimum(half, np.minimum(place, place[::-1]))  # as far on either side
    first, last = place - reach, place + reach + 1
    inside = counts[last] - counts[first]
    return np.where(inside > 0, (sums[last] - sums[first]) / np.maximum(inside, 1), np.nan)
