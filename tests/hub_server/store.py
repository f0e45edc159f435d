"""Repositories as the Hub keeps them: content-addressed blobs, commits that are whole snapshots, branches and tags.

Everything is on disk below one folder and survives a restart: `blobs/<sha256>` and `repos/<kind>/<ns>/<name>.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

KINDS = ("model", "dataset", "space")
LFS_SUFFIXES = {".parquet", ".mp4", ".safetensors", ".bin", ".pt", ".gz", ".zip", ".arrow", ".npy", ".npz", ".pkl"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


class Refusal(Exception):
    """A request the Hub turns down. `code` becomes X-Error-Code, which decides the client's exception."""

    def __init__(self, status: int, message: str, code: str = "", **extra: Any) -> None:
        super().__init__(status, message)
        self.status, self.message, self.code, self.extra = status, message, code, extra
        self.headers: dict[str, str] = {}


@dataclass(frozen=True)
class Entry:
    """One file of one commit."""

    sha256: str
    size: int
    oid: str
    """Git's name of what git would store: the content, or the pointer of a large file."""
    is_lfs: bool
    xet_hash: str = ""


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str
    title: str
    message: str
    author: str
    date: str
    files: dict[str, Entry]


@dataclass
class Repo:
    kind: str
    id: str
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit:
        """The commit a branch, a tag or a commit id means."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        commit = self.branches.get(name) or self.tags.get(name) or revision
        if commit not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[commit]

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        commit, found = self.resolve(revision).id, []
        while commit:
            found.append(self.commits[commit])
            commit = found[-1].parent
        return found

    def _new_ref(self, refs: dict[str, str], kind: str, name: str, revision: str) -> None:
        if name in refs:
            raise Refusal(409, f"{kind} already exists: {name}")
        if not name or ".." in name or " " in name:
            raise Refusal(400, f"Invalid {kind} name: {name!r}")
        refs[name] = self.resolve(revision).id

    def create_tag(self, name: str, revision: str) -> None:
        self._new_ref(self.tags, "Tag", name, revision)

    def create_branch(self, name: str, revision: str) -> None:
        self._new_ref(self.branches, "Branch", name, revision)

    def delete_ref(self, refs: dict[str, str], name: str) -> None:
        if name not in refs:
            raise Refusal(404, f"Reference does not exist: {name}", "RevisionNotFound")
        del refs[name]


class Store:
    """All repositories of one server. Methods are safe to call from several threads under `lock`."""

    def __init__(self, root: Path) -> None:
        self.root, self.lock = Path(root), threading.RLock()
        (self.root / "blobs").mkdir(parents=True, exist_ok=True)
        self.repos: dict[tuple[str, str], Repo] = {}
        for file in sorted((self.root / "repos").glob("*/*/*.json")):
            repo = _repo_from_json(json.loads(file.read_text()))
            self.repos[repo.kind, repo.id] = repo

    # Blobs

    def blob_path(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256

    def has_blob(self, sha256: str) -> bool:
        return bool(re.fullmatch("[0-9a-f]{64}", sha256)) and self.blob_path(sha256).is_file()

    def put_blob(self, chunks: Iterable[bytes], expected_sha256: str | None = None) -> tuple[str, int]:
        """Store the bytes, refuse them if they are not what they were said to be."""
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self.root, delete=False) as temporary:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                temporary.write(chunk)
        sha256 = digest.hexdigest()
        if expected_sha256 not in (None, sha256):
            os.unlink(temporary.name)
            raise Refusal(400, f"sha256 of the body is {sha256}, not {expected_sha256}")
        os.replace(temporary.name, self.blob_path(sha256))
        return sha256, size

    def open_blob(self, sha256: str) -> BinaryIO:
        return open(self.blob_path(sha256), "rb")

    # Repositories

    def create(self, kind: str, repo_id: str, *, private: bool, author: str) -> Repo:
        if kind not in KINDS or not _NAME.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
            raise Refusal(400, f"Invalid repository {kind} {repo_id!r}")
        if (kind, repo_id) in self.repos:
            raise Refusal(409, f"You already created this {kind} repo: {repo_id}")
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in sorted(LFS_SUFFIXES))
        first = {".gitattributes": self.regular_entry(attributes.encode())}
        self.append(repo, "main", first, title="initial commit", message="", author=author)
        return repo

    def delete(self, repo: Repo) -> None:
        del self.repos[repo.kind, repo.id]
        self._file(repo).unlink(missing_ok=True)

    def append(
        self, repo: Repo, branch: str, files: dict[str, Entry], *, title: str, message: str, author: str
    ) -> Commit:
        """Move `branch` to a new commit that holds exactly `files`."""
        parent, date = repo.branches.get(branch, ""), datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        names = json.dumps([parent, title, message, author, date, sorted((path, e.oid) for path, e in files.items())])
        commit = Commit(hashlib.sha1(names.encode()).hexdigest(), parent, title, message, author, date, files)
        repo.commits[commit.id] = commit
        repo.branches[branch] = commit.id
        self.save(repo)
        return commit

    def regular_entry(self, content: bytes) -> Entry:
        sha256, size = self.put_blob([content])
        return Entry(sha256, size, _git_oid(content), is_lfs=False)

    def lfs_entry(self, sha256: str, size: int, xet_hash: str = "") -> Entry:
        return Entry(sha256, size, _git_oid(lfs_pointer(sha256, size)), is_lfs=True, xet_hash=xet_hash)

    def save(self, repo: Repo) -> None:
        file = self._file(repo)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".new").write_text(json.dumps(asdict(repo)))
        os.replace(file.with_suffix(".new"), file)

    def _file(self, repo: Repo) -> Path:
        return self.root / "repos" / repo.kind / f"{repo.id}.json"

    def wipe(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def pointer_size(entry: Entry) -> int:
    return len(lfs_pointer(entry.sha256, entry.size))


def check_path(path: str) -> str:
    """`path` if a commit may hold it."""
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..", ".git") for part in parts):
        raise Refusal(400, f"Invalid path in repo: {path!r}")
    return path


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _repo_from_json(fields: dict[str, Any]) -> Repo:
    commits = {
        name: Commit(**{**commit, "files": {path: Entry(**entry) for path, entry in commit["files"].items()}})
        for name, commit in fields.pop("commits").items()
    }
    return Repo(**fields, commits=commits)
