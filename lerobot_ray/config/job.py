"""Where the command itself runs: here, as a job on a Ray cluster, or as a job of Hugging Face Jobs."""

from __future__ import annotations

import re
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
    working_dir: str | None = field(default=None, metadata=OURS)
    """Folder of this machine that travels with the job, for code of your own; null: none. This package always does."""
    env: list[str] = field(default_factory=list, metadata=OURS)
    """Environment variables for the job beside those it is known to need: NAME takes this shell's value."""
    cluster_has: list[str] = field(default_factory=list, metadata=OURS)
    """Secrets that the machines of the job hold already, so that they are neither asked for nor sent: [HF_TOKEN]."""
    upload_to: str | None = field(default=None, metadata=OURS)
    """Object store that the job reads, s3://bucket/prefix: a dataset that is only on this machine is copied there;
    null: it is pushed to the Hub, privately."""
    mounts: dict[str, str] = field(default_factory=dict, metadata=OURS)
    """Folders of this machine that the job sees too, and where: {"/home/me/data": "/mnt/data"}."""

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ConfigError(f"job.retries={self.retries} is negative.")
        timeout_s(self)
        if self.upload_to is not None and "://" not in self.upload_to:
            raise ConfigError(
                f"job.upload_to={self.upload_to} is not the URL of an object store. A folder that the job sees too is "
                "named in job.mounts."
            )
        for here, there in self.mounts.items():
            if not (here.startswith("/") and there.startswith("/")):
                raise ConfigError(
                    f"job.mounts has {here}: {there}; both are absolute paths, the machine's and the job's."
                )
        for name in (*self.env, *self.cluster_has):
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ConfigError(f"{name!r} in job.env or job.cluster_has is not the name of a variable.")


def is_remote(job: JobConfig) -> bool:
    """Whether the run is submitted rather than run here."""
    return job.target not in (None, "local")


def timeout_s(job: JobConfig) -> float | None:
    """The time limit in seconds; None: no limit."""
    if job.timeout is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", job.timeout.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"job.timeout={job.timeout} is not a time. Write 90s, 30m, 12h or 2d, or null for no limit.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
