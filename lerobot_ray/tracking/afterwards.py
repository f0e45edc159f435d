"""Numbers that become known when a run has ended: evaluations that took longer than training. Called on the driver."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot_ray.tracking.build import TrackingPlan
from lerobot_ray.tracking.jsonl import append_numbers
from lerobot_ray.tracking.mlflow import log_to_ended_run
from lerobot_ray.tracking.protocol import Outcome, RunInfo
from lerobot_ray.tracking.redact import redacted_text
from lerobot_ray.tracking.wandb import WandbTracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LateNumbers:
    """What belongs to a step of a run that has ended."""

    step: int
    values: Mapping[str, float]
    files: Sequence[Path] = ()


def log_afterwards(plan: TrackingPlan, late: Sequence[LateNumbers]) -> None:
    """Add numbers to every place the run's numbers are in. A place that fails is said, and the others go on."""
    for name, add in (("metrics.jsonl", _to_jsonl), ("mlflow", _to_mlflow), ("wandb", _to_wandb)):
        try:
            add(plan, late)
        except Exception as error:  # whatever a tracking library raises
            message = redacted_text(str(error))
            logger.warning("%s: late results are not recorded (%s: %s)", name, type(error).__name__, message)


def _to_jsonl(plan: TrackingPlan, late: Sequence[LateNumbers]) -> None:
    for entry in late:
        append_numbers(plan.output_dir, entry.values, step=entry.step)


def _to_mlflow(plan: TrackingPlan, late: Sequence[LateNumbers]) -> None:
    if plan.mlflow is not None:
        log_to_ended_run(plan.mlflow_uri, plan.output_dir, [(entry.step, entry.values, entry.files) for entry in late])


def _to_wandb(plan: TrackingPlan, late: Sequence[LateNumbers]) -> None:
    if plan.wandb is None:
        return
    tracker = WandbTracker(plan.wandb)
    tracker.start(RunInfo(output_dir=plan.output_dir, name=plan.name, config=plan.config))
    for entry in late:
        tracker.log(entry.values, step=entry.step)
    tracker.close(Outcome())
