"""Weights & Biases, with LeRobot's flags; one run per job, continued on resume. Needs the extra `wandb`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lerobot_ray.config.tracking import WandBConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import PRETRAINED_DIR
from lerobot_ray.tracking.protocol import Outcome, RunInfo

RUN_FILE = "wandb_run.txt"
_MAX_TAG = 64


def check_wandb() -> None:
    """Raise ConfigError unless the library is installed. Cheap: imports nothing."""
    if find_spec("wandb") is None:
        raise ConfigError(
            "wandb.enable=true needs the library. Install it with: pip install 'lerobot-ray[wandb]', "
            "or leave out --wandb.enable (MLflow and metrics.jsonl record without it)."
        )


class WandbTracker:
    """A run at W&B. Values are drawn over their own `step`, so late ones and repeated ones are taken too."""

    def __init__(self, config: WandBConfig, *, tags: Sequence[str] = ()) -> None:
        check_wandb()
        self._config = config
        self._tags = [tag[:_MAX_TAG] for tag in tags] if config.add_tags else []
        self._run: Any = None
        self._name = ""

    def start(self, run: RunInfo) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own crash reports, sent even in offline mode
        import wandb

        run.output_dir.mkdir(parents=True, exist_ok=True)
        run_id = self._config.run_id or _saved_run_id(run.output_dir)
        self._name = run.name
        self._run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            name=run.name,
            notes=self._config.notes,
            tags=self._tags or None,
            id=run_id,
            resume="allow",
            mode=self._config.mode,
            dir=run.output_dir,
            config={**run.config, "world_size": run.world_size, "global_batch": run.global_batch, **run.facts},
            job_type="train_eval",
            save_code=False,
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True, silent=True),
        )
        self._run.define_metric("*", step_metric="step")
        fresh = run.output_dir / f".{RUN_FILE}.tmp"
        fresh.write_text(self._run.id)
        os.replace(fresh, run.output_dir / RUN_FILE)

    def log(self, values: Mapping[str, float], *, step: int, time_s: float | None = None) -> None:
        self._run.log({**values, "step": step})

    def log_checkpoint(self, checkpoint: Path, *, step: int) -> None:
        """Uploads the policy's folder as an artifact, as LeRobot does its weights, unless that is switched off."""
        if self._config.disable_artifact:
            return
        import wandb

        artifact = wandb.Artifact(_artifact_name(f"{self._name}-{step:06d}"), type="model", metadata={"step": step})
        artifact.add_dir(str(checkpoint / PRETRAINED_DIR))
        self._run.log_artifact(artifact)

    def log_file(self, path: Path, *, folder: str = "") -> None:
        import wandb

        if path.suffix == ".mp4":
            self._run.log({f"{folder or 'files'}/video": wandb.Video(str(path))})
        else:
            self._run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self, outcome: Outcome) -> None:
        if outcome.message:
            self._run.summary["message"] = outcome.message
        self._run.finish(exit_code=0 if outcome.status == "finished" else 1)


def _saved_run_id(output_dir: Path) -> str | None:
    """The run of an earlier start: ours, or the one LeRobot's own training left in this folder."""
    try:
        return (output_dir / RUN_FILE).read_text().strip() or None
    except OSError:
        theirs = sorted((output_dir / "wandb" / "latest-run").glob("run-*.wandb"))
        return theirs[-1].stem.removeprefix("run-") if theirs else None


def _artifact_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[:128]
