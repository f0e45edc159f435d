"""Where the command itself runs: here, as a job on a Ray cluster, or as a job of Hugging Face Jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot_ray.config.marks import OURS, in_lerobot
from lerobot_ray.core.errors import ConfigError

LEROBOT_IMAGE = "huggingface/lerobot-gpu:latest"


@dataclass(frozen=True)
class JobConfig:
    """Submit the run in place of running it."""

    target: str | None = field(default=None, metadata=in_lerobot(lambda target: None if target == "ray" else target))
    """null or local: here. ray: the job server of a Ray cluster. Anything else: a hardware flavor of Hugging Face Jobs,
    such as a10g-small."""
    image: str | None = field(default=None, metadata=in_lerobot(lambda image: image or LEROBOT_IMAGE))
    """Container image of the job; null: this package's own."""
    timeout: str | None = "2d"
    """How long the job may take: 30m, 12h, 2d; null: no limit."""
    detach: bool = False
    """Submit and return, in place of following the log."""
    tags: list[str] = field(default_factory=list)
    """Labels for the job and the model."""
    address: str | None = field(default=None, metadata=OURS)
    """Job server for target=ray, http://host:8265; null: RAY_API_SERVER_ADDRESS, else RAY_ADDRESS."""
    retries: int = field(default=0, metadata=OURS)
    """How often a job that died is submitted again; it continues from its last checkpoint."""

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ConfigError(f"job.retries={self.retries} is negative.")


def is_remote(job: JobConfig) -> bool:
    """Whether the run is submitted rather than run here."""
    return job.target not in (None, "local")
