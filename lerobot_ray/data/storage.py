"""Where a dataset's files are: a folder, a URL, or the Hub, behind one small protocol.

Everything that reads a dataset asks a `Storage` for local paths and never learns where they came from. The remote kinds
are in `remote`; they are imported only when a dataset needs them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from lerobot_ray.core.errors import DatasetError, StorageError
from lerobot_ray.core.layout import INFO_PATH


@runtime_checkable
class Storage(Protocol):
    """A dataset's files. Paths are relative to its root, with "/". Pickles: it travels to decode actors."""

    def local(self, path: str) -> Path:
        """A local path of the whole file, fetched if need be. Raises StorageError naming the file."""
        ...

    def exists(self, path: str) -> bool: ...

    def glob(self, pattern: str) -> list[str]:
        """Sorted relative paths, for example of "data/*/*.parquet"."""
        ...

    def prefetch(self, paths: Sequence[str]) -> None:
        """These files are wanted soon. Returns at once, never fails."""
        ...

    def identity(self) -> str:
        """A stable name of the source (a path, repo@revision, a URL): half of every cache key."""
        ...


@dataclass(frozen=True)
class LocalStorage:
    """A dataset in a folder of this machine, or of a file system that every machine mounts at the same path."""

    root: Path

    def local(self, path: str) -> Path:
        full = self.root / path
        if not full.is_file():
            raise StorageError(
                f"{full} is missing. Copy it there, or remove the folder {self.root} and fetch the dataset again."
            )
        return full

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def glob(self, pattern: str) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))

    def prefetch(self, paths: Sequence[str]) -> None:
        """Nothing to fetch; the page cache does the rest."""

    def identity(self) -> str:
        return str(self.root)


def open_storage(
    repo_id: str,
    *,
    root: str | Path | None = None,
    revision: str | None = None,
    files_budget_bytes: int | None = None,
) -> Storage:
    """The storage of a dataset.

    `root` is a folder or a URL (s3://, gs://, memory:// …). Without it, the copy in `$HF_LEROBOT_HOME/<repo_id>` is
    taken if there is one, otherwise the Hub. Asking for a `revision` without a `root` always means the Hub: a local
    copy does not know which revision it is. `files_budget_bytes`: what fetched files may take on each node; None: see
    `file_cache`.
    """
    if root is not None and "://" in str(root):
        from lerobot_ray.data.remote import FileCache, ObjectStorage

        return ObjectStorage(str(root).rstrip("/"), cache=FileCache(budget_bytes=files_budget_bytes))
    if root is not None:
        folder = Path(root).expanduser().absolute()
        if not folder.is_dir():
            raise DatasetError(
                f"{repo_id}: there is no folder {folder}. Correct dataset.root, or leave it out to use "
                f"{lerobot_home() / repo_id} or the Hub."
            )
        return LocalStorage(folder)
    if not repo_id:
        raise DatasetError("Which dataset? Give dataset.repo_id (user/name on the Hub) or dataset.root (a folder).")
    recorded = lerobot_home() / repo_id
    if revision is None and (recorded / INFO_PATH).is_file():
        return LocalStorage(recorded)

    from lerobot_ray.data.remote import FileCache, HubStorage

    return HubStorage(repo_id, revision, cache=FileCache(budget_bytes=files_budget_bytes))


def lerobot_home() -> Path:
    """LeRobot's folder of local datasets, read from the environment as LeRobot reads it."""
    if home := os.environ.get("HF_LEROBOT_HOME"):
        return Path(home).expanduser()
    hf_home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(hf_home).expanduser() / "lerobot"


def cache_home() -> Path:
    """This machine's folder for converted and fetched files: `$LEROBOT_RAY_CACHE`, or `~/.cache/lerobot_ray`."""
    if home := os.environ.get("LEROBOT_RAY_CACHE"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lerobot_ray"
