"""A run on Hugging Face Jobs, as lerobot-train submits one: a private repository holds its config, then its model."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.config.files import save_train_config
from lerobot_ray.config.job import JobConfig, timeout_s
from lerobot_ray.config.parse import gather, parse_train_config
from lerobot_ray.config.ray import store_of_runs
from lerobot_ray.config.train import TrainConfig, run_name
from lerobot_ray.core.errors import ConfigError, JobError, LerobotRayError, StorageError
from lerobot_ray.core.layout import CHECKPOINTS_DIR
from lerobot_ray.data.retry import RetryPolicy
from lerobot_ray.hub.client import ask, url_of
from lerobot_ray.jobs import checkpoints, datasets, hub_repo
from lerobot_ray.jobs.checkpoints import StartPlan
from lerobot_ray.jobs.datasets import DatasetPlan
from lerobot_ray.jobs.deadline import STOP_AFTER_VARIABLE
from lerobot_ray.jobs.portable import changed_words, portable
from lerobot_ray.jobs.run_file import CLIENT_SETTINGS, forwarded, run_as_text
from lerobot_ray.jobs.secrets import environment_for
from lerobot_ray.jobs.site import Site, is_url

PUSHED = "Model pushed to https://"
"""A log line with which the run says that its model is published."""
POLL_S = 5.0
FAILURES_IN_A_ROW = 6
LEAVE_S = 300.0
"""So long before the platform ends the job it is asked to save a checkpoint and end by itself."""
_OVER = ("COMPLETED", "ERROR", "CANCELED", "DELETED")


@dataclass(frozen=True, kw_only=True)
class HubJob:
    """A run, ready to be submitted any number of times."""

    user: str
    repo_id: str
    command: list[str]
    flavor: str
    image: str
    timeout: str | None
    plain: Mapping[str, str]
    secret: Mapping[str, str] = field(repr=False)
    labels: Mapping[str, str]
    dataset: DatasetPlan
    starts: tuple[StartPlan, ...] = ()
    config: TrainConfig | None = None
    """Staged in the repository first; None when a checkpoint there is resumed."""
    notes: tuple[str, ...] = ()
    retries: int = 0


def plan_job(words: Sequence[str]) -> HubJob:
    """The job of a command line; LerobotRayError for whatever would keep it from running. Changes nothing."""
    config = parse_train_config(words, fetch=hub_repo.fetch_descriptions)
    flags = {".".join(path) for path in gather(words, fetch=hub_repo.fetch_descriptions).flags}
    job, policy = config.job, config.policy
    assert policy is not None
    assert job.target is not None
    user = hub_repo.account(f"job.target={job.target}")
    if job.image is None:
        raise ConfigError(
            "a job of Hugging Face Jobs starts from an image that has lerobot_ray. Build clusters/docker/Dockerfile, "
            "push it to a registry, and give --job.image=<registry>/<name>."
        )
    site = Site(name="Hugging Face Jobs")
    storage = job.upload_to or store_of_runs(config.ray)
    dataset = datasets.plan_dataset(_without_foreign_root(config.dataset), site, storage=storage)
    fresh_repo = hub_repo.new_repo_id(user, run_name(config))
    tags = list(dict.fromkeys(["lerobot", *job.tags]))
    is_resume = config.resume is True
    starts: list[StartPlan] = []
    pretrained = policy.pretrained_path
    if is_resume:
        start = checkpoints.plan_resume(_config_path(words), site, repo_id=fresh_repo, hub_only=True)
        starts.append(start)
        repo_id = start.there.partition("@")[0]  # what it pushes goes to the repository, whatever step it begins at
        own = [] if start.upload is None else [f"--policy.repo_id={repo_id}", "--policy.push_to_hub=true"]
        device = [] if "policy.device" in flags else ["--policy.device=null"]
        root = [f"--dataset.root={dataset.config.root or 'null'}"]
    else:
        repo_id = policy.repo_id or fresh_repo
        if pretrained is not None:
            starts.append(checkpoints.plan_policy(pretrained, site, repo_id=f"{fresh_repo}_base", hub_only=True))
            pretrained = starts[-1].there
        arguments = [f"--config_path={repo_id}"]
    there, dropped = portable(config, site, dataset=dataset.config, flags=flags, pretrained_path=pretrained)
    if is_resume:
        mended = changed_words(config, there)
        kept = forwarded(words, drop=(*_NOT_FORWARDED, *(word[2:].partition("=")[0] for word in mended)))
        start_words = [f"--config_path={starts[0].there}", "--job.target=local", "--ray.address=null"]
        arguments = [*start_words, *own, *device, *root, *kept, *mended, "--resume=true"]
    assert there.policy is not None
    there.policy.repo_id, there.policy.push_to_hub = repo_id, True
    there.policy.tags = list(dict.fromkeys([*(there.policy.tags or []), *tags]))
    there = replace(there, output_dir=None, ray=replace(there.ray, storage_path=store_of_runs(there.ray)))
    run_as_text(there)  # refuses credentials in it
    variables = environment_for(
        there, job, private_repos=True, always_hub_token=True, places=[start.there for start in starts]
    )
    plain = dict(variables.plain)
    if (limit := timeout_s(job)) is not None and limit > 2 * LEAVE_S:
        plain[STOP_AFTER_VARIABLE] = f"{limit - LEAVE_S:g}"
    return HubJob(
        user=user,
        repo_id=repo_id,
        command=["python", "-m", "lerobot_ray.train", *arguments],
        flavor=job.target,
        image=job.image,
        timeout=job.timeout,
        plain=plain,
        secret=variables.secret,
        labels=dict.fromkeys(tags, "true"),
        dataset=dataset,
        starts=tuple(starts),
        config=None if is_resume else there,
        notes=(dataset.says, *(start.says for start in starts if start.says), *dropped),
        retries=job.retries,
    )


def bring(job: HubJob) -> None:
    """Puts on the Hub what is only here, and the config the job starts from."""
    datasets.make_available(job.dataset, tags=list(job.labels))
    for start in job.starts:
        checkpoints.make_available(start)
    if job.config is not None:
        with tempfile.TemporaryDirectory() as folder:
            save_train_config(job.config, folder)
            hub_repo.stage_folder(Path(folder), job.repo_id, message="config of a job")


def submit(job: HubJob, *, again: bool = False) -> Any:
    """What the platform says of the new job. `again`: it continues from the newest checkpoint in the repository."""
    command = list(job.command)
    if again and "--resume=true" not in command and _has_checkpoint(job.repo_id):
        command.append("--resume=true")
    return ask(
        f"starting a job on {job.flavor}",
        lambda api: api.run_job(
            image=job.image,
            command=command,
            env=dict(job.plain),
            secrets=dict(job.secret),
            flavor=job.flavor,
            timeout=job.timeout,
            labels=dict(job.labels),
            namespace=job.user,
        ),
        retry=RetryPolicy(attempts=1),  # asked twice it might start two
    )


def run_on_hub(
    words: Sequence[str],
    config: JobConfig,
    *,
    say: Callable[[str], None],
    show: Callable[[str], None],
    poll_s: float = POLL_S,
) -> int:
    """Submit, watch, and submit again what died; 0 when the model is pushed or the job is complete."""
    job = plan_job(words)
    for note in job.notes:
        say(note)
    bring(job)
    left, again = config.retries, False
    while True:
        started = submit(job, again=again)
        say(f"started {started.id} on {job.flavor}: {started.url}")
        say(f"model: {url_of(job.repo_id)}\n{_commands(started.id)}")
        if config.detach:
            return 0
        try:
            stage, message = watch(started.id, job.user, job.repo_id, show=show, poll_s=poll_s)
        except KeyboardInterrupt:
            say(f"\ndetached; {started.id} goes on\n{_commands(started.id)}")
            return 130
        if stage == "COMPLETED":
            say(f"{started.id} is done; the model is at {url_of(job.repo_id)}")
            return 0
        say(f"{started.id} ended as {stage}{': ' + message if message else ''}")
        if stage != "ERROR" or not left:
            say(f"continue with --config_path={job.repo_id} --resume=true, if it has saved checkpoints to the Hub")
            return 1
        left, again = left - 1, True


def watch(
    job_id: str, user: str, repo_id: str, *, show: Callable[[str], None], poll_s: float = POLL_S
) -> tuple[str, str]:
    """Shows the log until the model is pushed or the job is over; (stage, message), COMPLETED once it is pushed.
    JobError when the platform cannot be reached any more."""
    tail = _Tail(job_id, user, show)
    tail.start()
    failures = 0
    while True:
        try:
            status = ask(
                f"asking for {job_id}",
                lambda api: api.inspect_job(job_id=job_id, namespace=user).status,
                retry=RetryPolicy(attempts=1),
            )
            failures = 0
        except StorageError as error:
            failures += 1
            if failures >= FAILURES_IN_A_ROW:
                tail.stopped.set()
                raise JobError(f"the state of {job_id} cannot be learned: {error}. It goes on by itself.") from error
            status = None
        if tail.pushed.is_set():
            tail.stopped.set()
            return "COMPLETED", ""
        if status is not None and str(status.stage) in _OVER:
            tail.finish(within_s=max(2.0, 2 * poll_s))
            return str(status.stage), status.message or ""
        tail.pushed.wait(poll_s)


class _Tail(threading.Thread):
    """Shows a job's log once, line by line, over any number of connections."""

    def __init__(self, job_id: str, user: str, show: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name="log")
        self._job_id, self._user, self._show = job_id, user, show
        self.pushed, self.stopped, self._last = threading.Event(), threading.Event(), threading.Event()
        self._shown = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            is_last = self._last.is_set()
            with contextlib.suppress(Exception):  # the log is not there yet, or the connection broke
                self._read()
            if is_last:
                return
            self._last.wait(0.5)

    def finish(self, *, within_s: float) -> None:
        """Read to the end of a job that is over."""
        self._last.set()
        self.join(within_s)
        self.stopped.set()

    def _read(self) -> None:
        lines = ask(
            f"reading the log of {self._job_id}",
            lambda api: api.fetch_job_logs(job_id=self._job_id, namespace=self._user),
        )
        for number, line in enumerate(lines):
            if self.stopped.is_set():
                return
            if number < self._shown:
                continue
            self._shown = number + 1
            self._show(f"{line.rstrip()}\n")
            if PUSHED in line:
                self.pushed.set()


_NOT_FORWARDED = (*CLIENT_SETTINGS, "policy.repo_id", "policy.push_to_hub")


def _config_path(words: Sequence[str]) -> str:
    found = [word.partition("=")[2] for word in forwarded(words, drop=()) if word.startswith("--config_path=")]
    return found[-1]


def _without_foreign_root(dataset: DatasetConfig) -> DatasetConfig:
    """A folder that is not here is another machine's; the container has it no more than this one."""
    root = dataset.root
    is_foreign = root is not None and not is_url(root) and not Path(root).expanduser().is_dir()
    return replace(dataset, root=None) if is_foreign else dataset


def _has_checkpoint(repo_id: str) -> bool:
    try:
        return any(path.startswith(f"{CHECKPOINTS_DIR}/") for path in hub_repo.files(repo_id))
    except LerobotRayError:
        return False


def _commands(job_id: str) -> str:
    return f"  follow: hf jobs logs {job_id}\n  stop:   hf jobs cancel {job_id}"
