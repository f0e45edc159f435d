"""Large arrays whose memory is used again.

The kernel hands out new memory page by page and zeroed, which for decoded frames costs more than copying them. What a
finished block leaves behind is therefore kept for the next one.
"""

from __future__ import annotations

import math
import mmap
import weakref
from typing import Any

import numpy as np

SMALLEST_BYTES = 1 << 20
"""Below, numpy's own allocator is as fast."""
FREE_BYTES = 256 << 20
"""Unused memory that is kept at most."""


class Buffers:
    """Arrays as from `np.empty`. Their memory is taken back when the last view of one is gone, never before."""

    def __init__(self, free_bytes: int = FREE_BYTES) -> None:
        self._most = free_bytes
        self._free: list[mmap.mmap] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array with whatever was in its memory before."""
        dtype = np.dtype(dtype)
        count = math.prod(shape)
        if count * dtype.itemsize < SMALLEST_BYTES:
            return np.empty(shape, dtype)
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
