"""Who uses a node's frame cache and how many bytes it holds: leases, one budget over all processes, eviction.

A space is a folder that all processes of one user on one node share:

    <base>/frames-<user>-<host>-<boot>/   below /dev/shm for a memory cache, below the given folder for a disk cache
        state                             bytes in use; every change happens under its lock
        <hash of the namespace>/          one dataset in one pixel format
            lease                         its users hold a shared lock on it for as long as they live
            name                          the namespace in words
            <camera>/…                    chunk files, which `cache` reads and writes

Locks are flock's: the kernel drops them when a process dies, however it dies. Three promises rest on that. Nobody
deletes a namespace with a living user. Nobody evicts a chunk file while another process holds a lock on it. Whoever
dies in the middle of a change leaves the state marked as changing, and the next one to lock it counts the files anew.

The boot is part of the name because bytes written to a disk before a power cut may be half there; the host, because a
folder may turn out to be shared between nodes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import socket
import struct
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lerobot_ray.core.errors import StorageError
from lerobot_ray.data.cache_chunk import SUFFIX, evict_chunk, is_whole

logger = logging.getLogger(__name__)

CacheKind = Literal["memory", "disk"]
Eviction = Literal["keep", "lru"]

FREE_SHARE = 0.05
"""Of the file system, left to others: Ray's object store lives on /dev/shm too, and dies when that is full."""

_STATE = struct.Struct("<8sqq")  # magic, 1 while being changed, bytes in use
_CHANGING_AT = 8
_MAGIC = b"LRFRAME1"


class CacheSpace:
    """One process's share in a space, for one namespace. `release` it; a process that dies releases it too."""

    def __init__(self, kind: CacheKind, namespace: str, *, budget_bytes: int, base: Path | None, eviction: Eviction):
        self.kind, self.namespace, self.budget_bytes, self.eviction = kind, namespace, budget_bytes, eviction
        self.is_kept = kind == "disk" and _boot_id() != ""
        self.root = space_root(kind, base)
        self.folder = self.root / hashlib.sha256(namespace.encode()).hexdigest()[:16]
        self._has_warned = False
        try:
            lease_fd = self._take_lease()
            self._finalizer = weakref.finalize(self, _release, os.getpid(), lease_fd, self.folder, self.is_kept)
            _purge_other_boots(self.root)
            if not self.is_kept:
                purge_unused(
                    self.root
                )  # not this namespace: what a dead run of the same dataset left is as good as new
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"no frame cache can be made in {self.root} ({error}). Set dataset.cache_dir."
            ) from error

    def release(self) -> None:
        """Gives the lease back; the last user of a memory cache removes it."""
        self._finalizer()

    @property
    def used_bytes(self) -> int:
        """Bytes of all namespaces in the space, allocated or promised."""
        with _locked_state(self.root) as state:
            return state.used_bytes

    def create(self, path: Path, size_bytes: int, header: bytes) -> bool:
        """A chunk file of zeros after `header`, if the budget has or makes room for it. True too if it exists by now.

        OSError when the file system refuses.
        """
        with _locked_state(self.root) as state:
            if path.exists():
                if is_whole(path, size_bytes):
                    return True
                state.changing()
                state.used_bytes -= path.stat().st_size
                path.unlink()
            if not self._make_room(state, size_bytes):
                return False
            state.changing()
            with open(path, "wb") as file:
                file.write(header)
                file.truncate(size_bytes)  # last: a file of another size is none
            state.used_bytes += size_bytes
            return True

    def _take_lease(self) -> int:
        while True:
            with contextlib.suppress(FileNotFoundError):  # removed in between by its last user
                _private_folder(self.root)
                self.folder.mkdir(exist_ok=True)
                fd = _locked_fd(self.folder / "lease", fcntl.LOCK_SH)
                os.utime(fd)
                (self.folder / "name").write_text(self.namespace)
                return fd

    def _make_room(self, state: _State, size_bytes: int) -> bool:
        stat = os.statvfs(self.root)
        if stat.f_bavail * stat.f_frsize - size_bytes < FREE_SHARE * stat.f_blocks * stat.f_frsize:
            if not self._has_warned:
                logger.warning("the frame cache stops at %d bytes: %s is nearly full", state.used_bytes, self.root)
            self._has_warned = True
            return False
        for folder in _namespaces(self.root) if state.used_bytes + size_bytes > self.budget_bytes else ():
            if folder != self.folder:
                _remove_if_unused(folder, state)
        if self.eviction == "lru" and state.used_bytes + size_bytes > self.budget_bytes:
            for _, path in sorted((file.stat().st_mtime_ns, file) for file in _chunk_files(self.root)):
                state.changing()
                state.used_bytes -= evict_chunk(path)
                if state.used_bytes + size_bytes <= self.budget_bytes:
                    break
        return state.used_bytes + size_bytes <= self.budget_bytes


