"""Who ends trials before their time: Ray Tune's schedulers asked one report at a time, and the sweep's own rules.

Tune's schedulers decide from what trials report and never touch a trial, so they work here as they do below a `Tuner`.
(`tests/sweeps/test_stoppers.py` is where a new version of Ray would be noticed.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from lerobot_ray.sweeps.sweep_file import StopConfig, SweepConfig


class Stopper(Protocol):
    """Told every report, in order."""

    def says(self, trial: int, *, step: int, value: float) -> str:
        """Why the trial should end now, or an empty string."""


def build_stoppers(sweep: SweepConfig, *, steps: int) -> list[Stopper]:
    """`steps` of a trial, at most."""
    stoppers: list[Stopper] = [Rules(sweep.stop, sign=sweep.sign)]
    if sweep.scheduler.type in ("asha", "median"):
        stoppers.append(TuneStopper(sweep, steps=steps))
    return stoppers


class Rules:
    """`stop.value` and `stop.patience` of the sweep file."""

    def __init__(self, stop: StopConfig, *, sign: float) -> None:
        self._stop, self._sign = stop, sign
        self._best: dict[int, float] = {}
        self._since: dict[int, int] = {}

    def says(self, trial: int, *, step: int, value: float) -> str:
        if not math.isfinite(value):
            return ""
        if self._stop.value is not None and self._sign * value <= self._sign * self._stop.value:
            return f"good enough: {value:.4g}"
        if self._stop.patience is None:
            return ""
        if trial not in self._best or self._sign * value < self._sign * self._best[trial]:
            self._best[trial], self._since[trial] = value, 0
            return ""
        self._since[trial] += 1
        return f"no better for {self._since[trial]} reports" if self._since[trial] >= self._stop.patience else ""


@dataclass(frozen=True)
class _Handle:
    """What Tune's schedulers look at of a trial."""

    trial_id: str


class _NoController:
    """In place of Tune's controller, which the median rule asks for trials that wait: it would pause one for them."""

    def get_live_trials(self) -> list[Any]:
        return []


class TuneStopper:
    """ASHA or the median rule of `ray.tune.schedulers`."""

    def __init__(self, sweep: SweepConfig, *, steps: int) -> None:
        from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

        settings = sweep.scheduler
        grace = min(settings.grace_steps or max(1, steps // 10), steps)
        shared: dict[str, Any] = {"time_attr": "step", "metric": "value", "mode": sweep.mode}
        self._name, self._steps = settings.type, steps
        self._inner: Any
        if settings.type == "asha":
            self._inner = ASHAScheduler(
                **shared, max_t=steps, grace_period=grace, reduction_factor=settings.reduction_factor
            )
        else:
            self._inner = MedianStoppingRule(
                **shared, grace_period=grace, min_samples_required=settings.min_trials, hard_stop=True
            )
        self._handles: dict[int, _Handle] = {}
        self._stopped: set[int] = set()

    def says(self, trial: int, *, step: int, value: float) -> str:
        from ray.tune.schedulers import TrialScheduler

        if trial in self._stopped:  # it has not heard yet
            return ""
        if trial not in self._handles:
            self._handles[trial] = _Handle(str(trial))
            self._inner.on_trial_add(_NoController(), self._handles[trial])
        if not math.isfinite(value):
            return f"{self._name}: {value} is no number"
        if step >= self._steps:  # it is done anyway
            return ""
        told = {"step": step, "value": value}
        action = self._inner.on_trial_result(_NoController(), self._handles[trial], told)
        if action != TrialScheduler.STOP:
            return ""
        self._stopped.add(trial)
        return f"{self._name} at step {step:,}"
