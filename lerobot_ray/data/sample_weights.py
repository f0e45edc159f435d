"""How much each sample counts in the loss, so that a weighted mean is the same however the global batch is split.

The loss of a step is the sum of weight times loss over its global batch, divided by the sum of weights. A rank knows
its own samples only, but which samples the others have is arithmetic: so each weight is divided by the mean weight of
its step's global batch, and ranks and micro-batches take plain means of what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerobot_ray.data.episodes import Selection
from lerobot_ray.data.plan import StreamPlan


@dataclass(frozen=True)
class SampleWeights:
    """Weights over all frames of a dataset, by row."""

    per_frame: np.ndarray
    """(frames of the dataset,) float32, none below 0."""
    epsilon: float = 1e-6
    """Keeps a step whose samples all have weight 0 from dividing by it."""

    def of(self, sample_ids: np.ndarray, steps: np.ndarray, *, plan: StreamPlan, selection: Selection) -> np.ndarray:
        """Weights of `sample_ids` (M, micro-batch), which belong to `steps` (M,), over their global batch's mean."""
        distinct, which = np.unique(steps, return_inverse=True)
        means = (self._raw(plan.samples_of_steps(distinct), selection).sum(axis=-1) + self.epsilon) / plan.global_batch
        return (self._raw(sample_ids, selection) / means[which.reshape(-1)][:, None]).astype(np.float32)

    def _raw(self, sample_ids: np.ndarray, selection: Selection) -> np.ndarray:
        return self.per_frame[selection.locate(sample_ids)[1]].astype(np.float64)
