"""Population based training: every few steps the worst trials give up their weights and go on from the best ones'.

All trials train `interval` steps and wait for one another; then the lowest quantile takes over a checkpoint each of the
highest, with values nudged by a fifth up or down or drawn anew. What is decided follows from the reports, the seed and
the generation, so a sweep that was interrupted decides the same again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerobot_ray.sweeps.searchers import draw, rounded
from lerobot_ray.sweeps.space import Space, Values
from lerobot_ray.sweeps.sweep_file import SweepConfig

FACTORS = (0.8, 1.2)


@dataclass(frozen=True)
class Exploit:
    """`trial` goes on from `donor`'s checkpoint with `values`."""

    trial: int
    donor: int
    values: dict[str, Any]


def interval_of(sweep: SweepConfig, *, steps: int) -> int:
    return min(sweep.scheduler.interval or max(1, steps // 10), steps)


def exploits(
    sweep: SweepConfig, scores: Mapping[int, float | None], values: Mapping[int, Mapping[str, Any]], *, generation: int
) -> list[Exploit]:
    """Who takes over from whom. `scores` by trial, None where there is none: such a trial is among the worst."""
    generator = np.random.default_rng([sweep.searcher.seed, 7919, generation])
    ranked = sorted(scores, key=lambda trial: (_badness(scores[trial], sweep.sign), trial))
    count = min(max(1, math.ceil(sweep.scheduler.quantile * len(ranked))), len(ranked) // 2)
    best = [trial for trial in ranked[:count] if scores[trial] is not None]
    if not best:
        return []
    found = []
    for trial in ranked[len(ranked) - count :]:
        donor = best[int(generator.integers(len(best)))]
        explored = explore(values[donor], sweep.space, generator, resample=sweep.scheduler.resample)
        found.append(Exploit(trial, donor, explored))
    return found


def explore(values: Mapping[str, Any], space: Space, generator: Any, *, resample: float) -> dict[str, Any]:
    """The values, each nudged or drawn anew, within what may be tried."""
    return {
        name: draw(space[name][0].values, generator)
        if generator.random() < resample
        else nudged(value, space[name][0].values, generator)
        for name, value in values.items()
    }


def nudged(value: Any, values: Values, generator: Any) -> Any:
    """A neighbour in a list; a number a fifth larger or smaller."""
    if values.choices is not None:
        place = values.choices.index(value) + int(generator.choice([-1, 1]))
        return values.choices[min(max(place, 0), len(values.choices) - 1)]
    moved = float(value) * FACTORS[int(generator.integers(2))]
    if values.kind not in ("randn", "qrandn"):
        moved = min(max(moved, values.numbers[0]), values.numbers[1])
    return (
        max(int(values.numbers[0]), min(round(moved), int(values.numbers[1]) - 1))
        if values.is_whole
        else rounded(moved)
    )


def _badness(score: float | None, sign: float) -> float:
    return math.inf if score is None or not math.isfinite(score) else sign * score


def generations(steps: int, interval: int) -> Sequence[int]:
    """The steps at which trials wait for one another; the last is the end."""
    return [*range(interval, steps, interval), steps]
