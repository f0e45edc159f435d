"""The held-out loss: every held-out sample counted exactly once, over all ranks, whatever their number.

Frames are read in the training process itself: a second stream would need CPUs that the training stream's decode
actors hold. A masked loss is divided by the average over the whole held-out set, so the mean is exact however it is
split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from lerobot_ray.core.types import ACTION, STREAM_INDEX, VALID_ACTIONS, Batch
from lerobot_ray.data.batch import to_batch
from lerobot_ray.data.sample import BlockReader, SampleSpec
from lerobot_ray.data.windows import window_rows
from lerobot_ray.on_ray.over_ranks import gathered


class HeldOut:
    """Evaluates a policy's loss on fixed samples; keeps the reader's open files between evaluations."""

    def __init__(
        self,
        spec: SampleSpec,
        sample_ids: np.ndarray,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        device: torch.device,
        preprocessor: Callable[[Batch], Batch],
    ) -> None:
        self._spec, self._ids = spec, sample_ids
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._device, self._preprocessor = device, preprocessor
        self._reader: BlockReader | None = None
        self._real_actions = _real_actions(spec, sample_ids)

    def loss(self, forward: Callable[[Batch], tuple[torch.Tensor, object]]) -> float:
        """Collective: every rank calls this. The mean loss over all samples."""
        total = 0.0
        for weight, batch in self._batches():
            loss, _ = forward(batch)
            total += float(loss) * weight
        return sum(gathered(total, self._world_size)) / len(self._ids)

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """(samples that count, batch), equally many on every rank, for sharded policies compute together."""
        share = -(-len(self._ids) // self._world_size)
        mine = np.arange(len(self._ids))[self._rank * share : (self._rank + 1) * share]
        for start in range(0, share, self._batch_size):
            places = mine[start : start + self._batch_size]
            yield len(places), self._batch(places if len(places) else np.array([0]))

    def _batch(self, places: np.ndarray) -> Batch:
        self._reader = self._reader or BlockReader(self._spec)
        block = self._reader.read(self._ids[places])
        block[STREAM_INDEX] = places
        if self._real_actions is not None:
            block[VALID_ACTIONS] = np.full(len(places), self._real_actions, dtype=np.float32)
        return self._preprocessor(to_batch(block, self._spec, device=self._device))


def _real_actions(spec: SampleSpec, sample_ids: np.ndarray) -> float | None:
    """Actions of a sample that are not padding, on average."""
    if ACTION not in spec.offsets:
        return None
    position, anchors = spec.selection.locate(sample_ids)
    _, is_pad = window_rows(
        anchors, spec.selection.first_row[position], spec.selection.end_row[position], spec.offsets[ACTION]
    )
    return float((~is_pad).sum(axis=1).mean())
