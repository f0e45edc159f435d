"""Where the time of a training step goes, from what the loop measured and the clock between its log lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerobot_ray.report_page.stack_chart import Layer
from lerobot_ray.tracking.metric_log import MetricLog, Series

PARTS = (
    ("update_s", "forward, backward, update", "c1"),
    ("preprocessing_s", "preprocessing", "c3"),
    ("dataloading_s", "waiting for data", "c2"),
    ("checkpoint_s", "saving checkpoints", "c4"),
)
OTHER, OTHER_COLOUR = "all else", "c5"
EVALUATING = "evaluation and all else"
"""What the rest is called where there is a held-out loss."""


@dataclass(frozen=True, eq=False)
class StepTime:
    step: np.ndarray
    layers: tuple[Layer, ...]
    """Seconds per step, `PARTS` then what they leave over. Parts never measured are left out."""
    weight: np.ndarray
    """Steps that each value is the mean of."""

    def total_s(self, layer: Layer) -> float:
        return float((layer.value * self.weight).sum())

    @property
    def whole_s(self) -> float:
        return sum(self.total_s(layer) for layer in self.layers)

    def share(self, name: str) -> float:
        """A part's share of all time; 0 for one that is not there."""
        part = sum(self.total_s(layer) for layer in self.layers if layer.name == name)
        return part / self.whole_s if part else 0.0


def step_time(log: MetricLog) -> StepTime | None:
    """None when the run did not measure its steps."""
    steps = log.series.get("train/step_s")
    if steps is None or not len(steps.step):
        return None
    begins = {attempt.number: attempt.first_step for attempt in log.attempts}
    first = np.append(True, np.diff(steps.attempt) != 0)
    before = np.where(
        first, [begins.get(number, 0) for number in steps.attempt.tolist()], np.append(0, steps.step[:-1])
    )
    weight = np.maximum(steps.step - before, 1)
    measured = np.nan_to_num(steps.value)
    # Between the lines of an attempt the clock has seen everything; before its first line also the start-up.
    clock = np.where(first, 0.0, np.diff(steps.time_s, prepend=steps.time_s[0]) / weight)
    known = [
        Layer(title, colour, at_steps(log.series[f"train/{name}"], steps.step))
        for name, title, colour in PARTS
        if f"train/{name}" in log.series
    ]
    whole = np.maximum(measured, clock)
    rest = np.maximum(whole - sum((layer.value for layer in known), np.zeros(len(whole))), 0.0)
    title = EVALUATING if any(name.startswith("eval/") and "loss" in name for name in log.series) else OTHER
    return StepTime(steps.step, (*known, Layer(title, OTHER_COLOUR, rest)), weight)


def at_steps(series: Series, step: np.ndarray) -> np.ndarray:
    """The values logged for these steps; 0 where there is none."""
    place = np.minimum(np.searchsorted(series.step, step), len(series.step) - 1)
    return np.where(series.step[place] == step, np.nan_to_num(series.value[place]), 0.0)
