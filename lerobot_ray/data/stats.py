"""Statistics of one feature, in pieces that add up: what stats.json and the episode table hold.

Columns of numbers are summarised exactly, by count, mean and squared deviations (`Moments`). Cameras are summarised
from evenly spaced frames as counts of pixel values (`ValueCounts`), which add without rounding. Pieces are merged in
the order of episodes, so the result does not depend on which process made which piece. Quantiles over columns too large
to hold are in `quantiles`; reading a dataset's files is in `recount`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerobot_ray.data.features import FeatureSpec

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)

MIN_SAMPLED_FRAMES, MAX_SAMPLED_FRAMES = 100, 10_000
SUBSAMPLE_ABOVE_PX, SUBSAMPLED_PX = 300, 150

MIXTURE_VALUES = 2000

FLOAT_DEPTH_MANTISSA_BITS = 16
"""Floating-point depths are counted at this precision: each within 2**-17 (8 millionths) of its value."""


def sampled_frames(length: int) -> np.ndarray:
    """Which frames of an episode of `length` the camera statistics look at: LeRobot's number of them, evenly spaced."""
    number = max(min(MIN_SAMPLED_FRAMES, length), min(int(length**0.75), MAX_SAMPLED_FRAMES))
    return np.round(np.linspace(0, length - 1, number)).astype(np.int64)


def subsampled(pixels: np.ndarray) -> np.ndarray:
    """Every n-th pixel of a large (H, W, …) frame in both directions, as LeRobot's camera statistics take them."""
    largest = max(pixels.shape[:2])
    stride = int(largest / SUBSAMPLED_PX) if largest >= SUBSAMPLE_ABOVE_PX else 1
    return pixels[::stride, ::stride]


