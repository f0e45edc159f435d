"""What is noted down with a job, on its server: enough to list it and to continue it from any machine."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Sequence

from lerobot_ray import __version__
from lerobot_ray.config.job import JobConfig
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.jobs.site import is_url

METADATA = "lerobot_ray."
"""Prefix of what we note down with a job."""
_KEPT = ("image", "timeout", "tags", "retries", "working_dir", "env", "cluster_has", "mounts", "upload_to")


def notes_of(
    config: TrainConfig,
    name: str,
    output_dir: str,
    words: Sequence[str],
    run_text: str,
    *,
    job: JobConfig,
    private: bool,
) -> dict[str, str]:
    """What is noted down with the job, for `list` and `resume`. Everybody who may use the cluster can read it."""
    notes = {
        "version": __version__,
        "run": name,
        "policy": config.policy.type if config.policy else "",
        "dataset": config.dataset.repo_id if not is_url(config.dataset.root) else str(config.dataset.root),
        "steps": str(config.steps),
        "output_dir": output_dir,
        "submitted_by": f"{getpass.getuser()}@{socket.gethostname()}",
        "tags": ",".join(job.tags),
        "retries": str(job.retries),
        "words": json.dumps(list(words)),
        "job_words": json.dumps(job_words(job)),
        "run_file": run_text,
        "private": "true" if private else "false",
    }
    return {**{f"{METADATA}{key}": value for key, value in notes.items()}, **dict.fromkeys(job.tags, "true")}


def job_words(job: JobConfig) -> list[str]:
    """What was said about the job and holds for one that continues it, as flags."""
    usual = JobConfig()
    values = {name: getattr(job, name) for name in _KEPT if getattr(job, name) != getattr(usual, name)}
    return [f"--job.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]
