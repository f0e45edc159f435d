"""What a job starts from, when that lies on this machine: a checkpoint to resume, a policy to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lerobot_ray.checkpoint.find import find_checkpoint
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, PRETRAINED_DIR
from lerobot_ray.hub.client import token as hub_token
from lerobot_ray.jobs import hub_repo
from lerobot_ray.jobs.site import Site, is_url


@dataclass(frozen=True, kw_only=True)
class StartPlan:
    """Where a job finds a checkpoint or a policy."""

    there: str
    """A folder the job sees, or a repository of the Hub."""
    says: str = ""
    upload: tuple[Path, str] | None = None
    """A folder of this machine and where in the repository `there` it is put first."""
    on_hub: bool = False


def plan_resume(config_path: str, site: Site, *, repo_id: str, hub_only: bool = False) -> StartPlan:
    """Where the job finds the checkpoint that `--config_path` names. `repo_id`: a free repository, should one be
    needed. CheckpointError when there is no complete one here. Changes nothing."""
    given = Path(config_path).expanduser()
    if not given.exists():
        if is_url(config_path):
            return StartPlan(there=config_path, says=f"resumes {config_path}")
        return StartPlan(there=config_path, on_hub=True, says=f"resumes {config_path}, from the Hub")
    checkpoint = find_checkpoint(given)
    there = None if hub_only else site.path_there(checkpoint / PRETRAINED_DIR)
    if there is not None:
        return StartPlan(there=there, says=f"resumes {checkpoint}")
    _check_token(checkpoint, site, "--config_path")
    return StartPlan(
        there=repo_id,
        upload=(checkpoint, f"{CHECKPOINTS_DIR}/{checkpoint.name}"),
        on_hub=True,
        says=f"{checkpoint} is only here and is uploaded to the private repository {repo_id}",
    )


def plan_policy(pretrained_path: str, site: Site, *, repo_id: str, hub_only: bool = False) -> StartPlan:
    """Where the job finds the policy that training begins from. Changes nothing."""
    given = Path(pretrained_path).expanduser()
    if not given.is_dir():
        return StartPlan(there=pretrained_path, on_hub=not is_url(pretrained_path))
    there = None if hub_only else site.path_there(given)
    if there is not None:
        return StartPlan(there=there, says=f"begins from {given}")
    _check_token(given, site, "--policy.path")
    return StartPlan(
        there=repo_id,
        upload=(given, ""),
        on_hub=True,
        says=f"{given} is only here and is uploaded to the private repository {repo_id}",
    )


def make_available(plan: StartPlan) -> None:
    """Does what the plan says."""
    if plan.upload is None:
        return
    folder, path = plan.upload
    step = folder.name if path else None  # a job looks for a checkpoint by the tags of steps
    message = path or "the policy a job begins from"
    hub_repo.stage_folder(folder, plan.there, path_in_repo=path, message=message, tag=step)


def _check_token(folder: Path, site: Site, flag: str) -> None:
    if not hub_token():
        raise ConfigError(
            f"{flag}: {folder} is only on this machine, and {site.name} does not see it. Log in to the Hub (hf auth "
            "login) to have it uploaded privately, or say where the job sees that folder: "
            '--job.mounts=\'{"/here": "/there"}\'.'
        )
