"""What every remote storage shares: a listing of its files, and a node-local copy of those that were asked for.

A kind of storage says what there is (`_list`), brings one file's bytes (`_download`) and checks them (`_verify`). The
rest (one download per node, retries, budget, look-ahead, clear errors) is here and in `file_cache`.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any

from lerobot_ray.core.errors import StorageError, nearest
from lerobot_ray.data.file_cache import FileCache, writing
from lerobot_ray.data.lookahead import LookAhead
from lerobot_ray.data.retry import RetryPolicy, TransientError, call_with_retries

PROGRESS_FROM_BYTES = 50_000_000
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """One file as the listing describes it."""

    size_bytes: int
    content: str
    """Names these bytes and no others: a digest, or what the store has in its place. Safe as a file name."""


class RemoteStorage(ABC):
    """A `Storage` whose files are elsewhere. Pickles without connections, credentials, leases or threads."""

    def __init__(
        self, *, cache: FileCache | None = None, retry: RetryPolicy | None = None, look_ahead_parallel: int = 4
    ) -> None:
        self.cache, self.retry = cache or FileCache(), retry or RetryPolicy()
        self._parallel = look_ahead_parallel
        self._files: Mapping[str, RemoteFile] | None = None
        self._ahead: LookAhead | None = None
        self._ahead_bytes: dict[str, int] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        return {**state, "_ahead": None, "_ahead_bytes": {}, "_files": self._travelling_listing()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    # Storage

    def local(self, path: str) -> Path:
        """A local path of the whole file, fetched if need be. Raises StorageError naming the file."""
        self._ahead_bytes.pop(path, None)
        return self._get(path)

    def exists(self, path: str) -> bool:
        return path in self.files()

    def glob(self, pattern: str) -> list[str]:
        """Sorted relative paths; `*` stays within one folder, `**` is any number of folders."""
        wanted = _glob_pattern(pattern)
        return sorted(path for path in self.files() if wanted.fullmatch(path))

    def prefetch(self, paths: Sequence[str]) -> None:
        """These files are wanted soon. Returns at once, never fails.

        Under a budget, what was fetched ahead and not asked for yet stays below a quarter of it: more would push out
        what is in use.
        """
        with self._lock:
            if self._ahead is None:
                self._ahead = LookAhead(self._fetch_ahead, parallel=self._parallel)
            # What an earlier call wanted and this one does not has been read by others or skipped.
            self._ahead_bytes = {path: size for path, size in self._ahead_bytes.items() if path in set(paths)}
        self._ahead.add(paths)

    @abstractmethod
    def identity(self) -> str:
        """A stable name of the source: half of every cache key."""

    # For the kinds of storage

    @abstractmethod
    def _list(self) -> Mapping[str, RemoteFile]:
        """All files. Called once per process."""

    @abstractmethod
    def _download(self, path: str, file: RemoteFile, sink: Sink) -> None:
        """Write the bytes from `sink.position` on. Raises TransientError for what may pass, else StorageError."""

    @abstractmethod
    def _verify(self, path: str, file: RemoteFile, content: FileIO) -> str:
        """Why the complete content is not what the listing promised, or ""."""

    @abstractmethod
    def _folder(self) -> str:
        """The folder of this source in the file cache: one name, no slashes."""

    def _already_here(self, path: str) -> Path | None:
        """A copy outside the file cache that may be used as it is."""
        return None

    def _travelling_listing(self) -> Mapping[str, RemoteFile] | None:
        """The part of the listing that pickles with the storage."""
        return None

    def files(self) -> Mapping[str, RemoteFile]:
        """Relative path -> size and content of every file."""
        if self._files is None:
            self._files = self._list()
        return self._files

    def __str__(self) -> str:
        return self.identity()

    # Fetching

    def _get(self, path: str, *, for_later: bool = False) -> Path:
        if here := self._already_here(path):
            return here
        file = self.files().get(path)
        if file is None:
            near = nearest(path, self.files())
            raise StorageError(f"{self} has no file {path}." + (f" Did you mean {near}?" if near else ""))
        return self.cache.get(
            self._key(path, file),
            lambda content: self._complete(path, file, content),
            size_bytes=file.size_bytes,
            for_later=for_later,
        )

    def _key(self, path: str, file: RemoteFile) -> str:
        return f"{self._folder()}/{file.content}{PurePosixPath(path).suffix}"

    def _complete(self, path: str, file: RemoteFile, content: FileIO) -> None:
        """Bring `content` to what the listing promised, with as many attempts as it takes."""
        check = self._ahead.check if self._ahead else lambda: None
        sink = Sink(content, f"{self.cache.root}: the copy of {path}", check=check, bar=_progress_bar(path, file))

        def attempt() -> None:
            before = sink.position
            if before > file.size_bytes:
                sink.truncate()
            if sink.position < file.size_bytes:
                try:
                    self._download(path, file, sink)
                except TransientError as error:
                    error.progressed = sink.position > before
                    raise
            if sink.position != file.size_bytes:
                progressed = before < sink.position < file.size_bytes
                raise TransientError(f"got {sink.position} of {file.size_bytes} bytes", progressed=progressed)
            content.seek(0)
            if reason := self._verify(path, file, content):
                sink.truncate()
                raise TransientError(reason)

        try:
            call_with_retries(attempt, what=f"{self}: {path}", policy=self.retry, check=check)
        except TransientError as error:
            raise StorageError(
                f"{self}: {path} could not be fetched: {error} (tried {self.retry.attempts} times). Check the "
                f"connection of this machine and run again."
            ) from error
        finally:
            sink.close_bar()

    def _fetch_ahead(self, path: str) -> None:
        file = self.files().get(path)
        if file is None or self._already_here(path) or self.cache.has(self._key(path, file)):
            return
        if (budget := self.cache.budget_bytes) is not None:
            if sum(self._ahead_bytes.copy().values()) + file.size_bytes > budget // 4:
                return
            self._ahead_bytes[path] = file.size_bytes
        self._get(path, for_later=True)


class Sink:
    """The local end of a download: appends, and tells a failing disk from a failing network."""

    def __init__(self, content: FileIO, path: str, *, check: Callable[[], None], bar: Any = None) -> None:
        self._content, self._path, self._check, self._bar = content, path, check, bar
        self.position = content.seek(0, os.SEEK_END)
        if bar is not None:
            bar.update(self.position)

    def write(self, chunk: bytes) -> None:
        self._check()
        with writing(self._path):
            self._content.seek(self.position)
            view = memoryview(chunk)
            while view:  # the file is unbuffered, a write may be short
                view = view[self._content.write(view) :]
        self.position += len(chunk)
        if self._bar is not None:
            self._bar.update(len(chunk))

    def truncate(self) -> None:
        """Start over."""
        self._content.seek(0)
        self._content.truncate(0)
        self.position = 0
        if self._bar is not None:
            self._bar.reset()

    def close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _progress_bar(path: str, file: RemoteFile) -> Any:
    """A bar for a big file that somebody at a terminal is waiting for; None otherwise."""
    is_watched = threading.current_thread() is threading.main_thread() and sys.stderr.isatty()
    if file.size_bytes < PROGRESS_FROM_BYTES or not is_watched or os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        return None
    from tqdm import tqdm

    return tqdm(total=file.size_bytes, unit="B", unit_scale=True, desc=path, leave=False)


def _glob_pattern(pattern: str) -> re.Pattern[str]:
    parts = []
    for segment in pattern.split("/"):
        if segment == "**":
            parts.append("(?:[^/]+/)*")
            continue
        pieces = re.split(r"([*?])", segment)
        parts.append("".join({"*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece)) for piece in pieces) + "/")
    return re.compile("".join(parts).removesuffix("/"))
