"""What a person types: submit and follow, list, logs, stop, resume. Everything said goes through `say` and `show`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

from lerobot_ray.config.job import JobConfig
from lerobot_ray.core.errors import JobError
from lerobot_ray.jobs import ray_job
from lerobot_ray.jobs.again import plan_again
from lerobot_ray.jobs.follow import exit_code, follow, how_it_ended, is_worth_retrying
from lerobot_ray.jobs.notes import METADATA
from lerobot_ray.jobs.ray_job import RayJob, bring
from lerobot_ray.jobs.ray_plan import plan_job
from lerobot_ray.on_ray.job_server import JobServer

DETACHED = 130
COMMAND = "python -m lerobot_ray.submit"


def submit_run(words: Sequence[str], job: JobConfig) -> int:
    """Submit the run of a command line to where `job.target` says; the exit code is the job's own."""
    if job.target == "ray":
        server = JobServer(job.address)
        return _start(plan_job(words, server), server, detach=job.detach)
    from lerobot_ray.jobs.hub_job import run_on_hub

    return run_on_hub(words, job, say=say, show=show)


def resume(job_id: str | None, overrides: Sequence[str], address: str | None, *, detach: bool) -> int:
    """Continue a job that is over; None: the newest."""
    server = JobServer(address)
    job_id = job_id or newest(server)
    return _start(plan_again(job_id, overrides, server), server, detach=detach)


def list_jobs(address: str | None) -> int:
    """A line for each job, newest first."""
    jobs = JobServer(address).jobs()
    rows = [["JOB", "STATUS", "STARTED", "RUN", "POLICY", "DATASET", "STEPS"]]
    for job in jobs:
        started = datetime.fromtimestamp(job.start_time_ms / 1000).strftime("%m-%d %H:%M") if job.start_time_ms else ""
        notes = [job.metadata.get(f"{METADATA}{name}", "") for name in ("run", "policy", "dataset", "steps")]
        status = job.status if job.exit_code in (None, 0) else f"{job.status} ({exit_code(job)})"
        rows.append([job.id, status, started, *notes])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        show("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    return 0


def logs(job_id: str | None, address: str | None, *, wait: bool) -> int:
    """The log of a job, and with `wait` what it says until it ends; then its exit code."""
    server = JobServer(address)
    job_id = job_id or newest(server)
    state = server.job(job_id)
    if not wait:
        show(server.logs(job_id))
        return 0
    retries = int(state.metadata.get(f"{METADATA}retries", "0"))
    attempt = int(state.metadata.get(f"{METADATA}attempt", "0"))
    return _watch(server, job_id, None, left=max(0, retries - attempt))


def stop(job_id: str | None, address: str | None) -> int:
    """Ask a job to end, with a last checkpoint."""
    server = JobServer(address)
    job_id = job_id or newest(server)
    state = server.job(job_id)
    if not server.stop(job_id):
        say(f"{job_id} is {state.status} already")
        return 0
    say(f"stopping {job_id}, with a checkpoint. Continue it with {_command('resume', job_id, server)}")
    return 0


def newest(server: JobServer) -> str:
    """The id of the last job that was submitted from here or elsewhere by this package."""
    ours = [job.id for job in server.jobs() if f"{METADATA}words" in job.metadata]
    if not ours:
        raise JobError(f"no training job has been submitted to {server.address} yet.")
    return ours[0]


def say(text: str) -> None:
    """To the person who submits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """What a job says."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _start(job: RayJob, server: JobServer, *, detach: bool) -> int:
    for note in job.notes:
        say(note)
    bring(job)
    job_id = ray_job.submit(job, server)
    say(f"submitted {job_id} to {server.address}; results in {job.output_dir}")
    if detach:
        say(_how_to_go_on(job_id, server))
        if job.retries:
            say("job.retries is up to who follows: nobody does while detached")
        return 0
    return _watch(server, job_id, job, left=job.retries)


def _watch(server: JobServer, job_id: str, job: RayJob | None, *, left: int) -> int:
    """Until the job is over, and those submitted in its place; the exit code of the last."""
    attempt = 0
    while True:
        said = 0

        def write(text: str) -> None:
            nonlocal said
            said += len(text)
            show(text)

        try:
            state = follow(server, job_id, write=write)
        except KeyboardInterrupt:
            say(f"\ndetached; {job_id} goes on")
            say(_how_to_go_on(job_id, server))
            return DETACHED
        say(how_it_ended(state, said_something=said > 0))
        if not is_worth_retrying(state) or not left:
            if state.status in ("FAILED", "STOPPED") and f"{METADATA}words" in state.metadata:
                say(f"continue with {_command('resume', job_id, server)}")
            return exit_code(state)
        left, attempt = left - 1, attempt + 1
        job = job or plan_again(job_id, [], server)
        job_id = ray_job.submit(job, server, attempt=int(state.metadata.get(f"{METADATA}attempt", "0")) + 1)
        say(f"submitted again as {job_id}, from the last checkpoint; {left} more after this")


def _how_to_go_on(job_id: str, server: JobServer) -> str:
    return "\n".join(
        f"  {what:<7} {_command(word, job_id, server)}"
        for what, word in (("follow:", "logs"), ("stop:", "stop"), ("resume:", "resume"))
    )


def _command(word: str, job_id: str, server: JobServer) -> str:
    return f"{COMMAND} {word} {job_id} --address {server.address}"
