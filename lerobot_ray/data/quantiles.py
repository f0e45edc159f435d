"""Exact quantiles of columns too large to hold, in a fixed amount of memory.

A number is turned into an unsigned key that sorts the same way. One pass over the data counts the keys by their leading
16 bits; that says in which of 65 536 groups each wanted value lies. The next pass counts the following 16 bits within
those groups, until all bits are known: two passes for 32-bit columns, four for 64-bit ones. Counts add up in any order,
so the result is the same however the rows were split over files and machines, and equal to numpy's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lerobot_ray.data.stats import QUANTILES, ranks

DIGIT_BITS = 16

Counts = dict[int, np.ndarray]
"""For each wanted leading part of the key: how many keys continue with each digit, int64 (2**16,)."""

SparseCounts = dict[int, tuple[np.ndarray, np.ndarray]]
"""The same as (digits that occur, how often): small enough to travel between machines."""


def sort_keys(values: np.ndarray) -> np.ndarray:
    """Unsigned integers that sort as `values` do (finite floats, integers, booleans)."""
    if values.dtype.kind in "bu":
        return values.astype(np.uint8) if values.dtype.kind == "b" else values
    bits = values.dtype.itemsize * 8
    unsigned = np.dtype(f"uint{bits}")
    raw = np.ascontiguousarray(values).view(unsigned)
    sign = unsigned.type(1 << (bits - 1))
    if values.dtype.kind == "i":
        return raw ^ sign
    return np.where(raw & sign, ~raw, raw | sign)


def values_of_keys(keys: Iterable[int], dtype: np.dtype) -> np.ndarray:
    """The float64 values that `sort_keys` made `keys` of."""
    bits = dtype.itemsize * 8
    unsigned = np.dtype(f"uint{bits}")
    array = np.array(list(keys), dtype=unsigned)
    if dtype.kind in "bu":
        return array.astype(np.float64)
    sign = unsigned.type(1 << (bits - 1))
    if dtype.kind == "i":
        return (array ^ sign).view(dtype).astype(np.float64)
    return np.where(array & sign, array ^ sign, ~array).view(dtype).astype(np.float64)


def key_digits(dtype: np.dtype) -> list[int]:
    """Bits of the key found by each pass, leading ones first."""
    bits = 8 if dtype.kind == "b" else dtype.itemsize * 8
    return [min(DIGIT_BITS, bits)] * max(1, bits // DIGIT_BITS)


@dataclass
class QuantileSearch:
    """The quantiles of one component, being narrowed down. Ask `wanted`, count, `advance`, until `done`."""

    dtype: np.dtype
    known: dict[int, int] = field(default_factory=dict)
    """Place in sorted order -> the leading digits of the key there."""
    within: dict[int, int] = field(default_factory=dict)
    """Place in sorted order -> its place among the keys with those digits."""
    total: int = -1
    passes: int = 0

    @property
    def done(self) -> bool:
        return self.passes == len(key_digits(self.dtype)) or self.total == 0

    @property
    def wanted(self) -> list[int]:
        """The leading parts whose keys must be counted in the next pass."""
        return sorted(set(self.known.values())) if self.passes else [0]

    def advance(self, counts: Counts) -> None:
        """Takes in the counts of all the data for one pass."""
        if self.passes == 0:
            self.total = int(counts[0].sum())
            places = {place for q in QUANTILES.values() for place in ranks(q, self.total)[:2]} if self.total else set()
            self.known, self.within = dict.fromkeys(places, 0), {place: place for place in places}
        bits = key_digits(self.dtype)[min(self.passes, len(key_digits(self.dtype)) - 1)]
        for place, prefix in self.known.items():
            upto = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(upto, self.within[place], side="right"))
            self.within[place] -= int(upto[digit - 1]) if digit else 0
            self.known[place] = prefix << bits | digit
        self.passes += 1

    def quantiles(self) -> dict[str, float]:
        """The result, interpolated linearly as numpy does; zeros for a column without a finite value."""
        if not self.total:
            return dict.fromkeys(QUANTILES, 0.0)
        value = dict(zip(self.known, values_of_keys(self.known.values(), self.dtype), strict=True))
        found = {}
        for name, q in QUANTILES.items():
            lower, upper, part = ranks(q, self.total)
            found[name] = float(value[lower] + (value[upper] - value[lower]) * part)
        return found


def count_digits(values: np.ndarray, dtype: np.dtype, *, wanted: list[int], done_passes: int) -> SparseCounts:
    """One pass over some of a component's values (n,): how the keys that begin with a wanted part continue."""
    digits = key_digits(dtype)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    keys = sort_keys(values)
    bits = digits[done_passes]
    rest = sum(digits[done_passes + 1 :])
    counts = {}
    for prefix in wanted:
        chosen = keys if not done_passes else keys[(keys >> np.uint64(rest + bits).astype(keys.dtype)) == prefix]
        digit = (chosen >> np.uint64(rest).astype(keys.dtype)) & keys.dtype.type((1 << bits) - 1)
        dense = np.bincount(digit.astype(np.int64))
        present = np.flatnonzero(dense)
        counts[prefix] = (present, dense[present])
    return counts


def add_counts(total: Counts, part: SparseCounts) -> None:
    """Adds `part` into `total`."""
    for prefix, (digits, counts) in part.items():
        if prefix not in total:
            total[prefix] = np.zeros(1 << DIGIT_BITS, np.int64)
        total[prefix][digits] += counts
