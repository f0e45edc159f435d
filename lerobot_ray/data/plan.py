"""One rank's share of the stream, as arithmetic: what is in a block follows from its number.

Step s covers stream indices [start + s * G, start + (s + 1) * G), G the global batch. Each rank takes G / world_size of
them as `accumulation_steps` micro-batches, and a block is `micro_batches_per_block` micro-batches in a row, wherever
steps and epochs end. What a step trains on does not depend on the number of ranks, on micro-batches or on blocks; who
reads which part of it does, and ranks divide it in the order's `storage_places`, so that each reads few files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.order import Order


@dataclass(frozen=True)
class BlockPlan:
    """What one block holds: M micro-batches."""

    number: int
    step: np.ndarray
    """(M,) the step each micro-batch belongs to, counted from the plan's start."""
    stream_indices: np.ndarray
    """(M, micro_batch)"""
    sample_ids: np.ndarray
    """(M, micro_batch)"""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One rank's work from stream index `start` on, endlessly."""

    order: Order
    global_batch: int
    micro_batch: int
    world_size: int
    rank: int
    start: int = 0
    """Stream index where step 0 of this plan begins: `samples_seen` of the checkpoint it resumes from."""
    micro_batches_per_block: int = 1

    def __post_init__(self) -> None:
        check_batches(global_batch=self.global_batch, micro_batch=self.micro_batch, world_size=self.world_size)
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} is not one of the {self.world_size} ranks 0 to {self.world_size - 1}.")
        if self.start < 0:
            raise ConfigError(f"a stream cannot start at {self.start}. Start at 0, or at samples_seen of a checkpoint.")
        if self.micro_batches_per_block < 1:
            raise ConfigError(f"micro_batches_per_block={self.micro_batches_per_block} must be at least 1.")

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of one step on one rank."""
        return self.global_batch // self.world_size // self.micro_batch

    def block(self, number: int) -> BlockPlan:
        """The block with this number. Costs about the global batches it touches, on every rank."""
        steps, parts = np.divmod(
            np.arange(self.micro_batches_per_block) + number * self.micro_batches_per_block, self.accumulation_steps
        )
        share = self.global_batch // self.world_size
        places = self.rank * share + parts[:, None] * self.micro_batch + np.arange(self.micro_batch)
        q = self._divided(steps[0], steps[-1])[steps - steps[0]]
        stream_indices = np.take_along_axis(q, places, axis=1)
        return BlockPlan(number, steps, stream_indices, self.order.samples(stream_indices))

    def step_start(self, step: int) -> int:
        """The stream index where a step begins; step n is over when `samples_seen` is `step_start(n + 1)`."""
        return self.start + step * self.global_batch

    def step_at(self, q: int) -> int:
        """The step that trains on stream index q."""
        return (q - self.start) // self.global_batch

    def block_of_step(self, step: int) -> tuple[int, int]:
        """(block, micro-batch within it) where a step begins on this rank."""
        return divmod(step * self.accumulation_steps, self.micro_batches_per_block)

    def blocks_of_steps(self, first: int, end: int) -> range:
        """The blocks that hold micro-batches of steps [first, end)."""
        last = -(-end * self.accumulation_steps // self.micro_batches_per_block)
        return range(self.block_of_step(first)[0], last) if first < end else range(0)

    def blocks_between(self, first_q: int, end_q: int) -> range:
        """The blocks with this rank's share of all steps that touch stream indices [first_q, end_q)."""
        return self.blocks_of_steps(self.step_at(first_q), self.step_at(end_q - 1) + 1) if first_q < end_q else range(0)

    def samples_of_steps(self, steps: np.ndarray) -> np.ndarray:
        """(steps, G) the samples of whole global batches, those of other ranks too."""
        return self.order.samples(self._stream_indices(steps))

    def _stream_indices(self, steps: np.ndarray) -> np.ndarray:
        return self.start + steps[:, None] * self.global_batch + np.arange(self.global_batch)

    def _divided(self, first_step: int, last_step: int) -> np.ndarray:
        """(steps, G) the stream indices of each step in the order ranks divide them."""
        q = self._stream_indices(np.arange(first_step, last_step + 1))
        return np.take_along_axis(q, np.argsort(self.order.storage_places(q), axis=1, kind="stable"), axis=1)


def check_batches(*, global_batch: int, micro_batch: int, world_size: int) -> None:
    """Raise ConfigError unless a global batch is a whole number of micro-batches on every rank."""
    if min(global_batch, micro_batch, world_size) < 1:
        raise ConfigError(
            f"global batch {global_batch}, micro-batch {micro_batch}, {world_size} ranks: each must be at least 1."
        )
    together = micro_batch * world_size
    if global_batch % together:
        below, above = global_batch // together * together, -(-global_batch // together) * together
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"a global batch of {global_batch} cannot be divided into micro-batches of {micro_batch} on "
            f"{world_size} ranks, {together} samples at a time. Try a global batch of {nearest}, another micro-batch "
            "or another number of ranks."
        )


def samples_seen_of_lerobot_step(step: int, num_samples: int, batch_size: int, num_processes: int = 1) -> int:
    """Our stream position for a LeRobot checkpoint at `step`: where lerobot-train means to resume.

    LeRobot's epoch ends with a batch filled up from its beginning, so its epochs take a whole number of steps; ours go
    on across the end. The position is that of the same epoch and the same anchor in it.
    """
    if step < 0 or min(num_samples, batch_size, num_processes) < 1:
        raise ConfigError(
            f"no position for step {step} of {num_samples} samples at batch size {batch_size} on {num_processes} "
            "processes: a step is at least 0, the others at least 1."
        )
    batches_per_epoch = math.ceil(math.ceil(num_samples / batch_size) / num_processes)
    epoch, batch = divmod(step, batches_per_epoch)
    return epoch * num_samples + min(batch * batch_size * num_processes, num_samples)
