"""How much of the metric's spread each parameter explains by itself, from the trials there are.

A ranking, so that one diverged trial does not decide: of a number, the share of the ranks' variance that a parabola in
it (in its logarithm where it was drawn so) explains; of a choice, the share between its groups. Both are corrected for
what chance explains with so few trials. Parameters that matter only together show little here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

FEWEST = 5
"""Trials below which nothing can be said."""


def importance(values: Sequence[Any], scores: Sequence[float], *, is_log: bool) -> float | None:
    """From 0 to 1; None when there are too few trials, or all have the same value."""
    pairs = [(value, score) for value, score in zip(values, scores, strict=True) if value is not None]
    if len(pairs) < FEWEST or len({str(value) for value, _ in pairs}) < 2:
        return None
    ranks = _ranks(np.array([score for _, score in pairs]))
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if total == 0:
        return None
    if is_number(value for value, _ in pairs) and len({value for value, _ in pairs}) > 2:
        x = np.array([math.log10(value) if is_log and value > 0 else float(value) for value, _ in pairs])
        rest, freedom = _parabola(x, ranks), 3
    else:
        groups: dict[str, list[float]] = {}
        for (value, _), rank in zip(pairs, ranks.tolist(), strict=True):
            groups.setdefault(str(value), []).append(rank)
        rest = sum(float(((np.array(group) - np.mean(group)) ** 2).sum()) for group in groups.values())
        freedom = len(groups)
    if len(pairs) <= freedom:
        return None
    explained = 1.0 - (rest / (len(pairs) - freedom)) / (total / (len(pairs) - 1))
    return float(min(max(explained, 0.0), 1.0))


def is_number(values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Places from 0, equal scores sharing theirs; what is not finite comes last."""
    ordered = np.sort(np.where(np.isfinite(scores), scores, np.inf))
    first = np.searchsorted(ordered, np.where(np.isfinite(scores), scores, np.inf), side="left")
    last = np.searchsorted(ordered, np.where(np.isfinite(scores), scores, np.inf), side="right")
    return (first + last - 1) / 2.0


def _parabola(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of squares that a parabola leaves over."""
    x = (x - x.mean()) / (x.std() or 1.0)
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    return float(((y - design @ coefficients) ** 2).sum())
