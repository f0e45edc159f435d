"""The Hub as a submission needs it: whose token this is, what is there, and private repositories to stage things."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.hub.client import RepoType, ask, token
from lerobot_ray.hub.upload import ensure_repo, place_tag, send_commit

SMALL_FILES = ["*.json", "*.yaml"]
"""Of a repository: what describes a run or a policy, without weights."""


def account(needed_for: str) -> str:
    """The name behind this machine's token; ConfigError when there is none, HubError when it is not accepted."""
    if not token():
        raise ConfigError(
            f"{needed_for} needs a Hugging Face token, and there is none here. Run hf auth login, or set HF_TOKEN."
        )
    return ask("asking whose token this is", lambda api: api.whoami()["name"])


def is_visible(repo_id: str, *, kind: RepoType, stranger: bool = False) -> bool:
    """Whether a repository is there for this account, or for a stranger. A revision after its name (@…) is left out."""
    repo_id = repo_id.partition("@")[0]
    own = {"token": False} if stranger else {}
    return ask(f"asking for {repo_id}", lambda api: api.repo_exists(repo_id, repo_type=kind, **own))


def files(repo_id: str) -> list[str]:
    """The paths in a model repository."""
    return ask(f"listing {repo_id}", lambda api: list(api.list_repo_files(repo_id)))


def fetch_descriptions(repo_id: str, *, revision: str | None, what: str = "config") -> Path:
    """A folder with the small files of a model repository: enough to read its config, without the weights.

    `what` is wanted of it in the end is the job's to fetch. Of a URL the whole checkpoint comes.
    """
    if "://" in repo_id:
        from lerobot_ray.checkpoint.stored import fetch_by_url  # not before: it imports pyarrow

        return fetch_by_url(repo_id, step=revision)
    found = ask(
        f"reading the config of {repo_id}",
        lambda api: api.snapshot_download(repo_id, revision=revision, allow_patterns=SMALL_FILES),
    )
    return Path(found)


def stage_folder(folder: Path, repo_id: str, *, path_in_repo: str = "", message: str, tag: str | None = None) -> None:
    """Puts the files of a folder into a private model repository, which is made if need be, and tags that commit."""
    ensure_repo(repo_id, private=True)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    prefix = f"{path_in_repo}/" if path_in_repo else ""
    files = {f"{prefix}{path.relative_to(folder).as_posix()}": path for path in paths}
    commit = send_commit(repo_id, files, message=message)
    if tag is not None:
        place_tag(repo_id, tag, commit)


def new_repo_id(user: str, name: str, now: datetime | None = None) -> str:
    """A repository name that is free, for a run: LeRobot's form."""
    now = now or datetime.now(timezone.utc)
    return f"{user}/{slug(name)}_{now:%Y-%m-%d_%H-%M-%S}"


def slug(name: str) -> str:
    """A name with nothing in it that repositories and jobs may not be called."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).strip("-.") or "run"
