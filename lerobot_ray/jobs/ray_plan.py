"""The job that a command line describes: checked here and against the cluster, with what must be brought for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from lerobot_ray.config.parse import gather, parse_train_config
from lerobot_ray.config.ray import folder_of_runs, store_of_runs
from lerobot_ray.config.train import TrainConfig, default_output_dir, run_name
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.hub.client import RepoType
from lerobot_ray.hub.client import token as hub_token
from lerobot_ray.jobs import checkpoints, datasets, hub_repo
from lerobot_ray.jobs.checkpoints import StartPlan
from lerobot_ray.jobs.datasets import DatasetPlan
from lerobot_ray.jobs.notes import notes_of
from lerobot_ray.jobs.portable import changed_words, output_dir_there, portable
from lerobot_ray.jobs.ray_job import RayJob
from lerobot_ray.jobs.ray_site import check_room, environment_there, python_there, site_of
from lerobot_ray.jobs.run_file import CLIENT_SETTINGS, RUN_FILE, forwarded, plugins_of, run_as_text
from lerobot_ray.jobs.site import Site
from lerobot_ray.on_ray.job_server import JobServer, check_versions, client_version


def plan_job(words: Sequence[str], server: JobServer) -> RayJob:
    """The job of a command line; LerobotRayError for whatever would keep it from running. Changes nothing."""
    config = parse_train_config(words, fetch=hub_repo.fetch_descriptions)
    settings = gather(words, fetch=hub_repo.fetch_descriptions)
    flags = {".".join(path) for path in settings.flags}
    job, now = config.job, datetime.now()
    nodes = server.nodes()
    site = site_of(server, nodes, config)
    notes = [note for note in [check_versions(client_version(), server.ray_version, address=server.address)] if note]
    device = config.policy.device if config.policy is not None and "policy.device" in flags else None
    check_room(config, server, nodes, device=device)
    if job.image is not None and job.working_dir is not None:
        raise ConfigError("Ray starts a job.image without a job.working_dir. Put that code into the image.")

    storage, shared = job.upload_to or store_of_runs(config.ray), config.ray.storage_path
    dataset = datasets.plan_dataset(config.dataset, site, storage=storage, shared=shared)
    starts: list[StartPlan] = []
    fresh_repo = _fresh_repo(config)
    if config.resume is True:
        starts.append(checkpoints.plan_resume(_config_path(words), site, repo_id=fresh_repo))
    pretrained = config.policy.pretrained_path  # type: ignore[union-attr]
    if pretrained is not None and config.resume is not True:
        starts.append(checkpoints.plan_policy(pretrained, site, repo_id=fresh_repo))
        pretrained = starts[-1].there
    there, dropped = portable(config, site, dataset=dataset.config, flags=flags, pretrained_path=pretrained)
    name = run_name(config)
    says_output_dir = "output_dir" in flags or not settings.is_of_saved_run  # a saved run names a folder of its machine
    output_dir = _output_dir(config, site, now, given=says_output_dir)
    there = dataclasses.replace(there, output_dir=Path(output_dir), job_name=name)
    private = _reads_private(dataset, starts)
    run_text = run_as_text(there)
    if config.resume is True:
        root = [f"--dataset.root={dataset.config.root or 'null'}"]
        start = [f"--config_path={starts[0].there}", f"--output_dir={output_dir}", *_not_of_this_machine(flags)]
        mended = changed_words(config, there)
        kept = forwarded(words, drop=(*CLIENT_SETTINGS, *(word[2:].partition("=")[0] for word in mended)))
        train_words = [*start, *root, *kept, *mended]
    else:
        train_words = [f"--config_path={RUN_FILE}", *plugins_of(words)]
    if not config.ray.storage_path and not site.is_here and len(nodes) > 1:
        notes.append(
            f"results stay in {output_dir} of the node that trains first: give shared storage as --ray.storage_path"
        )
    return RayJob(
        name=name,
        words=train_words,
        resumes=str(config.resume).lower(),
        run_text=None if config.resume is True else run_text,
        python=python_there(server, site),
        output_dir=output_dir,
        environment=environment_there(there, job, site, private=private, places=[start.there for start in starts]),
        metadata=notes_of(there, name, output_dir, train_words, run_text, job=job, private=private),
        working_dir=job.working_dir,
        image=job.image,
        dataset=dataset,
        starts=tuple(starts),
        tags=tuple(job.tags),
        retries=job.retries,
        notes=(dataset.says, *(start.says for start in starts if start.says), *dropped, *notes),
    )


def _output_dir(config: TrainConfig, site: Site, now: datetime, *, given: bool) -> str:
    usual = default_output_dir(config, now)
    if site.is_here:
        return str(folder_of_runs(config.ray) / (config.output_dir or usual).expanduser())
    if not given:
        config = dataclasses.replace(config, output_dir=None)
    found = output_dir_there(config, site, name="/".join(usual.parts[-2:]))
    assert found is not None
    return found


def _not_of_this_machine(flags: Collection[str]) -> list[str]:
    """Words that take out of a saved config what concerned the machine that saved it."""
    undone = ["--job.target=local", "--ray.address=null"]
    return undone if "policy.device" in flags else [*undone, "--policy.device=null"]


def _config_path(words: Sequence[str]) -> str:
    found = [word.partition("=")[2] for word in forwarded(words, drop=()) if word.startswith("--config_path=")]
    assert found, "resume=true is refused without one"
    return found[-1]


def _fresh_repo(config: TrainConfig) -> str:
    """Where something of this machine would be uploaded, should that be needed and possible."""
    if not hub_token():
        return ""
    pretrained = config.policy.pretrained_path if config.policy else None
    needed = config.resume is True or (pretrained is not None and Path(pretrained).expanduser().is_dir())
    return hub_repo.new_repo_id(hub_repo.account("an upload"), run_name(config)) if needed else ""


def _reads_private(dataset: DatasetPlan, starts: Sequence[StartPlan]) -> bool:
    """Whether the job needs a token to read what it starts from."""
    if dataset.push is not None or any(start.upload is not None for start in starts):
        return True
    repos: list[tuple[str, RepoType]] = [(dataset.config.repo_id, "dataset")] if dataset.on_hub else []
    repos += [(start.there, "model") for start in starts if start.on_hub]
    return any(not hub_repo.is_visible(repo, kind=kind, stranger=True) for repo, kind in repos)
