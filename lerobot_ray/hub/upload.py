"""Repositories made when they are missing, and files sent in one commit: all of them arrive, or none."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.retry import RetryPolicy
from lerobot_ray.hub.client import HubError, RepoType, ask, endpoint

logger = logging.getLogger(__name__)

Files = Mapping[str, Path | bytes]
"""Path in the repository -> the file here, or its content."""


def ensure_repo(repo_id: str, *, private: bool | None, repo_type: RepoType = "model", instead: str = "") -> bool:
    """True when the repository was made now, False when it was there and may be written to. ConfigError otherwise.

    `private` concerns a repository made now; None: what the account does by default.
    """
    check_repo_id(repo_id)
    try:
        ask(f"making {repo_id}", lambda api: api.create_repo(repo_id, repo_type=repo_type, private=private))
        return True
    except HubError as error:
        if error.status not in (403, 409):
            raise ConfigError(f"{error} {instead}".strip()) from error
    if not may_write(repo_id, repo_type=repo_type):
        raise ConfigError(
            f"{repo_id}: the token in use has no right to write to it on {endpoint()}. Use one with write access to "
            f"{repo_id.split('/')[0]!r}, or name a repository of your own.{' ' + instead if instead else ''}"
        )
    return False


def check_repo_id(repo_id: str) -> None:
    """ConfigError when no repository can have this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        is_valid = repo_id.count("/") == 1
    except HFValidationError:
        is_valid = False
    if not is_valid:
        raise ConfigError(f"{repo_id!r} is not the name of a Hub repository: it is written user/name.")


def may_write(repo_id: str, *, repo_type: RepoType = "model") -> bool:
    """Whether the token in use may write to a repository that exists. Changes nothing."""
    try:  # a branch that is there cannot be made again; only who may write is told so
        ask(
            f"asking for the right to write to {repo_id}",
            lambda api: api.create_branch(repo_id, branch="main", repo_type=repo_type),
        )
    except HubError as error:
        if error.status == 409:
            return True
        if error.status in (401, 403, 404):
            return False
        raise
    return True


def send_commit(
    repo_id: str,
    files: Files,
    *,
    message: str,
    delete: Iterable[str] = (),
    parent: str | None = None,
    repo_type: RepoType = "model",
    retry: RetryPolicy | None = None,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Send these files and take those in `delete` away, in one commit on main; its id.

    Large files whose bytes the Hub has are not sent again. With `parent`, a HubError of status 412 when main is not
    there any more. An attempt that was cut after the Hub had taken the commit finds nothing left to change.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    doomed = list(delete)
    # an audit is a table beside a model, and meant to be
    warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")

    def commit(api: Any) -> str:
        adds = [
            CommitOperationAdd(path, str(content) if isinstance(content, Path) else content)
            for path, content in files.items()
        ]
        deletes = [CommitOperationDelete(path, is_folder=False) for path in doomed]
        info = api.create_commit(
            repo_id, [*adds, *deletes], commit_message=message, parent_commit=parent, repo_type=repo_type
        )
        return info.oid

    return ask(f"uploading to {repo_id}", commit, retry=retry, check=check)


def place_tag(repo_id: str, tag: str, commit: str, *, repo_type: RepoType = "model", **retrying: Any) -> None:
    """Tag a commit. HubError of status 409 when the tag is there already."""
    ask(
        f"tagging {repo_id} with {tag}",
        lambda api: api.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type),
        **retrying,
    )


def remove_tag(repo_id: str, tag: str, *, repo_type: RepoType = "model") -> None:
    """Remove a tag if it is there."""
    try:
        ask(
            f"removing tag {tag} of {repo_id}",
            lambda api: api.delete_tag(repo_id, tag=tag, repo_type=repo_type),
        )
    except HubError as error:
        if error.status != 404:
            raise
