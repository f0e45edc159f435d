"""One rank's sample stream: block numbers go through Ray Data into decode actors, whole blocks come back in order.

What is in a block is arithmetic (`data.plan`), so a decode actor needs the plan and a number, nothing else. Actors may
run on any node of the cluster and may die at any time: Ray Data runs the block again and the samples are the same.
The consumer recomputes the stream indices of every block it is handed and refuses a gap, a repeat or another sample,
so correctness never rests on Ray Data's ordering.

The stream runs in segments of a few thousand blocks, because Ray Data keeps about 8 KB on the consumer for every
block of a Dataset, consumed or not (`benchmarks/`). A segment starts when the last block of the one before has
arrived here: at most one pool of decode actors is alive, and the blocks still waiting to be trained on hide its start.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_ray.core.errors import StreamError
from lerobot_ray.core.types import STREAM_INDEX
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.plan import BlockPlan, StreamPlan
from lerobot_ray.on_ray.capacity import being_started
from lerobot_ray.on_ray.decode import SAMPLE_ID_COLUMN, UNREADABLE_COLUMN
from lerobot_ray.on_ray.segment import NodeLost, Segment, SegmentHere, SegmentOptions
from lerobot_ray.on_ray.wrapped import own_error

if TYPE_CHECKING:
    from lerobot_ray.data.sample import SampleSpec

logger = logging.getLogger(__name__)

_FULL_POLL_S = 0.02

BLOCK_BYTES = 256 << 20
FRAMES_PER_BLOCK = 512
"""Camera frames in a block at most: about a second of one decoder, so that a stream starts without a long wait."""


@dataclass(frozen=True, kw_only=True)
class IngestOptions(SegmentOptions):
    """How one rank's stream is cut and buffered."""

    buffered_blocks: int = 3
    """Blocks held ready beside the one being trained on; they hide the start of a segment."""
    segment_blocks: int = 2000
    max_losses_in_a_row: int = 8
    """How often actors or nodes may be lost without one block done before the stream gives up."""
    stall_warning_s: float = 60.0
    """Say what the cluster looks like when no block has arrived for so long."""


@dataclass(frozen=True)
class Block:
    """Several micro-batches of one rank, decoded: `columns` hold micro-batches x micro_batch samples along axis 0."""

    plan: BlockPlan
    columns: dict[str, Any]


def micro_batches_per_block(spec: SampleSpec, micro_batch: int, *, most_bytes: int = BLOCK_BYTES) -> int:
    """Micro-batches that make a block: as large as it may be, for each costs Ray Data a fixed 14 ms or so."""
    frames = sum(len(spec.offsets.get(feature.name, (0,))) for feature in spec.specs if feature.is_camera)
    by_bytes = min(most_bytes, BLOCK_BYTES) // max(1, spec.sample_bytes * micro_batch)
    by_frames = FRAMES_PER_BLOCK // max(1, frames * micro_batch)
    return int(min(max(min(by_bytes, by_frames), 1), 256))


