"""Large arrays whose memory is used again.

The kernel hands out new memory page by page and zeroed, which for decoded frames costs more than copying them. What a
finished block leaves behind is therefore kept for the next one. Or they lie in memory that somebody else lends.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

SMALLEST_BYTES = 1 << 20
"""Below, numpy's own allocator is as fast."""
FREE_BYTES = 256 << 20
"""Unused memory that is kept at most."""
ALIGNMENT = 64


class Buffers:
    """Arrays as from `np.empty`. Their memory is taken back when the last view of one is gone, never before."""

    def __init__(self, free_bytes: int = FREE_BYTES) -> None:
        self._most = free_bytes
        self._free: list[mmap.mmap] = []
        self._lent: mmap.mmap | None = None
        self._lent_used = 0

    @contextlib.contextmanager
    def lent(self, memory: mmap.mmap | None) -> Iterator[None]:
        """Meanwhile arrays lie in `memory`, one after another, as long as there is room. When to write there again is
        for the lender to know."""
        self._lent, self._lent_used = memory, 0
        try:
            yield
        finally:
            self._lent = None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array with whatever was in its memory before."""
        dtype = np.dtype(dtype)
        count = math.prod(shape)
        if count * dtype.itemsize < SMALLEST_BYTES:
            return np.empty(shape, dtype)
        if self._lent is not None and self._lent_used + count * dtype.itemsize <= len(self._lent):
            begin = self._lent_used
            self._lent_used = begin + -(-count * dtype.itemsize // ALIGNMENT) * ALIGNMENT
            return np.frombuffer(self._lent, dtype, count, begin).reshape(shape)
        memory = self._take(count * dtype.itemsize)
        # Every view, numpy's or another library's, keeps this array alive; nothing refers to the memory but through it.
        owner = np.frombuffer(memory, dtype, count)
        weakref.finalize(owner, self._give_back, memory).atexit = False
        return owner.reshape(shape)

    def _take(self, num_bytes: int) -> mmap.mmap:
        fitting = [memory for memory in self._free if num_bytes <= len(memory) <= 2 * num_bytes]
        if not fitting:
            memory = mmap.mmap(-1, -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            return memory
        smallest = min(fitting, key=len)
        self._free.remove(smallest)
        return smallest

    def _give_back(self, memory: mmap.mmap) -> None:
        self._free.append(memory)
        while sum(map(len, self._free)) > self._most:
            self._free.pop(0)
