"""Decoded frames, kept on a node and shared by its processes.

Decoding is the dear part of a sample; a frame found here costs one copy. Frames are keyed by (camera, global row) and
lie in files of 64 consecutive rows (`cache_chunk`); how much there may be, and who removes it, is settled among the
processes in `cache_space`. Any process may be killed at any instant: no frame is ever returned that was not written to
its end.

The cache never fails a read of the stream. Whatever the file system refuses is a miss, or a frame not kept, and one
warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.cache_chunk import MAX_ROWS, Chunk, ChunkLayout, load_layout, new_header, open_chunk, save_layout
from lerobot_ray.data.cache_space import CacheKind, CacheSpace, Eviction

logger = logging.getLogger(__name__)

CHUNK_ROWS = 64
MIN_CHUNKS = 16
"""Chunks get shorter until the budget holds so many of them."""

RETRY_S = 2.0
"""How long a process leaves a full cache alone before it asks for room again."""


@dataclass(frozen=True)
class CacheStats:
    """What one process got out of the cache, and how full it is."""

    hits: int
    misses: int
    kept: int
    """Frames this process put in."""
    refused: int
    """Frames it offered for which there was no room."""
    used_bytes: int
    """All processes and namespaces together, allocated or promised."""
    budget_bytes: int


def build_frame_cache(
    kind: str, namespace: str, *, budget_bytes: int, directory: Path | None = None, eviction: Eviction = "keep"
) -> FrameCache | None:
    """The cache that `dataset.cache` names; None for "none"."""
    if kind == "none":
        return None
    assert kind in ("memory", "disk"), kind
    return FrameCache(kind, namespace, budget_bytes=budget_bytes, directory=directory, eviction=eviction)  # type: ignore[arg-type]


class FrameCache:
    """One process's view of a node's cache for one namespace. Safe for threads; pickles as its settings."""

    def __init__(
        self,
        kind: CacheKind,
        namespace: str,
        *,
        budget_bytes: int,
        directory: Path | None = None,
        eviction: Eviction = "keep",
        max_open: int = 128,
    ) -> None:
        """`namespace` says what the frames are: dataset, revision, pixel format. Nothing else tells caches apart.

        `budget_bytes` bounds all namespaces of this user on this node together. `eviction`: "keep" admits nothing
        more when the cache is full, which is best for random orders; "lru" lets the chunk go that was unused longest,
        for orders that move through the dataset.
        """
        self._settings = (kind, namespace, budget_bytes, directory, eviction, max_open)
        self._begin()

    def get(self, camera: str, rows: np.ndarray, out: np.ndarray, tags: np.ndarray | None = None) -> np.ndarray:
        """Fills `out` (and `tags`) where a row's frame is here; bool (n,), True where it was."""
        rows = np.asarray(rows, np.int64)
        hits = np.zeros(len(rows), bool)
        with self._ready():
            layout = self._layout(camera, out)
            if layout is None:
                self._misses += len(rows)
                return hits
            for number, slots, places in _by_chunk(layout, rows):
                chunk = self._open(layout, number)
                if chunk is not None:
                    found = _copy_out(chunk, slots, places, out, tags)
                    hits[found] = True
                    if len(found) and self._space.eviction == "lru":
                        chunk.touch()
        self._hits += int(hits.sum())
        self._misses += int((~hits).sum())
        return hits

    def put(self, camera: str, rows: np.ndarray, frames: np.ndarray, tags: np.ndarray | None = None) -> int:
        """Keeps those frames that are not here yet, as far as there is room; how many it kept.

        `tags`, a number from 0 to 254 for each frame, comes back from `get` with it.
        """
        rows, frames = np.asarray(rows, np.int64), np.ascontiguousarray(frames)
        marks = np.ones(len(rows), np.uint8) if tags is None else np.asarray(tags, np.uint8) + np.uint8(1)
        assert marks.all(), "tags go up to 254"
        kept = 0
        with self._ready():
            layout = self._layout(camera, frames) or self._new_layout(camera, frames)
            if layout is None or self._is_broken:
                return 0
            for number, slots, places in _by_chunk(layout, rows):
                chunk = self._open(layout, number) or self._create(layout, number)
                if chunk is None:
                    self._refused += len(slots)
                else:
                    kept += _copy_in(chunk, slots, places, frames, marks)
        self._kept += kept
        return kept

    def stats(self) -> CacheStats:
        """Counts of this process since it opened the cache, and how full the whole is."""
        used_bytes = -1
        with self._ready():
            used_bytes = self._space.used_bytes
        return CacheStats(self._hits, self._misses, self._kept, self._refused, used_bytes, self._space.budget_bytes)

    def close(self) -> None:
        """Gives the cache back. The last process to do so removes a memory cache."""
        with self._lock:
            self._is_closed = True
            while self._chunks:
                self._chunks.popitem()[1].close()
            self._space.release()

    def __enter__(self) -> FrameCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._settings = state["_settings"]
        self._begin()

    def _begin(self) -> None:
        kind, namespace, budget_bytes, directory, eviction, self._max_open = self._settings
        self._pid, self._lock = os.getpid(), threading.RLock()
        self._hits = self._misses = self._kept = self._refused = 0
        self._ask_again_at, self._is_broken, self._is_closed = 0.0, False, False
        for inherited in getattr(self, "_chunks", {}).values():
            inherited.close()
        self._layouts: dict[str, ChunkLayout] = {}
        self._chunks: OrderedDict[Path, Chunk] = OrderedDict()
        self._space = CacheSpace(kind, namespace, budget_bytes=budget_bytes, base=directory, eviction=eviction)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        if self._pid != os.getpid():  # forked: open files and leases are the parent's, this process takes its own
            self._begin()
        with self._lock:
            assert not self._is_closed, "the frame cache is closed"
            try:
                yield
            except OSError as error:
                if not self._is_broken:
                    logger.warning(
                        "the frame cache in %s takes no more frames (%s); training goes on without. Give it less space "
                        "with dataset.cache_gb, or another folder with dataset.cache_dir.",
                        self._space.root,
                        error,
                    )
                self._is_broken = True

    def _layout(self, camera: str, frames: np.ndarray) -> ChunkLayout | None:
        layout = self._layouts.get(camera) or load_layout(self._folder(camera))
        if layout is not None:
            self._layouts[camera] = layout
            if (frames.shape[1:], frames.dtype) != (layout.shape, layout.dtype):
                raise DatasetError(
                    f"frames of {camera} are {frames.dtype}{frames.shape[1:]}, but {layout.dtype}{layout.shape} in the "
                    f"cache of {self._space.namespace!r}, {layout.folder}. A camera has one shape; frames of another "
                    "dataset or pixel format need another namespace."
                )
        return layout

    def _new_layout(self, camera: str, frames: np.ndarray) -> ChunkLayout | None:
        if not len(frames):
            return None
        layout = ChunkLayout(self._folder(camera), CHUNK_ROWS, frames.shape[1:], frames.dtype)
        rows = min(self._space.budget_bytes // MIN_CHUNKS // max(layout.frame_bytes, 1), CHUNK_ROWS, MAX_ROWS)
        layout = ChunkLayout(layout.folder, max(rows, 1), layout.shape, layout.dtype)
        self._layouts[camera] = save_layout(layout)
        return self._layout(camera, frames)

    def _folder(self, camera: str) -> Path:
        return self._space.folder / quote(camera, safe="")

    def _open(self, layout: ChunkLayout, number: int) -> Chunk | None:
        path = layout.path(number)
        known = self._chunks.get(path)
        if known is not None:
            if known.is_alive:
                self._chunks.move_to_end(path)
                return known
            self._chunks.pop(path).close()  # evicted; there may be a new one by now
        opened = open_chunk(path, layout)
        if opened is not None:
            self._chunks[path] = opened
            while len(self._chunks) > self._max_open:
                self._chunks.popitem(last=False)[1].close()
        return opened

    def _create(self, layout: ChunkLayout, number: int) -> Chunk | None:
        now = time.monotonic()
        if now < self._ask_again_at:
            return None
        if self._space.create(layout.path(number), layout.chunk_bytes, new_header()):
            return self._open(layout, number)
        if self._space.eviction == "keep":
            self._ask_again_at = now + RETRY_S
        return None


def _by_chunk(layout: ChunkLayout, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(chunk number, slots in it, places in `rows`), slots ascending."""
    order = np.argsort(rows, kind="stable")
    chunks, slots = np.divmod(rows[order], layout.rows)
    for begin, end in pairwise([*np.flatnonzero(np.diff(chunks, prepend=-1)), len(rows)]):
        yield int(chunks[begin]), slots[begin:end], order[begin:end]


def _copy_out(
    chunk: Chunk, slots: np.ndarray, places: np.ndarray, out: np.ndarray, tags: np.ndarray | None
) -> np.ndarray:
    """Copies what is there to its places; those places."""
    with chunk.locked():
        marks = chunk.presence[slots]  # all zero once the chunk was evicted
        is_here = marks > 0
        slots, places = slots[is_here], places[is_here]
        for slot, place, length in _runs(slots, places):
            out[place : place + length] = chunk.frames[slot : slot + length]
    if tags is not None:
        tags[places] = marks[is_here] - 1
    return places


def _copy_in(chunk: Chunk, slots: np.ndarray, places: np.ndarray, frames: np.ndarray, marks: np.ndarray) -> int:
    """Copies what is not there yet from its places; how many frames that were."""
    slots, first = np.unique(slots, return_index=True)
    places = places[first]
    with chunk.locked(), chunk.locked_for_writing():
        if not chunk.is_alive:
            return 0
        is_new = chunk.presence[slots] == 0  # what is there may be being read: it is never written again
        slots, places = slots[is_new], places[is_new]
        for slot, place, length in _runs(slots, places):
            chunk.write(slot, frames[place : place + length], marks[place : place + length])
    return len(slots)


def _runs(slots: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(first slot, first place, length) of each stretch in which both go up by one."""
    begins = np.flatnonzero((np.diff(slots, prepend=-2) != 1) | (np.diff(places, prepend=-2) != 1))
    for begin, end in pairwise([*begins, len(slots)]):
        yield int(slots[begin]), int(places[begin]), int(end - begin)
