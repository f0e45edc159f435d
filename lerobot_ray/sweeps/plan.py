"""A sweep, settled before its first trial: the file, the flags, the folder, and what fits on the cluster."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_ray.config.flags import read_flags
from lerobot_ray.config.ray import folder_of_runs, store_of_runs
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.runners import available_cpus
from lerobot_ray.on_ray.cluster import Workers
from lerobot_ray.on_ray.evaluated import evaluates
from lerobot_ray.sweeps.fit import check_fit
from lerobot_ray.sweeps.journal import JOURNAL_FILE, Event, read_journal
from lerobot_ray.sweeps.room import TrialNeeds
from lerobot_ray.sweeps.sweep_file import SweepConfig, load_sweep

TRIALS_DIR = "trials"
_MAY_CHANGE = ("ray", "num_workers", "mlflow", "wandb", "prefetch_factor", "job", "hub")
"""Flags that say how a sweep runs, not what it tries."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What the driver goes by."""

    sweep: SweepConfig
    file: Path
    words: tuple[str, ...]
    """The training flags all trials share."""
    folder: Path
    config: TrainConfig
    """The run of a trial as it might be."""
    seeds: int = 1
    resume: bool = False
    push_best: bool = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def steps(self) -> int:
        """Of a trial, at most."""
        wanted = self.sweep.stop.steps
        return self.config.steps if wanted is None else min(wanted, self.config.steps)

    def trial_folder(self, number: int) -> Path:
        return self.folder / TRIALS_DIR / f"{number:03d}"

    def fingerprint(self) -> dict[str, Any]:
        """What two starts of the same sweep have in common."""
        sweep, flags = self.sweep, read_flags(self.words)
        told = {
            ".".join(path): str(text)
            for path, text in flags.items()
            if path[0] not in _MAY_CHANGE and path != ("checkpoint_path",)
        }
        parts = {
            "metric": f"{sweep.metric} ({sweep.mode})",
            "searcher": dataclasses.asdict(sweep.searcher),
            "scheduler": dataclasses.asdict(sweep.scheduler),
            "parameters": {
                name: [[branch.values.text, {k: list(v) for k, v in branch.when.items()}] for branch in branches]
                for name, branches in sweep.space.items()
            },
            "flags": told,
            "seeds": self.seeds,
        }
        return json.loads(json.dumps(parts))


def settle_sweep(
    file: Path,
    words: Sequence[str],
    *,
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    seeds: int = 1,
    resume: bool = False,
    push_best: bool = False,
) -> SweepPlan:
    """The sweep of a file over these training flags. ConfigError for whatever cannot work; no Ray, no network."""
    if seeds < 1:
        raise ConfigError(f"--sweep_seeds={seeds} must be at least 1.")
    sweep = load_sweep(file, overrides)
    words = _with_resources(words, sweep, file)
    config = check_fit(sweep, words, seeds=seeds, file=str(file))
    if config.job.target not in (None, "local"):
        raise ConfigError(
            "a sweep is submitted as a whole: leave out --job.target and run "
            "ray job submit --working-dir . -- python -m lerobot_ray.tune …"
        )
    if store_of_runs(config.ray) is not None:
        raise ConfigError(
            f"ray.storage_path={config.ray.storage_path}: a sweep keeps its trials in a folder. Give one that all "
            "nodes share, and train the best again with this."
        )
    if push_best and not (config.policy and config.policy.repo_id):
        raise ConfigError("--push_best needs a repository. Add --policy.repo_id=<user>/<name>.")
    return SweepPlan(
        sweep=sweep,
        file=file.absolute(),
        words=tuple(words),
        folder=folder_of_runs(config.ray) / folder.expanduser(),
        config=config,
        seeds=seeds,
        resume=resume,
        push_best=push_best,
    )


def _with_resources(words: Sequence[str], sweep: SweepConfig, file: Path) -> list[str]:
    """The flags with what `resources_per_trial` stands for."""
    given = {".".join(path) for path in read_flags(words)}
    asked = sweep.resources_per_trial
    flags = {
        "ray.num_workers": asked.workers,
        "num_workers": asked.decoders,
        "ray.resources_per_worker": None if asked.per_worker is None else json.dumps(asked.per_worker),
    }
    if both := [name for name, value in flags.items() if value is not None and name in given]:
        raise ConfigError(f"{file}: resources_per_trial says what --{both[0]} says too. Use one of the two.")
    return [*words, *(f"--{name}={value}" for name, value in flags.items() if value is not None)]


def earlier_events(plan: SweepPlan) -> list[Event]:
    """What happened in the folder before. ConfigError when it is another sweep's, or not asked to be continued."""
    events = read_journal(plan.folder)
    if not events:
        if plan.folder.exists() and any(not path.name.startswith(".") for path in plan.folder.iterdir()):
            raise ConfigError(f"{plan.folder} holds something else than a sweep. Give another --output_dir.")
        return []
    if not plan.resume:
        raise ConfigError(
            f"{plan.folder} holds a sweep already ({JOURNAL_FILE}). Continue it with --resume, or give another "
            "--output_dir."
        )
    first = next((event for event in events if event["event"] == "start"), None)
    now = plan.fingerprint()
    before = now if first is None else first.get("sweep", {})
    for part, value in now.items():
        if before.get(part) != value:
            raise ConfigError(
                f"{plan.folder} holds another sweep: its {part} was {_short(before.get(part))}, now it is "
                f"{_short(value)}. Give another --output_dir, or put it back. (num_trials, max_concurrent and stop may "
                "change.)"
            )
    return events


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 160 else f"{text[:150]}… ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def needs_of(config: TrainConfig, workers: Workers) -> TrialNeeds:
    """What one trial must find room for."""
    return TrialNeeds(
        workers=workers.count,
        per_worker=dict(workers.resources),
        decoders=workers.count * max(1, config.num_workers or 1),
        rollouts=config.eval.num_actors if evaluates(config) else 0,
        per_rollout=config.eval.resources_per_actor,
    )


def nodes_here(use_gpu: bool) -> list[dict[str, float]]:
    """This machine as the only node."""
    node = {"CPU": float(available_cpus())}
    if use_gpu:
        import torch

        node["GPU"] = float(torch.cuda.device_count())
    return [node]
