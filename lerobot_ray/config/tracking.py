"""Where numbers over time go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class WandBConfig:
    """Weights & Biases, with LeRobot's flags. Needs the extra `wandb`."""

    enable: bool = False
    """Record the run there."""
    disable_artifact: bool = False
    """Do not upload checkpoints as artifacts."""
    project: str = "lerobot"
    """Project the run belongs to."""
    entity: str | None = None
    """User or team; null: the account's default."""
    notes: str | None = None
    """Free text shown with the run."""
    run_id: str | None = None
    """Continue this run; null: a new one, or the saved one on resume."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """Whether to send as it goes, store to send later, or not at all; null: W&B's own default."""
    add_tags: bool = True
    """Tag the run with the policy, the dataset and the environment."""


@dataclass(frozen=True)
class MLflowConfig:
    """MLflow: parameters, metrics and references to checkpoints. On by default, in a file beside the results."""

    enable: bool = True
    """Record the run in MLflow."""
    tracking_uri: str | None = None
    """Tracking server or sqlite:///file; null: MLFLOW_TRACKING_URI, else a sqlite file in `output_dir`."""
    experiment: str = "lerobot_ray"
    """Experiment the run belongs to."""
    system_metrics: bool = True
    """Also record processor, memory and GPU load."""
