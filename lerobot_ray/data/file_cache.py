"""Files fetched from elsewhere, kept on this node within a byte budget and shared by all its processes.

Below one folder: the files themselves, `.partial` (downloads under way), `.lease` (who uses what), `.notes` (listings).
There is no index to go stale: accounting is a listing, and every claim is an flock, which the kernel drops when a
process dies, however it dies.

- A file appears under its name whole or not at all: written beside, checked, fsynced, renamed.
- One process per node downloads a file; the others wait for it and use the same copy. What a killed one left is
  continued or thrown away by the next.
- Over the budget, the files longest unused go first, never one that a process holds a lease on. A process holds leases
  on the files it was handed last (`max_leases` of them). If all that is left is leased, the budget is exceeded with a
  warning: a run that needs more than its budget is slow to notice otherwise, and worse to stop.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from lerobot_ray.core.errors import ConfigError, StorageError
from lerobot_ray.data.storage import cache_home

logger = logging.getLogger(__name__)

BUDGET_VARIABLE = "LEROBOT_RAY_FILES_BUDGET_BYTES"
Fetch = Callable[[FileIO], None]
"""Completes the open, unbuffered file, which may hold the beginning that an interrupted download left."""


class FileCache:
    """One node's fetched files. Pickles without its leases: in another process it is the same folder, used afresh."""

    def __init__(
        self, root: str | Path | None = None, *, budget_bytes: int | None = None, max_leases: int = 32
    ) -> None:
        """`root` defaults to `$LEROBOT_RAY_CACHE/files` of the machine it is used on; `budget_bytes` to
        `$LEROBOT_RAY_FILES_BUDGET_BYTES` there, or no limit."""
        if budget_bytes is not None and budget_bytes <= 0:
            raise ConfigError(
                f"The file cache budget is {budget_bytes} bytes. Give it a positive size, or none at all."
            )
        self._root, self._budget_bytes, self.max_leases = root, budget_bytes, max_leases
        self._leases: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self._warned = False

    def __reduce__(self):
        return _rebuild, (self._root, self._budget_bytes, self.max_leases)

    @property
    def root(self) -> Path:
        return Path(self._root).expanduser() if self._root is not None else cache_home() / "files"

    @property
    def budget_bytes(self) -> int | None:
        if self._budget_bytes is not None:
            return self._budget_bytes
        text = os.environ.get(BUDGET_VARIABLE)
        if not text:
            return None
        if not text.isdigit() or int(text) == 0:
            raise ConfigError(f"{BUDGET_VARIABLE}={text!r} is not a number of bytes, for example 200000000000.")
        return int(text)

    def get(self, key: str, fetch: Fetch, *, size_bytes: int, for_later: bool = False) -> Path:
        """The file's path, fetched first if it is not here. This process then holds a lease on it for a while.

        `key` is a relative path that names the content: the same key always means the same bytes. `for_later`: hold no
        lease, and do not wait for another process that is fetching it.
        """
        path = self.root / key
        if not for_later and self._leased_here(key, path):
            return path
        lease = _lock(self._lease_path(key), fcntl.LOCK_SH)
        try:
            while not _touch(path):
                try:
                    self._fetch(key, path, fetch, size_bytes, fcntl.LOCK_EX | (fcntl.LOCK_NB if for_later else 0))
                except BlockingIOError:  # only with LOCK_NB: it is on its way
                    break
        except BaseException:
            os.close(lease)
            raise
        if for_later:
            os.close(lease)
        else:
            self._keep_lease(key, lease)
        return path

    def has(self, key: str) -> bool:
        return (self.root / key).is_file()

    def release(self) -> None:
        """Give up every lease of this process: its files may be removed from now on."""
        with self._lock:
            while self._leases:
                os.close(self._leases.popitem()[1])

    def usage_bytes(self) -> int:
        """What the whole files take. Downloads under way are not counted."""
        return sum(size for _, size, _ in self._files())

    # Notes: small documents that are made once per node and not counted

    def note(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The note `name`, made first if there is none. One process makes it, the others wait."""
        if (text := self.read_note(name)) is not None:
            return text
        with _locked(self._note_path(name + ".lock")):
            if (text := self.read_note(name)) is not None:
                return text
            text = make()
            self.write_note(name, text)
            return text

    def read_note(self, name: str) -> bytes | None:
        try:
            return self._note_path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write_note(self, name: str, text: bytes) -> None:
        path = self._note_path(name)
        beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)

    # Fetching

    def _fetch(self, key: str, path: Path, fetch: Fetch, size_bytes: int, how: int) -> None:
        """Bring the file here, or find that another process just did."""
        partial = self.root / ".partial" / f"{key}.{size_bytes}"
        descriptor = _lock(partial, how)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            if path.exists():
                partial.unlink(missing_ok=True)
                return
            self._make_room(size_bytes, mine=partial)
            try:
                fetch(file)
                with writing(partial):
                    os.fsync(descriptor)
                if (size := os.fstat(descriptor).st_size) != size_bytes:
                    file.truncate(0)
                    raise StorageError(f"{key}: fetched {size} bytes where {size_bytes} were announced.")
            except BaseException:
                if os.fstat(descriptor).st_size == 0:  # nothing to continue from
                    partial.unlink(missing_ok=True)
                raise
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial, path)
                _sync_folder(path.parent)

    def _make_room(self, wanted_bytes: int, *, mine: Path) -> None:
        """Remove what was longest unused until `wanted_bytes` fit beside the rest and the downloads under way."""
        budget = self.budget_bytes
        if budget is None:
            return
        if wanted_bytes > budget:
            raise StorageError(
                f"{mine.name.rpartition('.')[0]} has {wanted_bytes:,} bytes, the file cache {self.root} a budget of "
                f"{budget:,}. Raise the budget, or leave it out to use what the disk has."
            )
        with _locked(self.root / ".room.lock"):
            files = sorted(self._files())
            partials = [partial for partial in self._partials() if partial[0] != mine]
            excess = sum(size for _, size, _ in files) + sum(size for _, size, _ in partials) + wanted_bytes - budget
            for path, size, is_abandoned in partials:
                if excess > 0 and is_abandoned and _remove_unless_locked(path, path):
                    excess -= size
            for _, size, path in files:
                if excess <= 0:
                    return
                if _remove_unless_locked(path, self._lease_path(path.relative_to(self.root).as_posix())):
                    logger.debug("removed %s from the file cache", path)
                    excess -= size
        if excess > 0 and not self._warned:
            self._warned = True
            logger.warning(
                "The files in use take %s bytes more than the budget of the file cache %s (%s bytes). "
                "The run goes on; raise the budget to what the disk has, or lower the number of readers.",
                f"{excess:,}",
                self.root,
                f"{budget:,}",
            )

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(last use in ns, size, path) of every whole file."""
        for folder, folders, names in os.walk(self.root):
            if folder == str(self.root):
                folders[:] = [name for name in folders if not name.startswith(".")]
                names = [name for name in names if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    yield stat.st_atime_ns, stat.st_size, path

    def _partials(self) -> Iterator[tuple[Path, int, bool]]:
        """(path, bytes, is abandoned): what each download under way will take, what each abandoned one left."""
        for folder, _, names in os.walk(self.root / ".partial"):
            for name in names:
                path = Path(folder, name)
                try:
                    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield path, os.fstat(descriptor).st_size, True
                except BlockingIOError:
                    yield path, int(name.rpartition(".")[2]), False
                finally:
                    os.close(descriptor)

    # Leases

    def _leased_here(self, key: str, path: Path) -> bool:
        with self._lock:
            if key not in self._leases:
                return False
            self._leases.move_to_end(key)
        return _touch(path)

    def _keep_lease(self, key: str, lease: int) -> None:
        with self._lock:
            if (old := self._leases.pop(key, None)) is not None:
                os.close(old)
            self._leases[key] = lease
            while len(self._leases) > self.max_leases:
                os.close(self._leases.popitem(last=False)[1])

    def _lease_path(self, key: str) -> Path:
        return self.root / ".lease" / key

    def _note_path(self, name: str) -> Path:
        return self.root / ".notes" / name


def _rebuild(root: str | Path | None, budget_bytes: int | None, max_leases: int) -> FileCache:
    return FileCache(root, budget_bytes=budget_bytes, max_leases=max_leases)


def _lock(path: Path, how: int) -> int:
    """Open `path`, made if need be, and flock it. Close the descriptor to let go.

    A lock file may be renamed or removed by its holder, so the lock counts only if the name still means this file.
    """
    while True:
        with writing(path):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                continue
        try:
            fcntl.flock(descriptor, how)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove_unless_locked(path: Path, lock_path: Path) -> bool:
    """Remove `path` and its lock file (which may be itself), unless somebody holds the lock."""
    try:
        descriptor = _lock(lock_path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        path.unlink(missing_ok=True)
        lock_path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return True


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn what the disk says into a StorageError with a remedy."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}. Free space on this disk, give the file cache a smaller "
            f"budget, or set LEROBOT_RAY_CACHE to a folder elsewhere."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def _touch(path: Path) -> bool:
    """Note that the file was used now; False if there is none. Set by hand: many file systems skip access times."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
