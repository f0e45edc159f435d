"""One rank's micro-batches as the loop takes them: out of the block stream, on the device, preprocessed.

On a GPU the next batch is copied and preprocessed while the step before still computes: the loop asks for it as soon
as that step is queued, and its work goes to a stream of its own, which waits for nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from lerobot_ray.core.types import EPISODE_INDEX, FRAME_INDEX, STREAM_INDEX, Batch
from lerobot_ray.data.batch import ImageTransform, micro_batches
from lerobot_ray.data.sample import SampleSpec
from lerobot_ray.on_ray.ingest import Block


@dataclass(frozen=True)
class Provenance:
    """Which samples a micro-batch held: stream indices, episodes, frames within them."""

    stream_index: np.ndarray
    episode: np.ndarray
    frame: np.ndarray


class Lane:
    """Where a batch is made: on a CPU nowhere in particular, on a GPU in a stream of its own."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream

    def hand_over(self, batch: Mapping[str, Any]) -> None:
        """What the training stream does from now on comes after the batch, and its memory is kept until then."""
        if self._stream is None:
            return
        training = torch.cuda.current_stream(self._stream.device)
        training.wait_stream(self._stream)
        for value in batch.values():
            if isinstance(value, torch.Tensor) and value.is_cuda:
                value.record_stream(training)


@contextmanager
def beside_the_step(device: torch.device) -> Iterator[Lane]:
    """Within the block, work on a GPU does not wait for the step that is being computed there."""
    if device.type != "cuda":
        yield Lane(None)
        return
    stream = _stream_of(device)
    with torch.cuda.stream(stream):
        yield Lane(stream)


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class TrainingBatches:
    """Iterate once over the micro-batches of a stream of blocks."""

    def __init__(
        self,
        blocks: Iterable[Block],
        spec: SampleSpec,
        *,
        micro_batch: int,
        device: torch.device,
        preprocessor: Callable[[Batch], Batch],
        image_transform: ImageTransform | None = None,
    ) -> None:
        self.preprocessing_s = 0.0
        """Host time spent turning blocks into batches so far."""
        self._handed_out: deque[Provenance] = deque()
        self._iterator = self._batches(blocks, spec, micro_batch, device, preprocessor, image_transform)

    def __iter__(self) -> Iterator[Batch]:
        return self._iterator

    def trained(self, count: int) -> list[Provenance]:
        """The oldest `count` micro-batches that were handed out and not asked for here yet."""
        return [self._handed_out.popleft() for _ in range(count)]

    def _batches(
        self,
        blocks: Iterable[Block],
        spec: SampleSpec,
        micro_batch: int,
        device: torch.device,
        preprocessor: Callable[[Batch], Batch],
        image_transform: ImageTransform | None,
    ) -> Iterator[Batch]:
        for block in blocks:
            names = (STREAM_INDEX, EPISODE_INDEX, FRAME_INDEX)
            columns = [np.array(block.columns[name]).reshape(-1, micro_batch) for name in names]
            parts = micro_batches(
                block.columns, spec, micro_batch=micro_batch, device=device, image_transform=image_transform
            )
            for number in range(len(columns[0])):
                started = time.perf_counter()
                with beside_the_step(device) as lane:
                    batch = preprocessor(next(parts))
                lane.hand_over(batch)
                self.preprocessing_s += time.perf_counter() - started
                self._handed_out.append(Provenance(*(column[number] for column in columns)))
                yield batch
