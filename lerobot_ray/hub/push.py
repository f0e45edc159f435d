"""One checkpoint, or a finished policy, to the Hub.

    checkpoints/005000/   the folder as it is on disk, in one commit; then the commit is tagged `005000`
    audit/                with an audit: what it holds so far

A commit is all or nothing and the tag comes after it, so a tagged step is whole. A tag is never moved: the same step of
another run stays where it is, and this one's is refused.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lerobot_ray.checkpoint.commit import MANIFEST_NAME
from lerobot_ray.core.layout import (
    ADAPTER_WEIGHTS_NAME,
    CHECKPOINTS_DIR,
    CONFIG_NAME,
    PRETRAINED_DIR,
    PRETRAINED_EMA_DIR,
    WEIGHTS_NAME,
)
from lerobot_ray.data.audit import AUDIT_DIR
from lerobot_ray.data.retry import PATIENT, RetryPolicy
from lerobot_ray.hub.client import HubError, ask
from lerobot_ray.hub.content import Entry, is_same, list_files, list_refs
from lerobot_ray.hub.upload import Files, place_tag, send_commit

logger = logging.getLogger(__name__)

What = Literal["all", "model"]
CARD_NAME = "README.md"
MODEL_FOLDERS = (PRETRAINED_DIR, PRETRAINED_EMA_DIR)
TAG_ELSEWHERE = "TagElsewhere"
"""Code of the HubError for a tag that names other content."""
_RACES = 20


@dataclass(frozen=True)
class Patience:
    """How long to try, and what is asked in between whether to go on."""

    retry: RetryPolicy = PATIENT
    check: Callable[[], None] = lambda: None


def push_checkpoint(
    checkpoint: Path, repo_id: str, *, what: What = "all", run_dir: Path | None = None, patience: Patience | None = None
) -> str:
    """Upload a complete checkpoint and tag it; the tagged commit. Nothing is sent that the Hub has.

    `run_dir`: take its audit along. HubError with code TAG_ELSEWHERE when the tag is there and means something else.
    """
    patience = patience or Patience()
    name = checkpoint.name
    files, hashes = checkpoint_files(checkpoint, what)
    if run_dir is not None and what == "all":
        files.update(_audit_files(run_dir))
    folders = sorted(
        {path.split("/")[0] if path.startswith(AUDIT_DIR) else f"{CHECKPOINTS_DIR}/{name}" for path in files}
    )
    for _ in range(_RACES):
        head, tags = ask(
            f"asking for the tags of {repo_id}",
            lambda api: list_refs(api, repo_id),
            retry=patience.retry,
            check=patience.check,
        )
        if name in tags:
            if not is_at(checkpoint, repo_id, tags[name], patience=patience):
                raise HubError(
                    f"{repo_id} has a tag {name} already, which names another checkpoint (commit {tags[name][:8]}). "
                    "Another run pushes to this repository, or did. It is left as it is.",
                    status=409,
                    code=TAG_ELSEWHERE,
                )
            return tags[name]
        there = _list(repo_id, head or "main", folders, patience)
        changed = {
            path: file for path, file in files.items() if not is_same(file, there.get(path), sha256=hashes.get(path))
        }
        stale = sorted(set(there) - set(files))
        try:
            commit = head
            if changed or stale or head is None:
                commit = send_commit(
                    repo_id,
                    changed,
                    message=f"checkpoint {name}",
                    delete=stale,
                    parent=head,
                    retry=patience.retry,
                    check=patience.check,
                )
            assert commit is not None
            _check_whole(checkpoint, repo_id, commit, files, hashes, folders, patience)
            place_tag(repo_id, name, commit, retry=patience.retry, check=patience.check)
        except HubError as error:
            if error.status in (409, 412):  # somebody else was faster, or an answer was lost: look again
                continue
            raise
        return commit
    raise HubError(f"{repo_id} changes faster than {name} can be put there. Is another run pushing to it?", status=412)


def push_policy(folder: Path, repo_id: str, *, beside: Files, patience: Patience | None = None) -> str:
    """Publish a policy folder at the root of a repository, with the files `beside` it (the card, pictures); the commit.

    Weights and processors that an earlier policy left at the root are taken away, other files stay.
    """
    patience = patience or Patience()
    files: dict[str, Path | bytes] = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    if WEIGHTS_NAME not in files and ADAPTER_WEIGHTS_NAME not in files:
        raise HubError(
            f"{folder} has no weights to publish: its checkpoint holds them in parts. Write a copy with whole files "
            f"first: python -m lerobot_ray.convert {folder.parent} --output=FOLDER"
        )
    files.update(beside)
    there = {path: entry for path, entry in _list(repo_id, "main", [""], patience).items() if "/" not in path}
    changed = {path: file for path, file in files.items() if not is_same(file, there.get(path))}
    stale = sorted(path for path in there if path not in files and path.endswith((".safetensors", ".json")))
    if not changed and not stale:
        return ask(f"asking for {repo_id}", lambda api: list_refs(api, repo_id)[0]) or ""
    kind = json.loads((folder / CONFIG_NAME).read_text()).get("type", "policy")
    return send_commit(
        repo_id, changed, message=f"{kind} policy", delete=stale, retry=patience.retry, check=patience.check
    )


def checkpoint_files(checkpoint: Path, what: What) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    """(path in the repository -> file, -> SHA-256 as the manifest has it) of what is pushed of a checkpoint."""
    prefix = f"{CHECKPOINTS_DIR}/{checkpoint.name}"
    manifest = json.loads((checkpoint / MANIFEST_NAME).read_text())
    chosen = {
        name: entry for name, entry in manifest["files"].items() if what == "all" or name.split("/")[0] in MODEL_FOLDERS
    }
    files: dict[str, Path | bytes] = {f"{prefix}/{name}": checkpoint / name for name in chosen}
    files[f"{prefix}/{MANIFEST_NAME}"] = json.dumps({**manifest, "files": chosen}, indent=2).encode()
    return files, {f"{prefix}/{name}": entry["sha256"] for name, entry in chosen.items()}


def is_at(checkpoint: Path, repo_id: str, commit: str, *, patience: Patience | None = None) -> bool:
    """Whether that commit has this checkpoint: its model to the byte. The rest may have been left out."""
    files, hashes = checkpoint_files(checkpoint, "model")
    folder = f"{CHECKPOINTS_DIR}/{checkpoint.name}"
    there = _list(repo_id, commit, [f"{folder}/{PRETRAINED_DIR}"], patience or Patience())
    model = [path for path in files if path.startswith(f"{folder}/{PRETRAINED_DIR}/")]
    return bool(there) and all(is_same(files[path], there.get(path), sha256=hashes.get(path)) for path in model)


def _audit_files(run_dir: Path) -> dict[str, Path | bytes]:
    audit = run_dir / AUDIT_DIR
    return {
        f"{AUDIT_DIR}/{path.relative_to(audit).as_posix()}": path
        for path in sorted(audit.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _list(repo_id: str, revision: str, folders: list[str], patience: Patience) -> dict[str, Entry]:
    there: dict[str, Entry] = {}
    for folder in folders:
        there |= ask(
            f"listing {repo_id}",
            functools.partial(list_files, repo_id=repo_id, revision=revision, folder=folder),
            retry=patience.retry,
            check=patience.check,
        )
    return there


def _check_whole(
    checkpoint: Path,
    repo_id: str,
    commit: str,
    files: Files,
    hashes: Mapping[str, str],
    folders: list[str],
    patience: Patience,
) -> None:
    """HubError unless that commit has every file as it was saved: before a tag says so."""
    there = _list(repo_id, commit, folders, patience)
    wrong = [path for path, file in files.items() if not is_same(file, there.get(path), sha256=hashes.get(path))]
    if wrong:
        raise HubError(
            f"{wrong[0]} of {repo_id} is not the file in {checkpoint}, so the step is not tagged. Was the checkpoint "
            "changed after it was saved?"
        )
