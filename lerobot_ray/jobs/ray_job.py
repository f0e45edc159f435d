"""A run as a job on a Ray cluster: it is checked, then what the cluster lacks is brought, then it is submitted."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lerobot_ray import __version__
from lerobot_ray.config.job import JobConfig, timeout_s
from lerobot_ray.config.parse import gather, parse_train_config
from lerobot_ray.config.train import TrainConfig, default_output_dir, run_name
from lerobot_ray.core.errors import ConfigError, JobError
from lerobot_ray.hub.client import RepoType
from lerobot_ray.hub.client import token as hub_token
from lerobot_ray.jobs import checkpoints, datasets, hub_repo
from lerobot_ray.jobs.checkpoints import StartPlan
from lerobot_ray.jobs.datasets import DatasetPlan
from lerobot_ray.jobs.deadline import STOP_AFTER_VARIABLE
from lerobot_ray.jobs.portable import changed_words, output_dir_there, portable
from lerobot_ray.jobs.room import check_room
from lerobot_ray.jobs.run_file import CLIENT_SETTINGS, RUN_FILE, forwarded, run_as_text, stage
from lerobot_ray.jobs.secrets import environment_for
from lerobot_ray.jobs.site import Site, is_url
from lerobot_ray.on_ray.job_server import ClusterNode, JobServer, check_versions, client_version

HOME_THERE = "~/lerobot_ray_runs"
"""Where results go on a cluster that is told of no storage."""
STOP_WAIT_S = 600
"""A stopped job has so long to write its last checkpoint; Ray's own default is three seconds."""
_KEPT = ("image", "timeout", "tags", "retries", "working_dir", "env", "cluster_has", "mounts", "upload_to")
METADATA = "lerobot_ray."
"""Prefix of what we note down with a job."""


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


def plan_job(words: Sequence[str], server: JobServer) -> RayJob:
    """The job of a command line; LerobotRayError for whatever would keep it from running. Changes nothing."""
    config = parse_train_config(words, fetch=hub_repo.fetch_descriptions)
    settings = gather(words, fetch=hub_repo.fetch_descriptions)
    flags = {".".join(path) for path in settings.flags}
    job, now = config.job, datetime.now()
    nodes = server.nodes()
    site = site_of(server, nodes, config)
    notes = [note for note in [check_versions(client_version(), server.ray_version, address=server.address)] if note]
    _check_room(config, server, nodes, device_given="policy.device" in flags)
    if job.image is not None and job.working_dir is not None:
        raise ConfigError("Ray starts a job.image without a job.working_dir. Put that code into the image.")

    dataset = datasets.plan_dataset(config.dataset, site, storage=job.upload_to, shared=config.ray.storage_path)
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
        train_words = [f"--config_path={RUN_FILE}", *_plugins(words)]
    if not config.ray.storage_path and not site.is_here and len(nodes) > 1:
        notes.append(
            f"results stay in {output_dir} of the node that trains first: give shared storage as --ray.storage_path"
        )
    return RayJob(
        name=name,
        words=train_words,
        resumes=str(config.resume).lower(),
        run_text=None if config.resume is True else run_text,
        python=_python(server, site),
        output_dir=output_dir,
        environment=_environment(there, job, site, private=private),
        metadata=_metadata(there, name, output_dir, train_words, run_text, job=job, private=private),
        working_dir=job.working_dir,
        image=job.image,
        dataset=dataset,
        starts=tuple(starts),
        tags=tuple(job.tags),
        retries=job.retries,
        notes=(dataset.says, *(start.says for start in starts if start.says), *dropped, *notes),
    )


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
        config = parse_train_config([f"--config_path={file}", *_plugins(words), *overrides])
    nodes = server.nodes()
    site = site_of(server, nodes, config)
    _check_room(config, server, nodes, device_given=True)
    private = known.get(f"{METADATA}private") == "true"
    output_dir = known[f"{METADATA}output_dir"]
    has_file = f"--config_path={RUN_FILE}" in words
    return RayJob(
        name=known[f"{METADATA}run"],
        words=[*words, *changes],
        resumes="auto" if has_file else "again",
        run_text=run_text if has_file else None,
        python=_python(server, site),
        output_dir=output_dir,
        environment=_environment(config, config.job, site, private=private),
        metadata={
            **known,
            f"{METADATA}words": json.dumps([*words, *changes]),
            f"{METADATA}job_words": json.dumps(_job_words(config.job)),
            f"{METADATA}retries": str(config.job.retries),
            f"{METADATA}continues": job_id,
        },
        working_dir=config.job.working_dir,
        image=config.job.image,
        retries=config.job.retries,
        notes=(f"continues {job_id} in {output_dir}",),
    )


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


def site_of(server: JobServer, nodes: Sequence[ClusterNode], config: TrainConfig) -> Site:
    """What the cluster's machines see of this one."""
    here = bool(nodes) and all(node.is_this_machine for node in nodes) and not server.grows()
    name = f"the cluster at {server.address}"
    return Site(name=name, is_here=here, mounts=config.job.mounts, home=HOME_THERE)


def _check_room(config: TrainConfig, server: JobServer, nodes: Sequence[ClusterNode], *, device_given: bool) -> None:
    """A cluster that grows is asked by the job itself."""
    if nodes and server.grows():
        return
    device = config.policy.device if config.policy is not None and device_given else None
    check_room(config.ray, device, [node.resources for node in nodes], where=f"the cluster at {server.address}")


def _environment(config: TrainConfig, job: JobConfig, site: Site, *, private: bool) -> dict[str, str]:
    variables = environment_for(config, job, private_repos=private, is_here=site.is_here).all()
    variables["RAY_JOB_STOP_WAIT_TIME_S"] = str(STOP_WAIT_S)
    if (limit := timeout_s(job)) is not None:
        variables[STOP_AFTER_VARIABLE] = f"{limit:g}"
    return variables


def _not_of_this_machine(flags: Collection[str]) -> list[str]:
    """Words that take out of a saved config what concerned the machine that saved it."""
    undone = ["--job.target=local", "--ray.address=null"]
    return undone if "policy.device" in flags else [*undone, "--policy.device=null"]


def _output_dir(config: TrainConfig, site: Site, now: datetime, *, given: bool) -> str:
    usual = default_output_dir(config, now)
    if site.is_here:
        storage = config.ray.storage_path
        base = Path(storage).expanduser().absolute() if storage else Path.cwd()
        return str(base / (config.output_dir or usual).expanduser())
    if not given:
        config = dataclasses.replace(config, output_dir=None)
    found = output_dir_there(config, site, name="/".join(usual.parts[-2:]))
    assert found is not None
    return found


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


def _python(server: JobServer, site: Site) -> str:
    """This very interpreter where it is the cluster's too; elsewhere the one that its image calls python."""
    return sys.executable if site.is_here and server.ray_version == client_version() else "python"


def _plugins(words: Sequence[str]) -> list[str]:
    return [word for word in forwarded(words) if word.partition("=")[0].endswith(".discover_packages_path")]


def _job_words(job: JobConfig) -> list[str]:
    """What was said about the job and holds for one that continues it, as flags."""
    usual = JobConfig()
    values = {name: getattr(job, name) for name in _KEPT if getattr(job, name) != getattr(usual, name)}
    return [f"--job.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def _metadata(
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
        "job_words": json.dumps(_job_words(job)),
        "run_file": run_text,
        "private": "true" if private else "false",
    }
    return {**{f"{METADATA}{key}": value for key, value in notes.items()}, **dict.fromkeys(job.tags, "true")}
