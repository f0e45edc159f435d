"""A run as a job on a Ray cluster: what it consists of, what is brought before it, how it is submitted."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lerobot_ray.jobs import checkpoints, datasets, hub_repo
from lerobot_ray.jobs.checkpoints import StartPlan
from lerobot_ray.jobs.datasets import DatasetPlan
from lerobot_ray.jobs.notes import METADATA
from lerobot_ray.jobs.run_file import RUN_FILE, stage
from lerobot_ray.on_ray.job_server import JobServer


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """A run, ready to be submitted any number of times."""

    name: str
    words: list[str]
    """For `lerobot_ray.train`, but for `--resume`."""
    resumes: str
    """How the first attempt says `--resume`: false, auto or true."""
    run_text: str | None
    """The run file; None when the words name a checkpoint instead."""
    python: str
    output_dir: str
    environment: Mapping[str, str] = field(repr=False)
    metadata: Mapping[str, str]
    working_dir: str | None = None
    image: str | None = None
    dataset: DatasetPlan | None = None
    starts: tuple[StartPlan, ...] = ()
    tags: tuple[str, ...] = ()
    retries: int = 0
    notes: tuple[str, ...] = ()
    """What a person should know before it starts."""


def bring(job: RayJob) -> None:
    """Puts where the cluster sees it what is only here."""
    if job.dataset is not None:
        datasets.make_available(job.dataset, tags=list(job.tags))
    for start in job.starts:
        checkpoints.make_available(start)


def submit(job: RayJob, server: JobServer, *, attempt: int = 0, now: Callable[[], datetime] = datetime.now) -> str:
    """The id of the job, which runs from here on by itself."""
    job_id = f"{hub_repo.slug(job.name)}-{now():%m%d-%H%M%S}-{os.urandom(2).hex()}"
    environment: dict = {"env_vars": dict(job.environment)}
    with tempfile.TemporaryDirectory(prefix="lerobot_ray_job_") as folder:
        if job.image is not None:
            environment["image_uri"] = job.image  # Ray allows nothing else beside it
            environment["env_vars"]["LEROBOT_RAY_RUN"] = job.run_text or ""
        else:
            environment["working_dir"] = str(stage(job.run_text, Path(folder), working_dir=job.working_dir))
            if not (Path(folder) / "lerobot_ray").is_dir():
                environment["py_modules"] = [str(Path(__file__).parents[1])]
        metadata = {**job.metadata, f"{METADATA}attempt": str(attempt)}
        server.submit(entrypoint(job, attempt), submission_id=job_id, runtime_env=environment, metadata=metadata)
    return job_id


def entrypoint(job: RayJob, attempt: int) -> str:
    """The shell command of the job. A later attempt continues what an earlier one has saved."""
    resume, before = "auto" if attempt else job.resumes, ""
    if job.run_text is None and (attempt or job.resumes == "again"):  # auto alone would begin anew without a checkpoint
        saved = shlex.quote(f"{job.output_dir}/checkpoints/last").replace("'~/", "~/'")
        before, resume = f"if test -e {saved}; then RESUME=auto; else RESUME=true; fi; ", '"$RESUME"'
    if job.image is not None and job.run_text is not None:
        before = f'printf %s "$LEROBOT_RAY_RUN" > {RUN_FILE} && '
    command = [job.python, "-m", "lerobot_ray.train", *job.words]
    return f"{before}exec {shlex.join(command)} --resume={resume}"
