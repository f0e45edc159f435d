"""The files and folders that a command line names: where `--config_path` and `--policy.path` lead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from lerobot_ray.config.decode import decode
from lerobot_ray.config.flags import Flags, lay_over, read
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.config.policy_file import find_policy_folder, read_policy_file
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, CONFIG_NAME, LAST_LINK, PRETRAINED_DIR, TRAIN_CONFIG_NAME

_REPOSITORY = re.compile(r"(?P<repo_id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
Wanted = Literal["checkpoint", "policy", "config"]


class Fetch(Protocol):
    """Downloads what is wanted of a repository of the Hub, or of a URL, and returns the folder it is in."""

    def __call__(self, name: str, /, *, revision: str | None, what: Wanted) -> Path: ...


def find_config_file(given: str, *, fetch: Fetch | None = None, what: Wanted = "config") -> Path:
    """The file that `--config_path` means: itself, or that of a policy folder, a checkpoint, a run, a repository.

    A repository may be followed by a step, tag or commit: user/name@005000. `what` is needed of it the caller knows.

    Of a run it is the last checkpoint's by its link, else by its number; whether a checkpoint is whole is for the
    reader of checkpoints to say.
    """
    path = Path(given)
    if path.is_file():
        return path
    if not path.is_dir():
        path = _fetched(given, revision=None, flag="--config_path", fetch=fetch, what=what)
    checkpoints = path / CHECKPOINTS_DIR
    steps = [step for step in checkpoints.iterdir() if step.name.isdigit()] if checkpoints.is_dir() else []
    newest_first = sorted(steps, key=lambda step: int(step.name), reverse=True)
    for folder in (path, *(step / PRETRAINED_DIR for step in (path, checkpoints / LAST_LINK, *newest_first))):
        if (folder / TRAIN_CONFIG_NAME).is_file():
            return folder / TRAIN_CONFIG_NAME
    raise ConfigError(f"--config_path={given}: no {TRAIN_CONFIG_NAME} in this folder, nor in a checkpoint in it.")


def checkpoint_of(config_file: Path) -> Path:
    """The checkpoint folder that a `train_config.json` lies in."""
    folder = config_file.parent
    return folder.parent if folder.name == PRETRAINED_DIR else folder


def look_up_policy(policy: Mapping[str, Any], flags: Flags, *, fetch: Fetch | None = None) -> dict[str, Any]:
    """The settings of a policy with its `path`, if it has one, replaced by those of the policy there.

    `policy` holds what file and flags say together; `flags` are its own flags alone, named without the section.
    """
    if policy.get("path") is None:
        return dict(policy)
    path_by_flag, type_by_flag = ("path",) in flags, ("type",) in flags
    if "type" in policy and path_by_flag == type_by_flag:
        raise ConfigError(
            f"policy.path={policy['path']} and policy.type={policy['type']} exclude one another: a pretrained policy's "
            "folder says what type it is. Give one of the two."
        )
    if "type" in policy and type_by_flag:  # a fresh policy in place of the file's pretrained one
        return {name: value for name, value in policy.items() if name != "path"}
    laid_over = dict(policy)
    if path_by_flag:  # what a file says concerns another policy
        laid_over = {}
        lay_over(laid_over, flags)
    given = str(laid_over.pop("path"))
    folder = _policy_folder(given, revision=read(laid_over.get("pretrained_revision")), fetch=fetch)
    pretrained = read_policy_file(folder / CONFIG_NAME)
    decode(PolicyConfig, pretrained, origin=Origin(file=str(folder / CONFIG_NAME)))  # type: ignore[type-abstract]
    # not pretrained["repo_id"]: that is where the base was pushed, and pushing there again would replace it
    start = {"pretrained_path": str(folder) if Path(given).exists() else given, "pretrained_revision": None}
    return {**pretrained, **start, "repo_id": None, **laid_over}


def _policy_folder(given: str, *, revision: Any, fetch: Fetch | None) -> Path:
    path = Path(given)
    if not path.exists():
        wanted = None if revision is None else str(revision)
        path = _fetched(given, revision=wanted, flag="--policy.path", fetch=fetch, what="policy")
    folder = find_policy_folder(path)
    if folder is None:
        raise ConfigError(f"--policy.path={given}: no {CONFIG_NAME} in this folder, nor in a checkpoint in it.")
    return folder


def _fetched(given: str, *, revision: str | None, flag: str, fetch: Fetch | None, what: Wanted) -> Path:
    if "://" in given and fetch is not None:
        return fetch(given, revision=revision, what=what)
    match = _REPOSITORY.fullmatch(given)
    if match is None or (match["revision"] and what == "policy"):
        hint = " Name its revision with --policy.pretrained_revision." if match else ""
        raise ConfigError(f"{flag}={given} is neither a file nor a folder here.{hint}")
    if fetch is None:
        raise ConfigError(f"{flag}={given} is not here, and is not fetched from the Hub. Download it first.")
    return fetch(match["repo_id"], revision=match["revision"] or revision, what=what)
