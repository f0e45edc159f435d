"""From episodes to numbers: success rates with their uncertainty, mean returns, per task and overall.

Episodes that could not be played to their end say nothing about the policy. They are counted apart, and nothing else
here looks at them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lerobot_ray.envs.result import EpisodeResult

NORMAL_95 = 1.959963984540054
"""The normal distribution's 97.5 % point: two-sided 95 %."""


@dataclass(frozen=True)
class Summary:
    """A set of episodes in numbers. Averages are over the played episodes; None when there are none."""

    n_episodes: int
    """Episodes played to their end."""
    n_failed: int
    """Episodes that could not be."""
    n_success: int
    pc_success: float | None
    """Percent, as LeRobot counts; None also when the environment has no success signal."""
    pc_success_interval: tuple[float, float] | None
    """Wilson's 95 % interval around it."""
    avg_sum_reward: float | None
    avg_max_reward: float | None
    avg_length: float | None


@dataclass(frozen=True)
class EvaluationSummary:
    """Per task, in the order in which tasks first appear, and over all episodes."""

    per_task: dict[str, Summary]
    overall: Summary


def summarise(results: Iterable[EpisodeResult]) -> EvaluationSummary:
    """The summary of an evaluation. It does not depend on the order of a task's episodes."""
    results = list(results)
    tasks = dict.fromkeys(result.task for result in results)
    per_task = {task: _summary([result for result in results if result.task == task]) for task in tasks}
    return EvaluationSummary(per_task=per_task, overall=_summary(results))


def wilson_interval(successes: int, trials: int, *, z: float = NORMAL_95) -> tuple[float, float]:
    """Where the true rate lies, as fractions (Wilson, 1927). It has a width at 0 and 1 too."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    rate, spread = successes / trials, z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / trials + spread / trials / 4) / (1 + spread)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def _summary(results: Sequence[EpisodeResult]) -> Summary:
    played = [result for result in results if not result.is_failed]
    judged = [result.success for result in played if result.success is not None]
    n_success = sum(judged)
    interval = None
    if judged:
        low, high = wilson_interval(n_success, len(judged))
        interval = (100 * low, 100 * high)
    return Summary(
        n_episodes=len(played),
        n_failed=len(results) - len(played),
        n_success=n_success,
        pc_success=100 * n_success / len(judged) if judged else None,
        pc_success_interval=interval,
        avg_sum_reward=_mean([result.sum_reward for result in played]),
        avg_max_reward=_mean([result.max_reward for result in played]),
        avg_length=_mean([float(result.length) for result in played]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
