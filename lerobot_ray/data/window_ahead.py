"""What to decode ahead when samples come window by window (the `shards` order), so that files are read in long runs.

While a rank trains on one window, its decode actors read the next one in file order, a slice with every block: slice i
of the next window while serving block i of this one. Which slice belongs to which block is arithmetic, so actors need
not talk to each other, and a slice that an actor lost is merely decoded later, when its samples are due.
"""

from __future__ import annotations

import numpy as np

from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.shard_order import ShardOrder


def samples_ahead(plan: StreamPlan, number: int) -> np.ndarray:
    """Sample ids to decode while block `number` is served, ascending within each shard; empty for other orders."""
    order = plan.order.inner if isinstance(plan.order, SkippingOrder) else plan.order
    if not isinstance(order, ShardOrder):
        return np.empty(0, dtype=np.int64)
    epoch, window = _window_of_block(plan, order, number)
    served = _blocks_of_window(plan, order, epoch, window)
    following = (epoch, window + 1) if window + 1 < order.windows_per_epoch else (epoch + 1, 0)
    samples = np.concatenate([np.arange(part.start, part.stop) for part in order.window_ranges(*following)])
    mine = samples[_part(len(samples), plan.rank, plan.world_size)]
    return mine[_part(len(mine), number - served.start, len(served))]


def _window_of_block(plan: StreamPlan, order: ShardOrder, number: int) -> tuple[int, int]:
    """(epoch, window) that the block's first step begins in."""
    epoch, window = order.window_of(np.array([plan.step_start(_first_step(plan, number))]))
    return int(epoch[0]), int(window[0])


def _blocks_of_window(plan: StreamPlan, order: ShardOrder, epoch: int, window: int) -> range:
    """The blocks whose first step begins in the window, those before the plan's start counted as if they existed."""
    span = order.window_span(epoch, window)
    first, end = (_first_block_from(plan, q) for q in (span.start, span.stop))
    return range(first, max(end, first + 1))


def _first_block_from(plan: StreamPlan, q: int) -> int:
    """The first block whose first step begins at stream index q or later."""
    step = -(-(q - plan.start) // plan.global_batch)
    block = step * plan.accumulation_steps // plan.micro_batches_per_block
    while plan.step_start(_first_step(plan, block)) < q:
        block += 1
    return block


def _first_step(plan: StreamPlan, block: int) -> int:
    return block * plan.micro_batches_per_block // plan.accumulation_steps


def _part(size: int, number: int, count: int) -> slice:
    """Part `number` of `count` equal parts of `size` things."""
    return slice(size * number // count, size * (number + 1) // count)
