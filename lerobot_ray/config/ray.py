"""Where a run runs: the Ray cluster, its workers and its storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lerobot_ray.core.errors import ConfigError


@dataclass(frozen=True)
class RayConfig:
    """The cluster, the training workers and where results go."""

    address: str | None = None
    """Cluster to use: `auto`, host:port or ray://host:port; null: RAY_ADDRESS, else Ray is started on this machine."""
    num_workers: int | None = None
    """Training processes; null: one per GPU of the cluster, or one without GPUs."""
    use_gpu: bool | None = None
    """Give each training process a GPU; null: when the cluster has one."""
    resources_per_worker: dict[str, float] | None = None
    """What a training process reserves, e.g. {"CPU": 2, "GPU": 1}; null: one CPU, and one GPU with `use_gpu`."""
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """How training processes are placed on nodes."""
    storage_path: str | None = None
    """Where runs are kept. A folder that all nodes share: a relative `output_dir` lies in it. A URL (s3://, gs://):
    each checkpoint is copied to a folder of the run's name below it. null: `output_dir` alone."""
    max_failures: int = 3
    """How often lost workers are replaced before the run gives up; -1: always. Who is told to go does not count."""
    min_workers: int | None = None
    """Go on with as few as this when nodes are lost, and grow back to `num_workers`; null: wait for all."""
    resize_interval_s: float = 60.0
    """How often a run with `min_workers` looks whether it may grow."""
    hang_timeout_s: float = 600.0
    """Start again from the newest checkpoint when workers have waited for one another for so long. Which one the others
    wait for is said within a minute."""
    object_store_gb: float | None = None
    """Memory for blocks in flight, in 10^9 bytes, on a Ray that is started here; null: Ray decides."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "min_workers"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"ray.{name}={count} must be at least 1, or null for automatic.")
        if self.num_workers is not None and self.min_workers is not None and self.min_workers > self.num_workers:
            raise ConfigError(f"ray.min_workers={self.min_workers} is more than ray.num_workers={self.num_workers}.")
        if self.max_failures < -1:
            raise ConfigError(f"ray.max_failures={self.max_failures} must be 0 or more, or -1 for no limit.")
        for name in ("hang_timeout_s", "resize_interval_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"ray.{name}={getattr(self, name):g} must be more than 0.")
        if self.object_store_gb is not None and self.object_store_gb <= 0:
            raise ConfigError(f"ray.object_store_gb={self.object_store_gb:g} must be more than 0, or null.")
        for resource, amount in (self.resources_per_worker or {}).items():
            if amount < 0:
                raise ConfigError(f"ray.resources_per_worker asks for {amount:g} {resource}.")
        if self.use_gpu is False and (self.resources_per_worker or {}).get("GPU"):
            raise ConfigError(
                "ray.resources_per_worker asks for GPUs, but ray.use_gpu=false. Leave one of the two out."
            )


def store_of_runs(config: RayConfig) -> str | None:
    """The URL below which runs are copied."""
    path = config.storage_path
    return path if path is not None and "://" in path else None


def folder_of_runs(config: RayConfig) -> Path:
    """The folder that a relative output folder lies in."""
    path = config.storage_path
    return Path.cwd() if path is None or store_of_runs(config) else Path(path).expanduser().absolute()
