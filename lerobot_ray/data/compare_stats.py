"""Two sets of statistics side by side: which numbers differ enough to matter for normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerobot_ray.core.types import INDEX_FEATURES
from lerobot_ray.data.stats import STATISTICS

NOTEWORTHY = 0.01
"""A difference of so many standard deviations of the feature is worth a line."""


@dataclass(frozen=True)
class Difference:
    """One number that differs."""

    feature: str
    statistic: str
    component: int
    stored: float
    counted: float
    deviations: float
    """The difference in standard deviations of the component."""


def differences(stored: Mapping[str, Any] | None, counted: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """Numbers that differ noticeably, the largest difference first; and features that `stored` lacks.

    The index features are never normalised and are left out.
    """
    stored = stored or {}
    found: list[Difference] = []
    for feature, entry in counted.items():
        if feature not in stored or feature in INDEX_FEATURES:
            continue
        scale = np.maximum(np.ravel(entry["std"]), 1e-9 + 1e-6 * np.abs(np.ravel(entry["mean"])))
        for statistic in STATISTICS:
            old, new = np.ravel(stored[feature].get(statistic, np.nan)), np.ravel(entry[statistic])
            if statistic == "count" or old.shape != new.shape:
                continue
            apart = np.abs(new - old) / scale
            found += [
                Difference(feature, statistic, int(at), float(old[at]), float(new[at]), float(apart[at]))
                for at in np.flatnonzero(apart > NOTEWORTHY)
            ]
    found.sort(key=lambda difference: -difference.deviations)
    return found, [feature for feature in counted if feature not in stored]


def differences_text(found: list[Difference], missing: list[str], *, limit: int = 20) -> str:
    """The comparison for a terminal."""
    lines = [f"{feature}: no statistics stored" for feature in missing]
    if not found and not missing:
        return "stats.json agrees with the data."
    if found:
        name = max(len(f"{row.feature}[{row.component}]") for row in found[:limit])
        lines.append(f"{'':{name}}  {'':4}  {'stored':>12}  {'counted':>12}  apart by")
        lines += [
            f"{f'{row.feature}[{row.component}]':{name}}  {row.statistic:4}  "
            f"{row.stored:>12.5g}  {row.counted:>12.5g}  {row.deviations:.2g} std"
            for row in found[:limit]
        ]
    if len(found) > limit:
        lines.append(f"… and {len(found) - limit} more")
    return "\n".join(lines)
