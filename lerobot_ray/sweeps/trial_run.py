"""A trial as a training run: settled on the driver as `train` settles one, with its share of the cluster."""

from __future__ import annotations

import dataclasses
from typing import Any

from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.on_ray.cluster import Workers
from lerobot_ray.on_ray.run_folder import check_same_policy, checkpoint_to_resume
from lerobot_ray.on_ray.run_samples import open_dataset
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.trainer import settle, with_absolute_paths
from lerobot_ray.sweeps.fit import first_values
from lerobot_ray.sweeps.flags import of_a_trial, trial_config
from lerobot_ray.sweeps.parent_run import mlflow_uri_of
from lerobot_ray.sweeps.plan import SweepPlan, needs_of
from lerobot_ray.sweeps.room import TrialNeeds
from lerobot_ray.sweeps.trial import Trial

ASKS_EVERY_S = 0.5
"""How often a trial asks whether to stop: what a hopeless one trains for nothing, at most."""


class TrialRuns:
    """What the trials of one start share: the dataset's metadata, the workers, the MLflow store."""

    def __init__(
        self,
        plan: SweepPlan,
        config: TrainConfig,
        metadata: DatasetMetadata,
        workers: Workers,
        *,
        at_once: int,
        decoders: int,
    ) -> None:
        self._plan, self.config, self.workers = plan, config, workers
        self.at_once, self._decoders = at_once, decoders
        self.mlflow_uri = mlflow_uri_of(config, plan.folder)
        self.parent_run: str | None = None
        self._metadata = {_source(config): metadata}

    @property
    def needs(self) -> TrialNeeds:
        return needs_of(self.config, self.workers)

    def setup(self, trial: Trial, *, stop_at: int, keeps_own_rates: bool) -> RunSetup:
        """The run, fresh or from its own last checkpoint; LerobotRayError when it cannot work."""
        folder = self._plan.trial_folder(trial.number)
        config = with_absolute_paths(
            of_a_trial(
                trial_config(self._plan.words, trial.values, seed=trial.seed),
                folder=folder,
                name=f"{self._plan.name}-{trial.name}",
                decoders=self._decoders,
                mlflow_uri=self.mlflow_uri,
            )
        )
        resume_from = checkpoint_to_resume(config)
        if resume_from is not None:
            check_same_policy(resume_from, config)
        source = _source(config)
        if source not in self._metadata:
            self._metadata[source] = open_dataset(config)
        setup = settle(config, self._metadata[source], self.workers, resume_from)
        return dataclasses.replace(
            setup,
            not_ours=(),  # all checkpoints in its folder are its own, whenever they were written
            stop_at=stop_at,
            keeps_own_rates=keeps_own_rates,
            runs_at_once=self.at_once,
            asks_every_s=ASKS_EVERY_S,
            tracking=dataclasses.replace(setup.tracking, parent_run=self.parent_run),
        )

    def reported(self, trial: Trial) -> str:
        """The metrics a trial has."""
        from lerobot_ray.tracking.metric_log import load_metrics

        try:
            return ", ".join(sorted(load_metrics(self._plan.trial_folder(trial.number)).series)) or "no metrics"
        except LerobotRayError:
            return "no metrics"


def try_first(plan: SweepPlan, metadata: DatasetMetadata, workers: Workers) -> None:
    """Settle a trial as it might be, to hear what is wrong with the dataset or the batches before anything starts."""
    first = trial_config(plan.words, first_values(plan.sweep.space))
    probe = of_a_trial(first, folder=plan.trial_folder(0), name="probe", decoders=None, mlflow_uri="")
    settle(with_absolute_paths(probe), metadata, workers, None)


def _source(config: TrainConfig) -> tuple[Any, ...]:
    dataset = config.dataset
    return dataset.repo_id, dataset.root, dataset.revision
