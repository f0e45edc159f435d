"""The best trial as something to go on with: `best.yaml`, the commands, and the Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.config.encode import encode
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.sweeps.flags import as_flag, from_hub, settings_of, train_command
from lerobot_ray.sweeps.plan import SweepPlan
from lerobot_ray.sweeps.trial import Trial
from lerobot_ray.tracking.mlflow import DATABASE_FILE

BEST_FILE = "best.yaml"


def save_best(plan: SweepPlan, trial: Trial) -> Path:
    """Write the trial's settings as a file for `--config_path`: what was given and what was found, nothing else."""
    words = absolute_root(plan)
    tree = settings_of(words, trial.values, seed=trial.seed)
    wanted = encode(_without_places(parse_train_config([*words, *_own(trial)], fetch=from_hub)))
    path = plan.folder / BEST_FILE
    head = f"# Trial {trial.name} of {plan.name}: {plan.sweep.metric} {trial.score(plan.sweep):.6g}\n"
    path.write_text(head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if encode(_without_places(parse_train_config([f"--config_path={path}"], fetch=from_hub))) != wanted:
        path.write_text(head + yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def commands(plan: SweepPlan, trial: Trial) -> dict[str, str]:
    """What one would do next -> the command."""
    path = plan.folder / BEST_FILE
    found = {
        "train it again, from the start": train_command(
            [f"--config_path={path}", f"--output_dir={plan.folder / 'best'}"]
        ),
    }
    if complete_checkpoints(plan.trial_folder(trial.number)):
        store = plan.folder / DATABASE_FILE
        found["go on from its last checkpoint, twice as long"] = train_command(
            [
                f"--config_path={path}",
                f"--output_dir={plan.trial_folder(trial.number)}",
                "--resume=auto",
                f"--steps={2 * plan.config.steps}",
                *([f"--mlflow.tracking_uri=sqlite:///{store}"] if store.exists() else []),
            ]
        )
    return found


def best_policy(plan: SweepPlan, trial: Trial) -> Path | None:
    """The policy folder of the trial's last checkpoint."""
    found = complete_checkpoints(plan.trial_folder(trial.number))
    return found[-1] / "pretrained_model" if found else None


def absolute_root(plan: SweepPlan) -> list[str]:
    """The training flags, with a dataset folder that means the same from anywhere."""
    root = plan.config.dataset.root
    if root is None or "://" in root:
        return list(plan.words)
    return [*plan.words, f"--dataset.root={Path(root).expanduser().absolute()}"]


def _own(trial: Trial) -> list[str]:
    own = [as_flag(name, value) for name, value in trial.values.items()]
    return own if trial.seed is None else [*own, f"--seed={trial.seed}"]


def _without_places(config: Any) -> Any:
    return dataclasses.replace(config, output_dir=None, resume=False, job_name=None, checkpoint_path=None)
