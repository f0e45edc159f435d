"""One trial, and a sweep as its trials: what the journal's events add up to.

The driver and a resume do the same with an event, so the state after a crash is the state before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lerobot_ray.sweeps.journal import Event
from lerobot_ray.sweeps.sweep_file import SweepConfig

ENDED = ("finished", "stopped", "failed")


@dataclass
class Trial:
    """A training run with one set of values and one seed."""

    number: int
    set_number: int
    values: dict[str, Any]
    seed: int | None = None
    status: str = "waiting"
    """waiting, running, interrupted, or how it ended: finished, stopped, failed."""
    reason: str = ""
    verdict: str = ""
    """Why it is to stop; it may not have heard yet."""
    step: int = 0
    generation: int = 0
    reports: list[tuple[int, float]] = field(default_factory=list)
    """(step, value of the sweep's metric), by rising step."""
    spans: list[tuple[int, float, float | None]] = field(default_factory=list)
    """(slot, from, to) it was running, Unix time."""
    took_over: list[tuple[int, int]] = field(default_factory=list)
    """(step, donor) of every checkpoint it took over from another trial."""

    @property
    def name(self) -> str:
        return f"{self.number:03d}"

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def score(self, sweep: SweepConfig) -> float | None:
        """What it is judged by; None without a finite report."""
        finite = [value for _, value in self.reports if math.isfinite(value)]
        if not finite:
            return None
        if sweep.score == "last":
            return finite[-1]
        return min(finite, key=lambda value: sweep.sign * value)

    def busy_s(self, now: float | None = None) -> float:
        return sum((end or now or begin) - begin for _, begin, end in self.spans)


@dataclass
class SweepState:
    """All trials so far."""

    sweep: SweepConfig
    trials: dict[int, Trial] = field(default_factory=dict)
    starts: list[Event] = field(default_factory=list)
    """One per start of the driver."""
    last_s: float = 0.0
    is_done: bool = False

    def apply(self, event: Event) -> None:
        """Take in one event."""
        kind, time_s = event["event"], float(event["time"])
        if kind == "start":
            self._interrupted()
            self.starts.append(event)
            self.is_done = False
        elif kind == "set":
            for number, seed in zip(event["trials"], event["seeds"], strict=True):
                self.trials[number] = Trial(number, event["set"], dict(event["values"]), seed)
        elif kind == "generation":
            for entry in event["exploits"]:
                trial = self.trials[entry["trial"]]
                trial.values = dict(entry["values"])
                trial.took_over.append((event["step"], entry["donor"]))
        elif kind == "done":
            self.is_done = True
        elif "trial" in event:
            self._of_trial(self.trials[event["trial"]], kind, event)
        self.last_s = time_s

    def of_set(self, number: int) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.set_number == number]

    def _of_trial(self, trial: Trial, kind: str, event: Event) -> None:
        if kind == "begin":
            trial.status = "running"
            trial.spans.append((event["slot"], event["time"], None))
        elif kind == "report":
            value = event["value"]
            trial.reports.append((event["step"], float("nan") if value is None else float(value)))
            trial.step = max(trial.step, event["step"])
        elif kind == "verdict":
            trial.verdict = event["reason"]
        elif kind in ("leg", "pause"):
            trial.status = "waiting" if kind == "leg" else "interrupted"
            trial.step = max(trial.step, event["step"] or 0)
            trial.generation += kind == "leg"
            _close_span(trial, event["time"])
        elif kind == "end":
            trial.status, trial.reason = event["status"], event["reason"]
            trial.step = max(trial.step, event["step"] or 0)
            _close_span(trial, event["time"])

    def _interrupted(self) -> None:
        for trial in self.trials.values():
            if trial.status == "running":
                trial.status = "interrupted"
                _close_span(trial, self.last_s)


def _close_span(trial: Trial, time_s: float) -> None:
    if trial.spans and trial.spans[-1][2] is None:
        slot, begin, _ = trial.spans[-1]
        trial.spans[-1] = (slot, begin, time_s)


def rebuilt(sweep: SweepConfig, events: Iterable[Event]) -> SweepState:
    """The state that events add up to."""
    state = SweepState(sweep)
    for event in events:
        state.apply(event)
    return state


def ranked(state: SweepState) -> list[Trial]:
    """Trials by score, the best first: those that went to their end, those that were stopped, failed ones last."""
    order = {"finished": 0, "running": 1, "interrupted": 1, "waiting": 1, "stopped": 1, "failed": 2}

    def place(trial: Trial) -> tuple[Any, ...]:
        score = trial.score(state.sweep)
        value = math.inf if score is None else state.sweep.sign * score
        return order[trial.status], score is None, value, trial.number

    return sorted(state.trials.values(), key=place)


def best_trial(state: SweepState) -> Trial | None:
    """The best that went to its end; if none did, the best of the others that brought a value."""
    found = [trial for trial in ranked(state) if trial.score(state.sweep) is not None and trial.status != "failed"]
    return found[0] if found else None


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def set_score(trials: Sequence[Trial], sweep: SweepConfig) -> float | None:
    """The mean over a set's repeats; None while one of them has no value."""
    scores = [trial.score(sweep) for trial in trials]
    known = [score for score in scores if score is not None]
    return mean(known) if known and len(known) == len(scores) else None