@dataclass(frozen=True)
class Moments:
    """Count, mean, squared deviations and range per component, over the finite values. All arrays float64 (D,)."""

    rows: int
    count: np.ndarray
    mean: np.ndarray
    deviations: np.ndarray
    min: np.ndarray
    max: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Moments:
        """Of a column (n, *shape): one component per entry of the last axis, scalars one, other axes pooled."""
        rows = len(values)
        table = components(values)
        finite = np.isfinite(table)
        count = finite.sum(axis=0).astype(np.float64)
        if finite.all() and rows:
            mean = table.mean(axis=0)
            return Moments(rows, count, mean, ((table - mean) ** 2).sum(axis=0), table.min(axis=0), table.max(axis=0))
        mean = np.where(finite, table, 0.0).sum(axis=0) / np.maximum(count, 1)
        deviations = (np.where(finite, table - mean, 0.0) ** 2).sum(axis=0)
        low = np.where(finite, table, np.inf).min(axis=0, initial=np.inf)
        return Moments(
            rows, count, mean, deviations, low, np.where(finite, table, -np.inf).max(axis=0, initial=-np.inf)
        )

    def merged(self, other: Moments) -> Moments:
        """Of both columns one after the other (Chan's pooled variance: no cancellation, any sizes)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        gap = other.mean - self.mean
        return Moments(
            self.rows + other.rows,
            count,
            self.mean + gap * share,
            self.deviations + other.deviations + gap**2 * self.count * share,
            np.minimum(self.min, other.min),
            np.maximum(self.max, other.max),
        )

    def stats(self) -> dict[str, np.ndarray]:
        """Everything but the quantiles. A component without a single finite value is all zeros."""
        empty = self.count == 0
        return {
            "min": np.where(empty, 0.0, self.min),
            "max": np.where(empty, 0.0, self.max),
            "mean": self.mean,
            "std": np.sqrt(self.deviations / np.maximum(self.count, 1)),
            "count": np.array([self.rows]),
        }


def components(values: np.ndarray) -> np.ndarray:
    """A column (n, *shape) as a float64 table (values, D), D the last axis; scalars have D = 1."""
    width = values.shape[-1] if values.ndim > 1 else 1
    return values.reshape(-1, width).astype(np.float64)


def column_stats(values: np.ndarray) -> dict[str, np.ndarray]:
    """All statistics of a column (n, *shape) that fits in memory, such as one episode."""
    table = components(values)
    finite = np.isfinite(table)
    if finite.all():
        quantiles = np.quantile(table, list(QUANTILES.values()), axis=0)
    else:
        kept = [table[finite[:, d], d] for d in range(table.shape[1])]
        quantiles = np.stack([np.quantile(k if len(k) else [0.0], list(QUANTILES.values())) for k in kept], axis=1)
    return {**Moments.of(values).stats(), **dict(zip(QUANTILES, quantiles, strict=True))}


@dataclass(frozen=True)
class ValueCounts:
    """How often each pixel value occurs, per channel: exact for integers, and it adds up in any order."""

    frames: int
    values: np.ndarray
    """float64 (K,), ascending."""
    counts: np.ndarray
    """int64 (C, K)."""

    @staticmethod
    def of_bytes(counts: np.ndarray, *, frames: int) -> ValueCounts:
        """From counts of the 256 values of a colour camera, (C, 256)."""
        return ValueCounts(frames, np.arange(256.0), np.asarray(counts, np.int64))

    @staticmethod
    def of_depth(frames: np.ndarray) -> ValueCounts:
        """Of depth frames (n, …) of one channel, integer or floating point."""
        flat = frames.reshape(-1)
        if flat.dtype.kind == "f":
            flat = _rounded(flat[np.isfinite(flat)].astype(np.float32))
        values, counts = np.unique(flat, return_counts=True)
        return ValueCounts(len(frames), values.astype(np.float64), counts[None].astype(np.int64))

    def merged(self, other: ValueCounts) -> ValueCounts:
        if np.array_equal(self.values, other.values):
            return ValueCounts(self.frames + other.frames, self.values, self.counts + other.counts)
        values = np.union1d(self.values, other.values)
        counts = np.zeros((len(self.counts), len(values)), np.int64)
        for part in (self, other):
            counts[:, np.searchsorted(values, part.values)] += part.counts
        return ValueCounts(self.frames + other.frames, values, counts)

    def stats(self, *, unit: float) -> dict[str, np.ndarray]:
        """All statistics, each (C, 1, 1), of the values divided by `unit` (255 for colours, 1 for depth)."""
        per_channel = [self._channel(row, unit) for row in self.counts]
        stacked = {name: np.array([channel[name] for channel in per_channel])[:, None, None] for name in per_channel[0]}
        ordered = {name: stacked[name] for name in STATISTICS if name != "count"}
        return {**ordered, "count": np.array([self.frames])}

    def _channel(self, counts: np.ndarray, unit: float) -> dict[str, float]:
        present = np.flatnonzero(counts)
        if not len(present):
            return dict.fromkeys((name for name in STATISTICS if name != "count"), 0.0)
        values, counts = self.values[present] / unit, counts[present]
        total = int(counts.sum())
        mean = float((values * counts).sum() / total)
        upto = np.cumsum(counts)
        stats = {
            "min": float(values[0]),
            "max": float(values[-1]),
            "mean": mean,
            "std": float(np.sqrt((counts * (values - mean) ** 2).sum() / total)),
        }
        for name, q in QUANTILES.items():
            lower, upper, part = ranks(q, total)
            low, high = values[np.searchsorted(upto, [lower, upper], side="right")]
            stats[name] = float(low + (high - low) * part)
        return stats


def ranks(q: float, total: int) -> tuple[int, int, float]:
    """The two places (from 0) in `total` sorted values between which quantile `q` lies, and how far along."""
    place = q * (total - 1)
    lower = min(int(place), total - 1)
    return lower, min(lower + 1, total - 1), place - lower


def _rounded(values: np.ndarray) -> np.ndarray:
    """float32 values to the nearest with `FLOAT_DEPTH_MANTISSA_BITS` bits, so that counting them groups them."""
    drop = 23 - FLOAT_DEPTH_MANTISSA_BITS
    bits = values.view(np.uint32).astype(np.uint64) + (1 << (drop - 1))
    return (bits >> drop << drop).astype(np.uint32).view(np.float32)


def merged_summaries(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The statistics of several pieces of a camera from the statistics of each.

    Range, mean and deviation are exact. Quantiles are read from the mixture of the pieces' distributions, each taken as
    straight between its known quantiles: an estimate, for when the frames are no longer at hand.
    """
    counts = np.array([float(part["count"][0]) for part in parts])
    weights = counts / counts.sum()
    mean = sum(w * part["mean"] for w, part in zip(weights, parts, strict=True))
    variance = sum(w * (part["std"] ** 2 + (part["mean"] - mean) ** 2) for w, part in zip(weights, parts, strict=True))
    merged = {
        "min": np.minimum.reduce([part["min"] for part in parts]),
        "max": np.maximum.reduce([part["max"] for part in parts]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())]),
        **{name: np.empty_like(parts[0][name], np.float64) for name in QUANTILES},
    }
    # Each piece as many values with equal shares of its weight, spread along the line through its known quantiles.
    levels = (np.arange(MIXTURE_VALUES) + 0.5) / MIXTURE_VALUES
    shares = np.repeat(weights, MIXTURE_VALUES) / MIXTURE_VALUES
    for place in np.ndindex(parts[0]["mean"].shape):
        curves = [[float(part[name][place]) for name in ("min", *QUANTILES, "max")] for part in parts]
        values = np.concatenate([np.interp(levels, [0.0, *QUANTILES.values(), 1.0], curve) for curve in curves])
        order = np.argsort(values, kind="stable")
        middle = np.cumsum(shares[order]) - shares[order] / 2
        for name, q in QUANTILES.items():
            merged[name][place] = np.interp(q, middle, values[order])
    return {name: merged[name] for name in STATISTICS}


def byte_counts(pixels: np.ndarray) -> np.ndarray:
    """Counts (C, 256) of the values of one uint8 (H, W, C) frame, subsampled if large."""
    kept = subsampled(pixels)
    return np.stack([np.bincount(kept[..., channel].ravel(), minlength=256) for channel in range(kept.shape[-1])])


def has_stats(spec: FeatureSpec) -> bool:
    """Strings and language columns have no statistics."""
    return spec.is_camera or spec.is_numeric


def pixel_unit(spec: FeatureSpec) -> float:
    """What a camera's values are divided by in statistics: colours by 255; depths keep the unit they came in."""
    return 1.0 if spec.is_depth else 255.0


def as_json(stats: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Stats as stats.json has them: nested lists of plain numbers."""
    return {key: {name: np.asarray(value).tolist() for name, value in entry.items()} for key, entry in stats.items()}


def from_json(document: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The inverse of `as_json`."""
    return {key: {name: np.asarray(value) for name, value in entry.items()} for key, entry in document.items()}
