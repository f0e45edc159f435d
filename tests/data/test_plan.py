"""Whatever the cuts, ranks, micro-batches and blocks: the same samples in the same global batches, once an epoch."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.order import ORDERS, build_order
from lerobot_ray.data.plan import StreamPlan, check_batches, samples_seen_of_lerobot_step

EPISODES = np.array([15, 25, 12, 20])
G = 24
SHARES = [
    (world, micro) for world in (1, 2, 3, 4, 6, 8, 12, 24) for micro in (1, 2, 3, 4, 6) if G % (world * micro) == 0
]


@lru_cache
def order_of(name: str, seed: int = 5):
    return build_order(name, num_samples=72, seed=seed, episode_lengths=EPISODES, shard_frames=10, window_shards=3)


def plan_of(order, world_size=1, micro_batch=1, rank=0, start=0, block=1, global_batch=G) -> StreamPlan:
    return StreamPlan(
        order=order,
        global_batch=global_batch,
        micro_batch=micro_batch,
        world_size=world_size,
        rank=rank,
        start=start,
        micro_batches_per_block=block,
    )


def trained_steps(order, *, start, steps, world_size, micro_batch, block) -> list[Counter]:
    """(stream index, sample) pairs of each step, as all ranks together read them from their blocks."""
    seen = [Counter() for _ in range(steps)]
    for rank in range(world_size):
        plan = plan_of(order, world_size, micro_batch, rank, start, block)
        for number in plan.blocks_of_steps(0, steps):
            got = plan.block(number)
            for step, q, samples in zip(got.step, got.stream_indices, got.sample_ids, strict=True):
                if step < steps:  # the last block may run on
                    seen[step].update(zip(q.tolist(), samples.tolist(), strict=True))
    return seen


runs = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(SHARES), st.integers(1, 7)), min_size=1, max_size=4)


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=40, deadline=None)
@given(runs=runs, first_step=st.integers(0, 1000))
def test_an_interrupted_run_sees_what_an_unbroken_run_sees(name, runs, first_step):
    """Cut anywhere, go on with other ranks, micro-batches and blocks, again and again."""
    order = order_of(name)
    samples_seen, seen = first_step * G, []
    for steps, (world_size, micro_batch), block in runs:
        seen += trained_steps(
            order, start=samples_seen, steps=steps, world_size=world_size, micro_batch=micro_batch, block=block
        )
        samples_seen += steps * G
    q = np.arange(first_step * G, samples_seen).reshape(-1, G)
    stream = order.samples(q)
    assert seen == [Counter(zip(*map(np.ndarray.tolist, step), strict=True)) for step in zip(q, stream, strict=True)]


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("global_batch", [5, 7, 30, 100])
def test_each_sample_once_an_epoch_though_batches_cross_epochs(name, global_batch):
    plan = plan_of(order_of(name), global_batch=global_batch, block=3)
    steps = 4 * 72 // global_batch + 1
    samples = np.concatenate([plan.block(n).sample_ids.ravel() for n in range(-(-steps * global_batch // 3))])
    stream = np.concatenate([plan.block(n).stream_indices.ravel() for n in range(-(-steps * global_batch // 3))])
    in_order = samples[np.argsort(stream)]
    assert (np.sort(stream)[: 4 * 72] == np.arange(4 * 72)).all()
    for epoch in range(4):
        assert sorted(in_order[epoch * 72 : (epoch + 1) * 72].tolist()) == list(range(72))


@settings(max_examples=60, deadline=None)
@given(share=st.sampled_from(SHARES), block=st.integers(1, 9), number=st.integers(0, 500), name=st.sampled_from(ORDERS))
def test_blocks_are_cut_from_one_row_of_micro_batches(share, block, number, name):
    """A block is what its number says, whatever was asked before: the same as its micro-batches one by one."""
    world_size, micro_batch = share
    order = order_of(name)
    for rank in {0, world_size - 1}:
        got = plan_of(order, world_size, micro_batch, rank, 48, block).block(number)
        assert got.number == number
        assert got.stream_indices.shape == got.sample_ids.shape == (block, micro_batch)
        assert got.stream_indices.dtype == got.sample_ids.dtype == got.step.dtype == np.int64
        assert (got.sample_ids == order.samples(got.stream_indices)).all()
        single = plan_of(order, world_size, micro_batch, rank, 48, 1)
        for i in range(block):
            one = single.block(number * block + i)
            assert one.step[0] == got.step[i]
            assert (one.stream_indices[0] == got.stream_indices[i]).all()


@pytest.mark.parametrize("name", ["frames", "lerobot", "sequential"])
def test_ranks_divide_a_batch_by_position(name):
    """LeRobot: rank r has positions [r * batch, (r + 1) * batch) of each global batch."""
    for rank in range(4):
        block = plan_of(order_of(name), 4, 3, rank, 100, 4).block(1)
        assert block.step.tolist() == [2, 2, 3, 3]
        begin = 100 + 2 * G + rank * 6
        assert block.stream_indices.tolist() == [
            [begin, begin + 1, begin + 2],
            [begin + 3, begin + 4, begin + 5],
            [begin + G, begin + G + 1, begin + G + 2],
            [begin + G + 3, begin + G + 4, begin + G + 5],
        ]


def test_shards_give_each_rank_a_small_part_of_the_window():
    """What `shards` is for: at any time a rank reads from about 1 / world_size of the window's files."""
    lengths = np.full(4000, 250)
    order = build_order(
        "shards", num_samples=10**6, seed=1, episode_lengths=lengths, shard_frames=5000, window_shards=16
    )
    world_size, global_batch = 8, 256
    span = order.window_span(0, 3)
    where = {sample: place for place, sample in enumerate(chain.from_iterable(order.window_ranges(0, 3)))}
    steps = range(-(-span.start // global_batch), span.stop // global_batch)
    parts = []
    for rank in range(world_size):
        plan = plan_of(order, world_size, 32, rank, 0, len(steps), global_batch)
        blocks = [plan.block(number) for number in plan.blocks_of_steps(steps.start, steps.stop)]
        samples = np.concatenate([block.sample_ids[np.isin(block.step, steps)].ravel() for block in blocks])
        places = np.array([where[sample] for sample in samples.tolist()])
        low, high = np.quantile(places / len(span), [0.05, 0.95])
        parts.append(high - low)
        assert rank / world_size - 0.1 < low < high < (rank + 1) / world_size + 0.1
        shards = len(set((places * 16 // len(span)).tolist()))
        assert shards <= 6  # of 16; a rank that took its share by position would touch them all
    assert np.mean(parts) < 1.5 / world_size


def test_a_batch_across_a_window_end_is_still_its_own_set():
    order = order_of("shards")
    span = order.window_span(0, 0)
    start = span.stop - 10
    ranks = [plan_of(order, 3, 8, rank, start).block(0).stream_indices.ravel() for rank in range(3)]
    assert sorted(np.concatenate(ranks).tolist()) == list(range(start, start + G))
    assert (ranks[0] < span.stop).all()  # the end of the window goes to the first ranks, the next begins with the last


def test_steps_blocks_and_stream_indices():
    plan = plan_of(order_of("frames"), 2, 3, 0, 1000, 3)  # 4 micro-batches a step, 3 a block
    assert plan.accumulation_steps == 4
    assert [plan.step_start(step) for step in (0, 1, 5)] == [1000, 1024, 1120]
    assert [plan.step_at(q) for q in (1000, 1023, 1024)] == [0, 0, 1]
    assert plan.block_of_step(0) == (0, 0)
    assert plan.block_of_step(2) == (2, 2)
    assert plan.block_of_step(3) == (4, 0)
    assert plan.blocks_of_steps(0, 3) == range(4)
    assert plan.blocks_of_steps(2, 3) == range(2, 4)
    assert list(plan.blocks_of_steps(3, 3)) == []
    assert plan.blocks_between(1000, 1072) == range(4)
    assert plan.blocks_between(1024, 1025) == plan.blocks_of_steps(1, 2)
    assert list(plan.blocks_between(1024, 1024)) == []


@settings(max_examples=100, deadline=None)
@given(share=st.sampled_from(SHARES), block=st.integers(1, 9), first=st.integers(0, 30), steps=st.integers(1, 5))
def test_blocks_of_steps_hold_them_whole(share, block, first, steps):
    world_size, micro_batch = share
    plan = plan_of(order_of("sequential"), world_size, micro_batch, 0, 0, block)
    inside = Counter(
        step for number in plan.blocks_of_steps(first, first + steps) for step in plan.block(number).step.tolist()
    )
    assert all(inside[step] == plan.accumulation_steps for step in range(first, first + steps))
    blocks = plan.blocks_of_steps(first, first + steps)
    for edge in (blocks[0], blocks[-1]):  # no block more than needed
        assert set(plan.block(edge).step.tolist()) & set(range(first, first + steps))
    number, offset = plan.block_of_step(first)
    assert plan.block(number).step[offset] == first
    assert offset == 0 or plan.block(number).step[offset - 1] == first - 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"global_batch": 25}, "micro-batches of 3 on 2 ranks, 6 samples at a time. Try a global batch of 24 or 30"),
        ({"global_batch": 4}, "Try a global batch of 6,"),
        ({"micro_batch": 0}, "at least 1"),
        ({"world_size": 0}, "at least 1"),
        ({"rank": 2}, "rank 2 is not one of the 2 ranks 0 to 1"),
        ({"rank": -1}, "rank -1"),
        ({"start": -1}, "cannot start at -1"),
        ({"block": 0}, "micro_batches_per_block=0"),
    ],
)
def test_what_cannot_be_planned(change, says):
    with pytest.raises(ConfigError) as error:
        plan_of(order_of("frames"), **{"world_size": 2, "micro_batch": 3} | change)
    assert says in str(error.value)


def test_check_batches_accepts_what_divides():
    check_batches(global_batch=64, micro_batch=8, world_size=8)


@pytest.mark.parametrize(
    ("step", "num_samples", "batch_size", "processes", "epoch", "place"),
    [  # `compute_sampler_state` of LeRobot 0.6.1
        (0, 72, 4, 1, 0, 0),
        (5, 72, 4, 1, 0, 20),
        (18, 72, 4, 1, 1, 0),
        (19, 72, 4, 1, 1, 4),
        (7, 72, 8, 2, 1, 32),
        (5, 72, 8, 2, 1, 0),
        (4, 72, 8, 2, 0, 64),
        (100, 44, 8, 3, 50, 0),
        (3, 10, 4, 2, 1, 8),
        (1, 10, 4, 2, 0, 8),
        (2, 10, 8, 1, 1, 0),
        (1, 10, 8, 4, 1, 0),
    ],
)
def test_a_lerobot_step_is_a_place_in_the_stream(step, num_samples, batch_size, processes, epoch, place):
    assert samples_seen_of_lerobot_step(step, num_samples, batch_size, processes) == epoch * num_samples + place


def test_no_lerobot_step_below_zero():
    with pytest.raises(ConfigError, match="step -1"):
        samples_seen_of_lerobot_step(-1, 72, 4)
