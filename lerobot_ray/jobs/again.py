"""The job that continues another one, made of what is noted down with that one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.core.errors import JobError
from lerobot_ray.jobs.notes import METADATA, job_words
from lerobot_ray.jobs.ray_job import RayJob
from lerobot_ray.jobs.ray_site import check_room, environment_there, python_there, site_of
from lerobot_ray.jobs.run_file import RUN_FILE, forwarded, plugins_of
from lerobot_ray.on_ray.job_server import JobServer


def plan_again(job_id: str, overrides: Sequence[str], server: JobServer) -> RayJob:
    """The job that continues another one where its last checkpoint is; `overrides` are flags that change it."""
    before = server.job(job_id)
    if not before.is_over:
        raise JobError(f"{job_id} is {before.status}. Follow it, or stop it first.")
    known = before.metadata
    if f"{METADATA}words" not in known:
        raise JobError(f"{job_id} was not submitted by lerobot_ray.submit, so it is not known what it trained.")
    words = json.loads(known[f"{METADATA}words"])
    run_text = known[f"{METADATA}run_file"]
    changes = forwarded(overrides)
    overrides = [*json.loads(known[f"{METADATA}job_words"]), *overrides]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / RUN_FILE
        file.write_text(run_text, encoding="utf-8")
        config = parse_train_config([f"--config_path={file}", *plugins_of(words), *overrides])
    nodes = server.nodes()
    site = site_of(server, nodes, config)
    check_room(config, server, nodes, device=config.policy.device if config.policy else None)
    private = known.get(f"{METADATA}private") == "true"
    output_dir = known[f"{METADATA}output_dir"]
    has_file = f"--config_path={RUN_FILE}" in words
    return RayJob(
        name=known[f"{METADATA}run"],
        words=[*words, *changes],
        resumes="auto" if has_file else "again",
        run_text=run_text if has_file else None,
        python=python_there(server, site),
        output_dir=output_dir,
        environment=environment_there(
            config, config.job, site, private=private, places=[word.partition("=")[2] for word in words]
        ),
        metadata={
            **known,
            f"{METADATA}words": json.dumps([*words, *changes]),
            f"{METADATA}job_words": json.dumps(job_words(config.job)),
            f"{METADATA}retries": str(config.job.retries),
            f"{METADATA}continues": job_id,
        },
        working_dir=config.job.working_dir,
        image=config.job.image,
        retries=config.job.retries,
        notes=(f"continues {job_id} in {output_dir}",),
    )
