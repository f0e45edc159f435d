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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_ray.core.errors import FrameError, LerobotRayError, StreamError
from lerobot_ray.core.types import STREAM_INDEX
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.plan import BlockPlan, StreamPlan
from lerobot_ray.data.window_ahead import samples_ahead
from lerobot_ray.on_ray.framing import frame_block, unframe_block

if TYPE_CHECKING:
    import pyarrow as pa

    from lerobot_ray.data.sample import SampleSpec

logger = logging.getLogger(__name__)

SAMPLE_ID_COLUMN = "sample_id"
UNREADABLE_COLUMN = "unreadable_episodes"


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """How much of the cluster one rank's stream may use."""

    num_decoders: int = 1
    """Decode actors at most; the stream starts with the first that finds a place."""
    cpus_per_decoder: float = 1.0
    object_store_bytes: int | None = None
    """Blocks of this stream that may lie in the object store at once. None: half the cluster's, shared by ranks."""
    buffered_blocks: int = 3
    """Blocks held ready beside the one being trained on; they hide the start of a segment."""
    segment_blocks: int = 2000
    stall_warning_s: float = 60.0
    """Say what the cluster looks like when no block has arrived for so long."""
    label_selector: dict[str, str] | None = None
    """Run decode actors only on nodes with these Ray labels."""


@dataclass(frozen=True)
class Block:
    """Several micro-batches of one rank, decoded: `columns` hold micro-batches x micro_batch samples along axis 0."""

    plan: BlockPlan
    columns: dict[str, Any]


def micro_batches_per_block(sample_bytes: int, micro_batch: int, *, target_bytes: int = 64 << 20) -> int:
    """Micro-batches that make a block of about `target_bytes`: each block costs Ray Data a fixed 14 ms or so."""
    return int(min(max(target_bytes // max(1, sample_bytes * micro_batch), 1), 256))


def decoders_per_rank(
    cluster_cpus: float, *, training_cpus: float, world_size: int, cpus_per_decoder: float = 1.0
) -> int:
    """Decode actors for each rank when the user names no number: what training leaves over, at least one."""
    return max(1, int((cluster_cpus - training_cpus) / cpus_per_decoder) // world_size)


class DecodeBlocks:
    """The Ray Data function: holds one process's open containers and tables, turns a block number into a block."""

    def __init__(self, spec: SampleSpec, plan: StreamPlan, first_block: int = 0) -> None:
        from lerobot_ray.data.sample import BlockReader

        self.plan, self.first_block = plan, first_block
        self.reader = BlockReader(spec)

    def __call__(self, numbers: pa.Table) -> pa.Table:
        return self.decode(self.first_block + int(numbers.column(0)[0].as_py()))

    def decode(self, number: int) -> pa.Table:
        """Block `number`, framed for transport; on the way, a slice of what later blocks will need."""
        ahead = samples_ahead(self.plan, number)
        if ahead.size:
            self.reader.read_ahead(ahead)
        columns, unreadable = self._read(self.plan.block(number))
        columns[UNREADABLE_COLUMN] = np.array(unreadable, dtype=np.int64)
        return frame_block(number, columns)

    def _read(self, block: BlockPlan) -> tuple[dict[str, Any], list[int]]:
        """The block's columns, and the episodes that had to be replaced because they cannot be read."""
        unreadable: list[int] = []
        stream_indices, sample_ids = block.stream_indices.ravel(), block.sample_ids.ravel()
        while True:
            try:
                columns = self.reader.read(sample_ids)
            except FrameError as error:
                order = self.plan.order
                if not isinstance(order, SkippingOrder) or error.episode is None or error.episode in unreadable:
                    raise
                logger.warning("%s Its episode is replaced in block %d.", error, block.number)
                unreadable.append(error.episode)
                sample_ids = order.replacements(stream_indices, unreadable)
            else:
                columns[STREAM_INDEX] = stream_indices
                columns[SAMPLE_ID_COLUMN] = sample_ids
                return columns, unreadable


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
            first = first_block
            while not self._stopping.is_set() and first != self._end:
                last = first + self.options.segment_blocks
                last = last if self._end is None else min(last, self._end)
                self._pull_segment(first, last)
                first = last
            self._hand_over(None)
        except BaseException as error:  # handed to the consumer, which raises it
            self._hand_over(_own_error(error))

    def _pull_segment(self, first: int, last: int) -> None:
        tables = iter(build_segment(self.spec, self.plan, first, last, self.options))
        while not self._stopping.is_set():
            table = next(tables, None)
            if table is None:
                return
            self._hand_over(unframe_block(table))
        del tables  # ends the Ray Data execution and its actors

    def _hand_over(self, item: Any) -> None:
        while not self._stopping.is_set():
            try:
                self._arrived.put(item, timeout=0.2)
                return
            except queue.Full:
                continue


def build_segment(
    spec: SampleSpec, plan: StreamPlan, first: int, last: int, options: IngestOptions
) -> Iterator[pa.Table]:
    """Blocks [first, last) as framed tables, decoded by a pool of actors that lives as long as the iterator."""
    import ray

    dataset = ray.data.range(last - first, override_num_blocks=last - first).map_batches(
        DecodeBlocks,
        fn_constructor_args=(spec, plan, first),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=options.num_decoders),
        num_cpus=options.cpus_per_decoder,
        scheduling_strategy="DEFAULT",  # near the consumer while its node has room, then anywhere
    )
    context = dataset.context
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = None  # a block is one row, and stays one
    execution = context.execution_options
    execution.preserve_order = True
    execution.label_selector = options.label_selector
    execution.resource_limits = ray.data.ExecutionResources(
        cpu=options.num_decoders * options.cpus_per_decoder,
        object_store_memory=options.object_store_bytes or _fair_share_of_store(plan.world_size),
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _fair_share_of_store(world_size: int) -> int:
    import ray

    return int(ray.cluster_resources().get("object_store_memory", 1 << 30) / 2 / world_size)


def _cluster_now() -> str:
    import ray

    free, total = ray.available_resources(), ray.cluster_resources()
    return (
        f"Decode actors need CPUs: {free.get('CPU', 0):g} of {total.get('CPU', 0):g} are free in the cluster. "
        "Waiting on; lower --num_workers or --ray.num_workers, or add nodes, if none becomes free."
    )


def _own_error(error: BaseException) -> BaseException:
    """Our own error from inside a decode actor, if that is what Ray wrapped; else the error as it is."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, LerobotRayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error
