"""Every sample of the next window is decoded ahead exactly once, spread evenly over the blocks of this one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.window_ahead import samples_ahead

LENGTHS = np.array([37, 80, 21, 55, 64, 43, 90, 30])


def make_plan(*, start=0, world_size=1, rank=0, micro_batch=4, accumulation=1, per_block=2, order="shards"):
    return StreamPlan(
        order=build_order(
            order, num_samples=int(LENGTHS.sum()), seed=1, episode_lengths=LENGTHS, shard_frames=30, window_shards=3
        ),
        global_batch=micro_batch * accumulation * world_size,
        micro_batch=micro_batch,
        world_size=world_size,
        rank=rank,
        start=start,
        micro_batches_per_block=per_block,
    )


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 900),
    world_size=st.sampled_from([1, 2, 4]),
    micro_batch=st.sampled_from([1, 2, 4]),
    accumulation=st.sampled_from([1, 3]),
    per_block=st.integers(1, 5),
)
def test_blocks_of_a_window_decode_the_whole_next_window_once(start, world_size, micro_batch, accumulation, per_block):
    ahead: dict[tuple[int, int], list[int]] = {}
    for rank in range(world_size):
        plan = make_plan(
            start=start,
            world_size=world_size,
            rank=rank,
            micro_batch=micro_batch,
            accumulation=accumulation,
            per_block=per_block,
        )
        number, end = 0, start + 2 * plan.order.num_samples
        while True:
            q = plan.step_start(number * per_block // accumulation)
            if q >= end:
                break
            epoch, window = plan.order.window_of(np.array([q]))
            ahead.setdefault((int(epoch[0]), int(window[0])), []).extend(samples_ahead(plan, number).tolist())
            number += 1
    order, windows = plan.order, sorted(ahead)
    for epoch, window in windows[1:-1]:  # whole windows: not the one the plan starts in, not the one the test ends in
        following = (epoch, window + 1) if window + 1 < order.windows_per_epoch else (epoch + 1, 0)
        wanted = [sample for part in order.window_ranges(*following) for sample in part]
        assert sorted(ahead[epoch, window]) == sorted(wanted)


def test_slices_are_even_and_in_file_order():
    plan = make_plan()
    blocks = range(len(plan.order.window_span(0, 0)) // 8)
    slices = [samples_ahead(plan, number) for number in blocks]
    sizes = [len(part) for part in slices]
    assert max(sizes) - min(sizes) <= 1
    jumps = sum(int(np.sum(np.diff(part) != 1)) for part in slices)
    assert jumps <= plan.order.window_shards


def test_other_orders_need_no_looking_ahead():
    assert samples_ahead(make_plan(order="frames"), 3).size == 0
