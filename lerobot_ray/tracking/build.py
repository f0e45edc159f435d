"""From a config to the trackers of a run, in two halves: the plan is made where the user is, the trackers on rank 0."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_ray.config.encode import encode
from lerobot_ray.config.tracking import MLflowConfig, WandBConfig
from lerobot_ray.config.train import TrainConfig, run_name
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.tracking.environment import describe_code, describe_environment
from lerobot_ray.tracking.guarded import GuardedTrackers
from lerobot_ray.tracking.jsonl import JsonlTracker
from lerobot_ray.tracking.mlflow import MlflowTracker, resolve_tracking_uri
from lerobot_ray.tracking.protocol import RunInfo, Tracker
from lerobot_ray.tracking.redact import redacted, redacted_text, redacted_words
from lerobot_ray.tracking.wandb import WandbTracker, check_wandb


@dataclass(frozen=True, kw_only=True)
class TrackingPlan:
    """What the driver knows and rank 0 may not: the user's environment and code. Picklable."""

    output_dir: Path
    name: str
    total_steps: int
    config: Mapping[str, Any]
    """Encoded, without secrets."""
    mlflow: MLflowConfig | None = field(repr=False)
    mlflow_uri: str = field(default="", repr=False)
    """Used, never recorded: an address may hold credentials."""
    wandb: WandBConfig | None = None
    launched: Mapping[str, Any] = field(default_factory=dict)
    """Command line and commit."""
    tags: Mapping[str, str] = field(default_factory=dict)
    parent_run: str | None = None
    """MLflow run that this one is a trial of."""


def plan_tracking(
    config: TrainConfig,
    *,
    command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    parent_run: str | None = None,
) -> TrackingPlan:
    """The plan for a config whose `output_dir` is set. ConfigError when a library it asks for is missing."""
    if config.output_dir is None:
        raise ConfigError("output_dir is not set: there is no place for metrics.")
    if config.wandb.enable:
        check_wandb()
    output_dir = Path(config.output_dir).absolute()
    environment = os.environ if environment is None else environment
    return TrackingPlan(
        output_dir=output_dir,
        name=run_name(config),
        total_steps=config.steps,
        config=redacted(encode(config)),
        mlflow=config.mlflow if config.mlflow.enable else None,
        mlflow_uri=resolve_tracking_uri(config.mlflow.tracking_uri, output_dir, environment),
        wandb=config.wandb if config.wandb.enable else None,
        launched={
            "command": shlex.join(redacted_words(_as_typed(sys.argv if command is None else command))),
            **describe_code(Path.cwd()),
        },
        tags=_tags(config),
        parent_run=parent_run,
    )


def start_trackers(
    plan: TrackingPlan,
    *,
    first_step: int = 0,
    samples_seen: int = 0,
    world_size: int = 1,
    global_batch: int = 1,
    facts: Mapping[str, Any] | None = None,
) -> GuardedTrackers:
    """The trackers of this start of the run, told of it. Called on rank 0; returns at once. Close it, or use `with`."""
    trackers: dict[str, Tracker] = {"metrics.jsonl": JsonlTracker()}
    if plan.mlflow is not None:
        trackers["mlflow"] = MlflowTracker(
            plan.mlflow_uri,
            experiment=plan.mlflow.experiment,
            system_metrics=plan.mlflow.system_metrics,
            tags={**plan.tags, **_git_tag(plan.launched)},
            parent_run=plan.parent_run,
        )
    if plan.wandb is not None:
        trackers["wandb"] = WandbTracker(plan.wandb, tags=[f"{name}:{value}" for name, value in plan.tags.items()])
    guarded = GuardedTrackers(trackers)
    guarded.start(
        RunInfo(
            output_dir=plan.output_dir,
            name=plan.name,
            config=plan.config,
            total_steps=plan.total_steps,
            first_step=first_step,
            samples_seen=samples_seen,
            world_size=world_size,
            global_batch=global_batch,
            environment={**describe_environment(), **plan.launched},
            facts=dict(facts or {}),
        )
    )
    return guarded


def where_to_look(plan: TrackingPlan) -> list[str]:
    """Sentences for the person who started the run: where its numbers are and how to look at them."""
    found = [f"metrics: {plan.output_dir / 'metrics.jsonl'}"]
    if plan.mlflow is not None:
        shown = redacted_text(plan.mlflow_uri)
        is_file = shown.startswith("sqlite")
        found.append(f"MLflow: mlflow ui --backend-store-uri {shlex.quote(shown)}" if is_file else f"MLflow: {shown}")
    if plan.wandb is not None:
        found.append(f"W&B: project {plan.wandb.project}")
    return found


def _as_typed(words: Sequence[str]) -> list[str]:
    """The command line of this process, with `python -m lerobot_ray.train` in place of where that file lies."""
    program = Path(words[0]) if words else Path()
    if program.parent.name == "lerobot_ray" and program.suffix == ".py":
        return ["python", "-m", f"lerobot_ray.{program.stem}", *words[1:]]
    return [program.name, *words[1:]] if words else []


def _tags(config: TrainConfig) -> dict[str, str]:
    tags = {"policy": config.policy.type if config.policy else "", "dataset": config.dataset.repo_id}
    if config.env is not None:
        tags["env"] = config.env.type
    return {**tags, "seed": str(config.seed)}


def _git_tag(launched: Mapping[str, Any]) -> dict[str, str]:
    return {"mlflow.source.git.commit": launched["git_commit"]} if "git_commit" in launched else {}
