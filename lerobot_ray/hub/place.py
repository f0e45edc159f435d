"""Which commit, and which folder of it, a revision of a repository means. Pure but for the listings it is handed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from lerobot_ray.core.layout import (
    ADAPTER_WEIGHTS_NAME,
    CHECKPOINTS_DIR,
    CONFIG_NAME,
    OWN_CONFIG_NAME,
    PRETRAINED_DIR,
    SHARDED_DIR,
    TRAIN_CONFIG_NAME,
    TRAINING_STATE_DIR,
    TRAINING_STEP_NAME,
    WEIGHTS_NAME,
)
from lerobot_ray.data.hub_revision import is_commit_id
from lerobot_ray.hub.client import HubError
from lerobot_ray.hub.content import Entry, steps_of

logger = logging.getLogger(__name__)

Wanted = Literal["checkpoint", "policy", "config"]
_OF_A_POLICY = (".json", ".safetensors", ".txt", ".model", ".yaml", ".jinja")
"""Endings of the files at a root that a policy is made of."""
_SHOWN = 8


@dataclass(frozen=True)
class Place:
    """A folder of a commit: `checkpoints/005000`, a `pretrained_model` in it, or "" for the root."""

    commit: str
    folder: str
    files: Mapping[str, Entry]

    def as_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(text: bytes) -> Place:
        values = json.loads(text)
        files = {path: Entry(**entry) for path, entry in values["files"].items()}
        return Place(values["commit"], values["folder"], files)

    def has(self, name: str) -> bool:
        return (f"{self.folder}/{name}" if self.folder else name) in self.files


def find_place(
    repo_id: str,
    revision: str | None,
    what: Wanted,
    *,
    head: str | None,
    tags: Mapping[str, str],
    list_at: Callable[[str, str], dict[str, Entry]],
) -> Place:
    """The place, or a HubError that says what the repository has instead. `list_at(commit, folder)` lists files."""

    def look(commit: str, folder: str) -> dict[str, Entry]:
        try:
            return list_at(commit, folder)
        except HubError as error:
            if error.status == 404 and revision is not None:
                raise HubError(f"{repo_id} has no revision {revision}. {_steps(repo_id, tags)}") from error
            raise

    for commit, name, is_asked_for in _candidates(repo_id, revision, what, head=head, tags=tags, look=look):
        folder = f"{CHECKPOINTS_DIR}/{name}" if name else ""
        place = Place(commit, folder, look(commit, folder))
        problem = _problem(place, what, repo_id, name)
        if not problem:
            return place if what == "checkpoint" or not name else _policy_in(place)
        if is_asked_for and name:
            raise HubError(f"{problem} {_steps(repo_id, tags)}")
        if name:
            logger.warning("%s Looking at the step before.", problem)
    where = f"{repo_id}{f' at {revision}' if revision else ''}"
    what_for = {"checkpoint": "checkpoint to resume", "policy": "policy", "config": TRAIN_CONFIG_NAME}[what]
    raise HubError(f"{where} has no {what_for}. {_steps(repo_id, tags)}")


def wanted_files(place: Place, what: Wanted) -> list[str]:
    """The files to fetch of a place."""
    if what == "config":
        names = (TRAIN_CONFIG_NAME, OWN_CONFIG_NAME)
        return [path for path in place.files if path.rpartition("/")[2] in names and _is_beside(path, place.folder)]
    if not place.folder:
        return [path for path in place.files if "/" not in path and path.endswith(_OF_A_POLICY)]
    return list(place.files)


def _candidates(
    repo_id: str,
    revision: str | None,
    what: Wanted,
    *,
    head: str | None,
    tags: Mapping[str, str],
    look: Callable[[str, str], dict[str, Entry]],
) -> Iterator[tuple[str, str, bool]]:
    """(commit, step folder or "" for the root, whether it was asked for by name), best first."""
    newest_first = steps_of(tags)[::-1]
    if revision is None:
        if head and what != "checkpoint":
            yield head, "", False
        for name in newest_first:
            yield tags[name], name, False
        return
    if revision.isdigit() and not is_commit_id(revision):
        same = [name for name in newest_first if int(name) == int(revision)]
        if not same:
            raise HubError(f"{repo_id} has no step {revision}. {_steps(repo_id, tags)}")
        name = same[0]
        if what != "checkpoint" and not look(tags[name], f"{CHECKPOINTS_DIR}/{name}"):
            yield tags[name], "", False  # a tag of somebody who keeps models at the root
        yield tags[name], name, True
        return
    commit = tags.get(revision, revision)
    if what != "checkpoint":
        yield commit, "", False
    folders = {path.split("/")[1] for path in look(commit, CHECKPOINTS_DIR)}
    for name in steps_of(folders)[::-1]:
        yield commit, name, False


def _problem(place: Place, what: Wanted, repo_id: str, name: str) -> str:
    """Why a place will not do, in words; empty when it will."""
    if name and not place.files:
        return f"tag {name} of {repo_id} names commit {place.commit[:8]}, which holds no {place.folder}."
    inside = f"{PRETRAINED_DIR}/" if name else ""
    if what == "config":
        return "" if place.has(inside + TRAIN_CONFIG_NAME) else f"{place.folder} of {repo_id} has no config of a run."
    has_weights = place.has(inside + WEIGHTS_NAME) or place.has(inside + ADAPTER_WEIGHTS_NAME)
    if what == "checkpoint":  # a resume reads parts as well
        has_weights |= any(path.startswith(f"{place.folder}/{SHARDED_DIR}/") for path in place.files)
    if not place.has(inside + CONFIG_NAME) or not has_weights:
        return f"{place.folder or 'the root'} of {repo_id} holds no whole policy."
    if what == "policy":
        return ""
    if not place.has(f"{TRAINING_STATE_DIR}/{TRAINING_STEP_NAME}"):
        raise HubError(
            f"step {name} of {repo_id} holds the model only (pushed with --hub.what=model), not the state of the "
            f"optimizer and of the data, so it cannot be resumed. Start a new run from it: --policy.path={repo_id} "
            f"--policy.pretrained_revision={name}"
        )
    return ""


def _policy_in(place: Place) -> Place:
    """The policy folder of a checkpoint, and what proves that it is whole."""
    folder = f"{place.folder}/{PRETRAINED_DIR}"
    return Place(place.commit, folder, {path: e for path, e in place.files.items() if path.startswith(f"{folder}/")})


def _is_beside(path: str, folder: str) -> bool:
    return path.rpartition("/")[0] == folder


def _steps(repo_id: str, tags: Mapping[str, str]) -> str:
    steps = steps_of(tags)
    if not steps:
        return f"{repo_id} has no tagged step."
    shown = ", ".join(steps[-_SHOWN:])
    return f"It has the steps {'… ' if len(steps) > _SHOWN else ''}{shown}."
