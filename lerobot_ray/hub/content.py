"""What a repository holds, by digest, and whether a file here is the same: nothing is sent or fetched twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_ray.hub.client import RepoType

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Entry:
    """One file of one commit as the Hub lists it."""

    size_bytes: int
    digest: str
    """SHA-256 of a large file, git's SHA-1 of a small one."""
    is_large: bool


def list_files(
    api: Any, repo_id: str, *, revision: str = "main", folder: str = "", repo_type: RepoType = "model"
) -> dict[str, Entry]:
    """Path -> entry of all files below `folder` at a revision; empty where there is no such folder."""
    from huggingface_hub.errors import EntryNotFoundError

    found = {}
    try:
        rows = api.list_repo_tree(
            repo_id, path_in_repo=folder or None, revision=revision, recursive=True, repo_type=repo_type
        )
        for row in rows:
            if hasattr(row, "blob_id"):  # a file; folders have none
                found[row.path] = Entry(row.size, row.lfs.sha256 if row.lfs else row.blob_id, bool(row.lfs))
    except EntryNotFoundError:
        return {}
    return found


def is_same(local: Path | bytes, entry: Entry | None, *, sha256: str | None = None) -> bool:
    """Whether the file here is the one listed. Reads it only if the size fits and no known `sha256` settles it."""
    if entry is None:
        return False
    size = len(local) if isinstance(local, bytes) else local.stat().st_size
    if size != entry.size_bytes:
        return False
    digest = sha256 if sha256 and entry.is_large else digest_of(local, is_large=entry.is_large)
    return digest == entry.digest


def digest_of(local: Path | bytes, *, is_large: bool) -> str:
    """The digest the Hub would list."""
    size = len(local) if isinstance(local, bytes) else local.stat().st_size
    digest = hashlib.sha256() if is_large else hashlib.sha1(b"blob %d\0" % size)
    if isinstance(local, bytes):
        digest.update(local)
        return digest.hexdigest()
    with local.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def list_refs(api: Any, repo_id: str, *, repo_type: RepoType = "model") -> tuple[str | None, dict[str, str]]:
    """(main's head, tag -> commit)."""
    refs = api.list_repo_refs(repo_id, repo_type=repo_type)
    head = next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)
    return head, {tag.name: tag.target_commit for tag in refs.tags}


def steps_of(names: Iterable[str]) -> list[str]:
    """The names that are steps, first step first."""
    return sorted((name for name in names if name.isdigit()), key=int)
