"""One chunk file of the frame cache: the frames of some consecutive rows of one camera, and which of them are there.

    byte 0             1 while the chunk is alive, 0 once it was evicted
    byte 64 …          a byte per slot: 0, or 1 + the tag of the frame that is there
    byte 4096 …        the frames, slot after slot

Read through a memory map, written with `pwrite`: that reports a full file system, where a store to the map would kill
the process. A slot's byte is written after its frame, so a writer killed at any instant leaves a slot that counts as
empty. Who touches frames holds the file's shared lock; an evictor takes the exclusive one, says so in byte 0 and cuts
the file down to its first page, which stays readable for those who still have it mapped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER_BYTES = 4096
PRESENCE_AT = 64
MAX_ROWS = HEADER_BYTES - PRESENCE_AT
SUFFIX = ".frames"
LAYOUT_NAME = "layout.json"
TOUCH_S = 0.5
"""How often a process notes that it uses a chunk."""


@dataclass(frozen=True)
class ChunkLayout:
    """What all chunk files of one camera have in common."""

    folder: Path
    rows: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def frame_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Whole pages: what the file takes at most."""
        return HEADER_BYTES + -(-self.rows * self.frame_bytes // HEADER_BYTES) * HEADER_BYTES

    def path(self, chunk: int) -> Path:
        return self.folder / f"{chunk:08d}{SUFFIX}"


def load_layout(folder: Path) -> ChunkLayout | None:
    """The layout that the first process to keep a frame of this camera wrote down."""
    try:
        said = json.loads((folder / LAYOUT_NAME).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(f"{folder / LAYOUT_NAME} is damaged ({error})") from error
    return ChunkLayout(folder, said["rows"], tuple(said["shape"]), np.dtype(said["dtype"]))


def save_layout(layout: ChunkLayout) -> ChunkLayout:
    """Writes the layout down, unless another process was first: returns the one that holds."""
    layout.folder.mkdir(exist_ok=True)
    own = layout.folder / f"{LAYOUT_NAME}.{os.getpid()}"
    own.write_text(json.dumps({"rows": layout.rows, "shape": layout.shape, "dtype": layout.dtype.str}))
    with contextlib.suppress(FileExistsError):
        os.link(own, layout.folder / LAYOUT_NAME)  # all of it or nothing, and only if there is none
    own.unlink()
    return load_layout(layout.folder) or layout


def new_header() -> bytes:
    return b"\1" + bytes(HEADER_BYTES - 1)


class Chunk:
    """An open chunk file."""

    def __init__(self, fd: int, map_: mmap.mmap, layout: ChunkLayout) -> None:
        self._fd, self._map, self._touched_at = fd, map_, 0.0
        self._layout = layout
        self._header = np.frombuffer(map_, np.uint8, HEADER_BYTES)
        self.presence = self._header[PRESENCE_AT : PRESENCE_AT + layout.rows]
        """(rows,) uint8, live: what is written by anyone shows."""
        count = layout.rows * int(np.prod(layout.shape, dtype=np.int64))
        self.frames = np.frombuffer(map_, layout.dtype, count, HEADER_BYTES).reshape(layout.rows, *layout.shape)
        """(rows, *shape), live; to be touched only under `locked` while the chunk is alive."""

    @property
    def is_alive(self) -> bool:
        return bool(self._header[0])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody evicts the chunk in here; whether it still is alive is to be asked in here, too."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def locked_for_writing(self) -> Iterator[None]:
        """No other process writes to the chunk in here. A record lock: it and flock's do not know of each other."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, 0)

    def write(self, slot: int, frames: np.ndarray, marks: np.ndarray) -> None:
        """Frames of consecutive slots, then their presence bytes. Under both locks, to empty slots only."""
        _write_all(self._fd, frames, HEADER_BYTES + slot * self._layout.frame_bytes)
        _write_all(self._fd, marks, PRESENCE_AT + slot)

    def touch(self) -> None:
        """Notes that the chunk is in use: its modification time is what eviction goes by."""
        now = time.monotonic()
        if now - self._touched_at > TOUCH_S:
            self._touched_at = now
            os.utime(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            # The arrays go first: a map with views on it cannot be closed.
            del self.frames, self.presence, self._header
            self._map.close()

    def __del__(self) -> None:
        self.close()


def is_whole(path: Path, chunk_bytes: int) -> bool:
    """Whether there is a chunk file that was finished and not evicted since."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size == chunk_bytes and file.read(1) == b"\1"
    except FileNotFoundError:
        return False


def open_chunk(path: Path, layout: ChunkLayout) -> Chunk | None:
    """The chunk file, or None if there is none that is finished and alive."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size != layout.chunk_bytes or os.pread(fd, 1, 0) != b"\1":
            os.close(fd)
            return None
        return Chunk(fd, mmap.mmap(fd, layout.chunk_bytes, access=mmap.ACCESS_READ), layout)
    except ValueError:  # cut down between the two looks
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise


def evict_chunk(path: Path) -> int:
    """Frees a chunk file, for those who have it open too; 0 if somebody is reading or writing it, else its bytes."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size_bytes = os.fstat(fd).st_size
        os.pwrite(fd, bytes(HEADER_BYTES), 0)
        os.ftruncate(fd, HEADER_BYTES)
        os.unlink(path)
        return size_bytes
    except BlockingIOError:
        return 0
    finally:
        os.close(fd)


def _write_all(fd: int, array: np.ndarray, at: int) -> None:
    data = array.reshape(-1).view(np.uint8).data
    while len(data):
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