def default_base(kind: CacheKind) -> Path:
    """Where caches of this kind lie when no folder is given: one of the user's own."""
    in_memory = Path("/dev/shm")
    parent = in_memory if kind == "memory" and os.access(in_memory, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"lerobot_ray-{os.getuid()}"


def space_root(kind: CacheKind, base: Path | None) -> Path:
    """This node's space below `base`, or below the default place for its kind."""
    base = base if base is not None else default_base(kind)
    return base / f"frames-{os.getuid()}-{socket.gethostname()}-{_boot_id()[:8] or 'boot'}"


def purge_unused(root: Path) -> int:
    """Removes every namespace of a space that no living process uses; how many bytes that freed.

    Openers of a memory cache call it; so may whoever has just ended processes that had no chance to say good-bye.
    """
    if not root.is_dir():
        return 0
    with contextlib.suppress(FileNotFoundError), _locked_state(root) as state:
        before = state.used_bytes
        for folder in _namespaces(root):
            _remove_if_unused(folder, state)
        return before - state.used_bytes
    return 0


class _State:
    """The counted bytes of a space, while this process holds its lock."""

    def __init__(self, root: Path, fd: int) -> None:
        self._fd, self._is_changing = fd, False
        raw = os.pread(fd, _STATE.size, 0)
        magic, is_changing, self.used_bytes = _STATE.unpack(raw) if len(raw) == _STATE.size else (b"", 1, 0)
        if magic != _MAGIC or is_changing:
            self.used_bytes = _recount(root)
            self._is_changing = True

    def changing(self) -> None:
        """From here to the end of the lock the count on disk is not to be trusted."""
        if not self._is_changing:
            os.pwrite(self._fd, b"\1", _CHANGING_AT)
        self._is_changing = True

    def finish(self) -> None:
        """The count is to be trusted again."""
        if self._is_changing:
            os.pwrite(self._fd, _STATE.pack(_MAGIC, 1, self.used_bytes), 0)
            os.pwrite(self._fd, b"\0", _CHANGING_AT)  # by itself, and last
        self._is_changing = False


@contextlib.contextmanager
def _locked_state(root: Path) -> Iterator[_State]:
    fd = _locked_fd(root / "state", fcntl.LOCK_EX)
    try:
        state = _State(root, fd)
        yield state
        state.finish()  # not when an error came by: the next one counts
    finally:
        os.close(fd)


def _locked_fd(path: Path, mode: int) -> int:
    """An open, locked file that still is the one at `path`."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, mode)
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _recount(root: Path) -> int:
    return sum(file.stat().st_size for file in _chunk_files(root))


def _chunk_files(root: Path) -> list[Path]:
    return list(root.glob(f"*/*/*{SUFFIX}"))


def _namespaces(root: Path) -> list[Path]:
    """Namespace folders, the one leased longest ago first."""
    folders = [folder for folder in root.iterdir() if folder.is_dir()]
    return sorted(
        folders, key=lambda folder: (folder / "lease").stat().st_mtime_ns if (folder / "lease").exists() else 0
    )


def _remove_if_unused(folder: Path, state: _State) -> None:
    """Removes a namespace nobody leases. The state's lock keeps other removers away, the lease's lock new users."""
    try:
        fd = _locked_fd(folder / "lease", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    try:
        state.changing()
        for file in folder.glob(f"*/*{SUFFIX}"):
            size_bytes = file.stat().st_size
            file.unlink()
            state.used_bytes -= size_bytes
        for inside in folder.iterdir():
            if inside.is_dir():
                shutil.rmtree(inside, ignore_errors=True)
            elif inside.name != "lease":
                inside.unlink()
        (folder / "lease").unlink()
        with contextlib.suppress(OSError):  # a new user may have come by
            folder.rmdir()
    finally:
        os.close(fd)


def _release(pid: int, lease_fd: int, folder: Path, is_kept: bool) -> None:
    os.close(lease_fd)
    if os.getpid() != pid:  # a forked child's copy: the lease is its parent's, and so is what follows
        return
    if not is_kept and folder.parent.is_dir():
        with contextlib.suppress(OSError), _locked_state(folder.parent) as state:
            if folder.is_dir():
                _remove_if_unused(folder, state)
            if not _namespaces(folder.parent):
                (folder.parent / "state").unlink()
                folder.parent.rmdir()


def _purge_other_boots(root: Path) -> None:
    own, dash, _ = root.name.rpartition("-")
    for folder in root.parent.iterdir():
        if folder.name != root.name and folder.name.rpartition("-")[:2] == (own, dash):
            logger.info("removing the frame cache of an earlier boot, %s", folder)
            shutil.rmtree(folder, ignore_errors=True)


def _private_folder(root: Path) -> None:
    """Makes the folder, and refuses one that another user put there: /dev/shm is open to all."""
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise StorageError(f"{root} is not this user's folder. Remove it, or set dataset.cache_dir to another one.")


def _boot_id() -> str:
    """Names the time since the machine started; "" where there is no telling."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
