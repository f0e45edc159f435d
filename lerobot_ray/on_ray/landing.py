"""Memory of a training process that decode actors of its node write blocks into: nobody copies what lies there.

The way through Ray's object store costs a decode actor one copy of every frame. Here the training process makes a few
places without a name in any file system, an actor of the same node opens them through `/proc`, decodes a block into one
and sends no more than its number. On any other node, and when no place is free, blocks travel through the object store.

    state of a place    0              free
                        a process id   being written by that actor
                        -1 - number    holds that block, until the training process has no view of it any more

An actor takes a place under a lock and the training process alone frees one, so a place has one owner at a time. One
whose actor was killed in the middle of writing is free for the next. The memory goes when its last process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerobot_ray.core.errors import StreamError

NAME = "lerobot_ray-landing"
_FREE = 0


@dataclass(frozen=True)
class LandingAddress:
    """Where an actor finds the places. Picklable."""

    node_id: str
    pid: int
    files: tuple[tuple[int, int], ...]
    """(descriptor in that process, inode) of the states, then of every place."""
    place_bytes: int


class LandingPlaces:
    """The training process's side."""

    def __init__(self, count: int, place_bytes: int, *, node_id: str) -> None:
        """OSError when the system does not give them."""
        place_bytes = -(-place_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._fds: list[int] = []
        try:
            for size in (8 * count, *[place_bytes] * count):
                self._fds.append(os.memfd_create(NAME))
                os.ftruncate(self._fds[-1], size)
            self._states = np.frombuffer(mmap.mmap(self._fds[0], 8 * count), np.int64)
            self._places = [mmap.mmap(fd, place_bytes, access=mmap.ACCESS_READ) for fd in self._fds[1:]]
        except OSError:
            self.close()
            raise
        files = tuple((fd, os.fstat(fd).st_ino) for fd in self._fds)
        self.address = LandingAddress(node_id, os.getpid(), files, place_bytes)

    @property
    def num_bytes(self) -> int:
        return self.address.place_bytes * len(self._places)

    def view(self, place: int, number: int) -> np.ndarray:
        """The bytes of a place that holds block `number`, read-only. It is free when the last view of them is gone."""
        if self._states[place] != -1 - number:
            raise StreamError(f"block {number} is not where its decode actor put it. This is a bug; please report it.")
        # Every view keeps this array alive, whoever's it is; nothing refers to the memory but through it.
        owner = np.frombuffer(self._places[place], np.uint8)
        weakref.finalize(owner, _free, self._states, place).atexit = False
        return owner

    def close(self) -> None:
        """No actor finds the places from here on. Views stay valid."""
        while self._fds:
            os.close(self._fds.pop())


def _free(states: np.ndarray, place: int) -> None:
    states[place] = _FREE


class Landing:
    """A decode actor's side."""

    def __init__(self, address: LandingAddress) -> None:
        """OSError when the places cannot be reached from here."""
        with contextlib.ExitStack() as opened:
            fds = [opened.enter_context(_opened(address.pid, *file)) for file in address.files]
            self._lock = os.dup(fds[0])
            count = len(fds) - 1
            self._states = np.frombuffer(mmap.mmap(fds[0], 8 * count), np.int64)
            self._places = [mmap.mmap(fd, address.place_bytes) for fd in fds[1:]]
        for memory in self._places:
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):
                    memory.madvise(mmap.MADV_HUGEPAGE)

    @classmethod
    def reached(cls, address: LandingAddress | None, *, node_id: str) -> Landing | None:
        """The places of a training process, if it is one of this node."""
        if address is None or address.node_id != node_id:
            return None
        with contextlib.suppress(OSError):  # another user's, another container's, or gone
            return cls(address)
        return None

    def take(self) -> int | None:
        """A place for this process to write; None when all are in use."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            for place, state in enumerate(self._states.tolist()):
                if state == _FREE or (state > 0 and not os.path.exists(f"/proc/{state}")):
                    self._states[place] = os.getpid()
                    return place
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        return None

    def memory(self, place: int) -> mmap.mmap:
        """What to write into between `take` and `hand_over` or `give_back`."""
        return self._places[place]

    def hand_over(self, place: int, number: int) -> None:
        """Block `number` is whole."""
        self._states[place] = -1 - number

    def give_back(self, place: int) -> None:
        """Nothing of use was written."""
        self._states[place] = _FREE


@contextlib.contextmanager
def _opened(pid: int, fd: int, inode: int) -> Iterator[int]:
    """The memory behind another process's descriptor, if it still is the one that was meant."""
    path = Path(f"/proc/{pid}/fd/{fd}")
    if not os.readlink(path).startswith(f"/memfd:{NAME}"):  # before opening: a number is used again for anything
        raise FileNotFoundError(path)
    own = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(own).st_ino != inode:
            raise FileNotFoundError(path)
        yield own
    finally:
        os.close(own)
