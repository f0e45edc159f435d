"""Weights for samples, from a file of task progress (RA-BC)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lerobot_ray.core.errors import ConfigError


@dataclass(frozen=True)
class SampleWeightingConfig:
    """How much each sample counts in the loss."""

    type: Literal["rabc", "uniform"] = "rabc"
    """rabc: by the progress that a sample's actions make. uniform: all alike."""
    progress_path: str | None = None
    """Parquet file with the progress of every frame; null: sarm_progress.parquet of the dataset."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    """Which progress column."""
    kappa: float = 0.01
    """Progress from which a sample counts in full."""
    epsilon: float = 1e-6
    """Keeps denominators from zero."""
    extra_params: dict[str, Any] = field(default_factory=dict)
    """fallback_weight: the weight of samples without progress, 1."""

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise ConfigError(f"sample_weighting.epsilon={self.epsilon:g} must be more than 0.")
