"""The number of real actions of a global batch, known to every part of it."""

import numpy as np
import pytest

from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.valid_actions import valid_actions_of_steps
from lerobot_ray.data.windows import window_rows
from tests.data.tables import table_of

OFFSETS = list(range(-1, 9))


@pytest.mark.parametrize("drop", [0, 3])
def test_it_is_the_mean_over_the_global_batch_of_what_is_not_padding(drop):
    selection = select_episodes(table_of([15, 25, 12, 20]), drop_n_last_frames=drop)
    order = build_order("frames", num_samples=selection.num_samples, seed=0, episode_lengths=selection.lengths)
    plans = [
        StreamPlan(
            order=order, global_batch=8, micro_batch=2, world_size=2, rank=rank, start=5, micro_batches_per_block=3
        )
        for rank in (0, 1)
    ]
    steps = np.arange(20)
    expected = []
    for step in steps:
        position, anchors = selection.locate(order.samples(5 + 8 * step + np.arange(8)))
        first, end = selection.first_row[position], selection.end_row[position]
        expected.append((~window_rows(anchors, first, end, OFFSETS)[1]).sum(1).mean())
    for plan in plans:
        assert np.allclose(valid_actions_of_steps(plan, selection, OFFSETS, steps), expected)
        twice = np.array([[3, 3], [4, 3]])
        assert np.allclose(valid_actions_of_steps(plan, selection, OFFSETS, twice), np.array(expected)[twice])
