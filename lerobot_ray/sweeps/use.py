"""How well a sweep used its slots and its steps."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot_ray.sweeps.trial import SweepState


@dataclass(frozen=True)
class Use:
    """Times in seconds."""

    slots: int
    wall_s: float
    busy: float
    """Share of the slots' time, from the first trial's begin to the last one's, in which they were at a trial."""
    steps: int
    """Trained, over all trials."""
    full_steps: int
    """As many as all of them would have been without stopping any."""

    @property
    def saved(self) -> float:
        return 1.0 - self.steps / self.full_steps if self.full_steps else 0.0


def use_of(state: SweepState) -> Use:
    """Over all starts of the sweep; the time between two of them counts for nothing."""
    slots, wall, busy_s, there_s = 1, 0.0, 0.0, 0.0
    begins = [float(start["time"]) for start in state.starts]
    for place, begin in enumerate(begins):
        end = begins[place + 1] if place + 1 < len(begins) else float("inf")
        spans = [
            (slot, since, until or state.last_s)
            for trial in state.trials.values()
            for slot, since, until in trial.spans
            if begin <= since < end
        ]
        if not spans:
            continue
        slots = int(state.starts[place]["slots"])
        first, last = min(since for _, since, _ in spans), max(since for _, since, _ in spans)
        wall += max(until for _, _, until in spans) - begin
        there_s += slots * (last - first)
        busy_s += sum(max(0.0, min(until, last) - since) for _, since, until in spans)
    full = int(state.starts[-1]["steps"]) if state.starts else 0
    trials = list(state.trials.values())
    return Use(
        slots=slots,
        wall_s=wall,
        busy=busy_s / there_s if there_s else 1.0,
        steps=sum(trial.step for trial in trials),
        full_steps=full * sum(trial.status != "failed" for trial in trials)
        + sum(trial.step for trial in trials if trial.status == "failed"),
    )
