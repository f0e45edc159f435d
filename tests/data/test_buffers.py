"""Memory is used again, and only when nobody looks at it any more."""

import mmap

import numpy as np
import pyarrow as pa

from lerobot_ray.data.buffers import SMALLEST_BYTES, Buffers

SHAPE = (2, SMALLEST_BYTES)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again():
    buffers = Buffers()
    first = buffers.empty(SHAPE, np.uint8)
    where = address(first)
    del first
    assert address(buffers.empty(SHAPE, np.uint8)) == where


def test_a_view_keeps_its_memory():
    buffers = Buffers()
    first = buffers.empty(SHAPE, np.uint8)
    first[:] = 7
    views = [first[1:].reshape(-1)[::2], pa.py_buffer(first), memoryview(first)]
    where = address(first)
    del first
    while views:
        second = buffers.empty(SHAPE, np.uint8)
        assert address(second) != where
        second[:] = 9
        assert set(np.unique(np.asarray(views[-1]))) == {7}
        del second
        views.pop()
    assert where in [address(array) for array in [buffers.empty(SHAPE, np.uint8), buffers.empty(SHAPE, np.uint8)]]


def test_what_lies_unused_is_bounded():
    buffers = Buffers(free_bytes=3 * SMALLEST_BYTES)
    several = [buffers.empty(SHAPE, np.uint8) for _ in range(4)]
    assert len({address(array) for array in several}) == 4
    several.clear()
    assert sum(map(len, buffers._free)) <= 3 * SMALLEST_BYTES


def test_other_sizes_and_types():
    buffers = Buffers()
    assert buffers.empty((3,), np.float32).shape == (3,)
    assert buffers.empty((0, 4), np.uint8).shape == (0, 4)
    large = buffers.empty((SMALLEST_BYTES, 2), np.uint16)
    assert large.dtype == np.uint16
    assert large.flags.c_contiguous
    large[:] = 65535
    assert large.min() == 65535
    del large
    assert buffers.empty((SMALLEST_BYTES // 8,), np.float64).nbytes == SMALLEST_BYTES  # four times too large: not taken


def test_arrays_lie_in_memory_that_is_lent_as_long_as_there_is_room():
    buffers, memory = Buffers(), mmap.mmap(-1, 2 * SMALLEST_BYTES + 100)
    begin = np.frombuffer(memory, np.uint8).ctypes.data
    with buffers.lent(memory):
        several = [buffers.empty((SMALLEST_BYTES + odd,), np.uint8) for odd in (1, 0, 0)]
        small = buffers.empty((10,), np.uint8)
    assert [address(array) - begin for array in several[:2]] == [0, SMALLEST_BYTES + 64]
    assert not any(0 <= address(array) - begin < len(memory) for array in (several[2], small))
    with buffers.lent(memory):  # again from the start: the lender knows when
        assert address(buffers.empty(SHAPE[1:], np.uint8)) == begin
    with buffers.lent(None):
        assert address(buffers.empty(SHAPE, np.uint8)) != begin
