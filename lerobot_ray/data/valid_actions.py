"""How many actions of a step's global batch are real, so that a masked loss is the same however the batch is split.

Policies average their loss over the actions that are not padding. The mean of such means over ranks and micro-batches
is not the mean over the batch, because parts have different numbers of real actions. Dividing every part by the global
batch's average makes it so, and that number is arithmetic: it follows from where episodes end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lerobot_ray.data.episodes import Selection
from lerobot_ray.data.plan import StreamPlan


def valid_actions_of_steps(
    plan: StreamPlan, selection: Selection, offsets: Sequence[int], steps: np.ndarray
) -> np.ndarray:
    """For each step (any shape): offsets that fall inside the episode, averaged over the step's global batch."""
    distinct, which = np.unique(steps, return_inverse=True)
    position, anchors = selection.locate(plan.samples_of_steps(distinct))
    rows = anchors[..., None] + np.asarray(offsets, dtype=np.int64)
    is_real = (rows >= selection.first_row[position][..., None]) & (rows < selection.end_row[position][..., None])
    return is_real.sum(axis=-1).mean(axis=-1).astype(np.float32)[which].reshape(np.shape(steps))