def decoders_per_rank(
    cluster_cpus: float, *, training_cpus: float, world_size: int, cpus_per_decoder: float = 1.0
) -> int:
    """Decode actors for each rank when the user names no number: what training leaves over, at least one."""
    return max(1, int((cluster_cpus - training_cpus) / cpus_per_decoder) // world_size)


class BlockStream:
    """Iterate over one rank's blocks from `first_block` on; endless unless `num_blocks` is given.

    Owns a thread and a running Ray Data execution: use it as a context manager or call `close`. `wait_s` is the time
    the consumer has spent waiting for data so far.
    """

    def __init__(
        self,
        spec: SampleSpec,
        plan: StreamPlan,
        *,
        first_block: int = 0,
        num_blocks: int | None = None,
        options: IngestOptions | None = None,
    ) -> None:
        self.spec, self.plan, self.options = spec, plan, options or IngestOptions()
        self.wait_s = 0.0
        self.unreadable: set[int] = set()
        """Episodes that could not be read and were replaced so far (`dataset.on_bad_episode=skip`)."""
        self._next = first_block
        self._end = None if num_blocks is None else first_block + num_blocks
        self._early: dict[int, dict[str, Any]] = {}
        self._arrived: queue.Queue[Any] = queue.Queue(maxsize=self.options.buffered_blocks)
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        """Held while a block is handed over, and while plan and hold are looked at or changed."""
        self._pulled, self._is_held = first_block, False
        self._thread = threading.Thread(target=self._pull, args=(first_block,), daemon=True, name="block-stream")
        self._thread.start()

    def __enter__(self) -> BlockStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        if self._next == self._end or self._stopping.is_set():
            raise StopIteration
        while self._next not in self._early:
            number, columns = self._receive()
            if number < self._next or number in self._early:
                raise StreamError(f"block {number} arrived twice; the stream stood at block {self._next}.")
            self._early[number] = columns
            if len(self._early) > self.options.num_decoders + self.options.buffered_blocks:
                raise StreamError(
                    f"block {self._next} is missing although blocks {sorted(self._early)} have arrived. "
                    "Resume from the last checkpoint; the stream will start at the right place."
                )
        block = Block(self.plan.block(self._next), self._early.pop(self._next))
        self._check(block)
        self._next += 1
        return block

    def close(self) -> None:
        """Stop decoding and release the cluster's resources. Blocks already handed out stay valid."""
        self._stopping.set()
        while self._thread.is_alive():
            try:  # make room, so that a thread waiting to hand over a block sees the flag
                self._arrived.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.05)
        self._early.clear()

    def hold(self) -> int:
        """Hand over no more blocks until `reorder`; the stream index where the first step begins that none has yet."""
        with self._turn:
            self._is_held = True
            if self._pulled == 0:
                return self.plan.start
            micro_batches = self._pulled * self.plan.micro_batches_per_block
            return self.plan.step_start((micro_batches - 1) // self.plan.accumulation_steps + 1)

    def reorder(self, order: SkippingOrder) -> None:
        """Go on in `order`, which differs from the one before only from where `hold` said on, or later."""
        with self._turn:
            self.plan = replace(self.plan, order=order)
            self._is_held = False

    def _receive(self) -> tuple[int, dict[str, Any]]:
        started = time.monotonic()
        warn_after_s = self.options.stall_warning_s
        while True:
            try:
                item = self._arrived.get(timeout=1.0)
                break
            except queue.Empty:
                waited_s = time.monotonic() - started
                if waited_s > warn_after_s:
                    warn_after_s *= 2
                    logger.warning(
                        "rank %d: no block of samples for %.0f s. %s", self.plan.rank, waited_s, _cluster_now()
                    )
        self.wait_s += time.monotonic() - started
        if isinstance(item, BaseException):
            raise item
        if item is None:
            raise StreamError(f"the stream ended before block {self._next}.")
        return item

    def _check(self, block: Block) -> None:
        planned, unreadable = block.plan, [int(episode) for episode in block.columns[UNREADABLE_COLUMN]]
        samples = planned.sample_ids
        if unreadable:
            assert isinstance(self.plan.order, SkippingOrder)
            samples = self.plan.order.replacements(planned.stream_indices, unreadable)
            for episode in sorted({*unreadable} - self.unreadable):
                logger.warning("episode %d cannot be read; its samples are replaced by others", episode)
            self.unreadable.update(unreadable)
        for column, wanted in ((STREAM_INDEX, planned.stream_indices), (SAMPLE_ID_COLUMN, samples)):
            got = block.columns[column]
            if not np.array_equal(got, wanted.ravel()):
                raise StreamError(
                    f"block {planned.number} of rank {self.plan.rank} holds other samples than its plan says "
                    f"({column} {got[:4]}…, wanted {wanted.ravel()[:4]}…). This is a bug; please report it."
                )

    # The pulling thread

    def _pull(self, first_block: int) -> None:
        try:
            next_block, losses = first_block, 0
            while not self._stopping.is_set() and next_block != self._end:
                reached = self._pull_segment(next_block)
                losses = losses + 1 if reached == next_block else 0
                if losses > self.options.max_losses_in_a_row:
                    raise StreamError(
                        f"decode actors were lost {losses} times in a row before block {reached} was done. Out of "
                        "memory? Give them more room (fewer with --num_workers), or look at the Ray logs of their node."
                    )
                next_block = reached
            self._hand_over(None)
        except BaseException as error:  # handed to the consumer, which raises it
            self._hand_over(own_error(error) or error)

    def _pull_segment(self, first: int) -> int:
        """Hand over blocks from `first` on, until a segment's end, a loss, another plan; the block that comes next."""
        import ray

        last = first + self.options.segment_blocks
        last = last if self._end is None else min(last, self._end)
        plan = self.plan
        kind: type[Segment | SegmentHere] = Segment if self.options.num_decoders else SegmentHere
        segment, is_stuck = kind(self.spec, plan, first, last, self.options), False
        try:
            while (arrived := segment.next(self._stopping)) is not None:
                if not self._hand_over(arrived, plan=plan):
                    return first
                first = arrived[0] + 1
        except (NodeLost, ray.exceptions.RayError) as error:
            if isinstance(error, ray.exceptions.RayTaskError):
                raise
            is_stuck = True
            name = type(error).__name__
            logger.warning("rank %d: %s while decoding; going on from block %d", self.plan.rank, name, first)
        finally:
            segment.close(is_stuck=is_stuck)
        return first

    def _hand_over(self, item: Any, *, plan: StreamPlan | None = None) -> bool:
        """False when the item is a block of a `plan` that is no longer the stream's."""
        while not self._stopping.is_set():
            with self._turn:
                if plan is not None and plan is not self.plan:
                    return False
                if not self._is_held and not self._arrived.full():  # no other thread puts anything in
                    self._arrived.put_nowait(item)
                    if plan is not None:
                        self._pulled = item[0] + 1
                    return True
            time.sleep(_FULL_POLL_S)
        return True


def _cluster_now() -> str:
    import ray

    free, total = ray.available_resources(), ray.cluster_resources()
    coming = being_started()
    return (
        f"Decode actors need CPUs: {free.get('CPU', 0):g} of {total.get('CPU', 0):g} are free in the cluster"
        f"{f', and {coming}' if coming else ''}. Waiting on; if none becomes free, lower --num_workers or "
        "--ray.num_workers, or add nodes."
    )
