"""The `shards` order: how shards are cut, what a window is, and that it is as local as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.data.shard_order import ShardOrder, shard_bounds

LENGTHS = np.random.Generator(np.random.PCG64(0)).integers(50, 400, size=200)


@pytest.fixture(scope="module")
def order() -> ShardOrder:
    return ShardOrder.of_episodes(LENGTHS, seed=3, shard_frames=1000, window_shards=5)


def test_shards_end_where_episodes_end(order):
    assert set(order.bounds.tolist()) <= set(np.concatenate([[0], np.cumsum(LENGTHS)]).tolist())
    sizes = np.diff(order.bounds)
    assert sizes.sum() == LENGTHS.sum()
    assert (sizes[:-1] > 600).all()
    assert (sizes < 1400).all()


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 300), min_size=1, max_size=30).filter(any), shard_frames=st.integers(1, 100))
def test_shards_are_about_as_large_as_asked(lengths, shard_frames):
    bounds = shard_bounds(np.array(lengths), shard_frames)
    sizes = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == sum(lengths)
    assert (sizes > 0).all()
    assert (sizes < 2 * shard_frames).all()


def test_a_long_episode_is_several_shards():
    assert shard_bounds(np.array([5, 100, 5]), 30).tolist() == [0, 30, 80, 105, 110]
    assert np.diff(shard_bounds(np.array([10**12]), 10**9)).tolist() == [10**9] * 1000


def test_a_window_holds_its_ranges_and_nothing_else(order):
    for epoch in (0, 1, 5):
        end = epoch * order.num_samples
        for window in range(order.windows_per_epoch):
            span = order.window_span(epoch, window)
            assert span.start == end
            end = span.stop
            q = np.arange(span.start, span.stop)
            inside = np.sort(np.concatenate([np.asarray(part) for part in order.window_ranges(epoch, window)]))
            assert (np.sort(order.samples(q)) == inside).all()
            epochs, windows = order.window_of(q)
            assert (epochs == epoch).all()
            assert (windows == window).all()
        assert end == (epoch + 1) * order.num_samples


def test_storage_places_run_along_the_ranges_of_the_window(order):
    for window in (0, order.windows_per_epoch - 1):
        span = order.window_span(2, window)
        q = np.arange(span.start, span.stop)
        places = order.storage_places(q)
        assert (np.sort(places) == q).all()
        laid_out = np.concatenate([np.asarray(part) for part in order.window_ranges(2, window)])
        assert (order.samples(q)[np.argsort(places)] == laid_out).all()


def test_windows_are_even(order):
    shards = [len(order.window_ranges(0, window)) for window in range(order.windows_per_epoch)]
    assert sum(shards) == order.num_shards
    assert max(shards) == 5
    assert max(shards) - min(shards) <= 1


def test_windows_are_shuffled_inside_and_other_shards_meet_each_epoch(order):
    span = order.window_span(0, 0)
    samples = order.samples(np.arange(span.start, span.stop))
    assert (np.abs(np.diff(samples)) > 10).mean() > 0.9
    together = [
        {(part.start, other.start) for part in ranges for other in ranges if part.start < other.start}
        for ranges in (order.window_ranges(epoch, 0) for epoch in range(10))
    ]
    assert len(set.union(*together)) > 0.9 * sum(map(len, together))


def test_one_window_is_the_whole_of_a_small_dataset():
    order = ShardOrder.of_episodes(np.array([15, 25, 12, 20]), seed=0)
    assert order.num_shards == 1
    assert order.window_span(4, 0) == range(4 * 72, 5 * 72)
    assert order.window_ranges(4, 0) == [range(72)]


def test_memory_is_by_the_shard():
    """A trillion samples: nothing here may hold one number per sample."""
    order = ShardOrder.of_episodes(np.full(1000, 10**9), seed=1, shard_frames=10**8)
    assert len(order.bounds) == 10_001
    q = 7 * 10**12 + np.arange(1000)
    assert len(np.unique(order.samples(q))) == 1000
