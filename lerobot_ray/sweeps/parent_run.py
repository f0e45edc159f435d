"""The sweep's own run in MLflow, of which every trial is a child."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from lerobot_ray.config.train import TrainConfig
from lerobot_ray.sweeps.plan import SweepPlan
from lerobot_ray.sweeps.trial import SweepState, best_trial
from lerobot_ray.tracking.mlflow import MlflowTracker, resolve_tracking_uri
from lerobot_ray.tracking.protocol import Outcome, RunInfo

logger = logging.getLogger(__name__)


def mlflow_uri_of(config: TrainConfig, folder: Path) -> str:
    """The store of a sweep and all its trials; empty when MLflow is off."""
    if not config.mlflow.enable:
        return ""
    return resolve_tracking_uri(config.mlflow.tracking_uri, folder, os.environ)


class ParentRun:
    """MLflow may be slow or away: a sweep goes on without it, and its trials then stand by themselves."""

    def __init__(self, tracker: MlflowTracker, sweep_metric: str) -> None:
        self._tracker, self._metric = tracker, sweep_metric

    @property
    def run_id(self) -> str:
        return self._tracker.run_id

    @classmethod
    def begun(cls, plan: SweepPlan, config: TrainConfig, uri: str) -> ParentRun | None:
        """The run of this sweep, the same one after an interruption; None without MLflow."""
        if not uri:
            return None
        sweep = plan.sweep
        settings: dict[str, Any] = {
            "metric": sweep.metric,
            "mode": sweep.mode,
            "searcher": sweep.searcher.type,
            "scheduler": sweep.scheduler.type,
            "parameters": {
                name: " | ".join(branch.values.text for branch in branches) for name, branches in sweep.space.items()
            },
        }
        tags = {"lerobot_ray.kind": "sweep", "policy": config.policy.type if config.policy else ""}
        tracker = MlflowTracker(uri, experiment=config.mlflow.experiment, system_metrics=False, tags=tags)
        try:
            tracker.start(RunInfo(output_dir=plan.folder, name=plan.name, config=settings, total_steps=plan.steps))
        except Exception as error:
            logger.warning("mlflow: no run for the sweep (%s: %s)", type(error).__name__, error)
            return None
        return cls(tracker, sweep.metric)

    def end(self, state: SweepState, *, is_interrupted: bool) -> None:
        ended = [trial for trial in state.trials.values() if trial.has_ended]
        best = best_trial(state)
        numbers = {f"trials_{kind}": float(sum(trial.status == kind for trial in ended)) for kind in _KINDS}
        if best is not None:
            numbers[f"best/{self._metric}"] = float(best.score(state.sweep) or 0.0)
        try:
            self._tracker.log(numbers, step=len(ended))
            self._tracker.close(Outcome("stopped", "interrupted") if is_interrupted else Outcome())
        except Exception as error:
            logger.warning("mlflow: the sweep's end is not recorded (%s: %s)", type(error).__name__, error)


_KINDS = ("finished", "stopped", "failed")
