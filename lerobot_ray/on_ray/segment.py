"""One execution of Ray Data: a run of consecutive block numbers through a pool of decode actors.

It runs on a thread of its own, so that it can be given up. Ray restarts an actor whose process died, and the work goes
on. But work of an actor whose node died waits for that actor, and the actor for room, for ever if the rest of the
cluster is busy with the same work (`tests/on_ray/test_ingest_nodes.py`). What is left of a segment is arithmetic: it is
cheaper to start it again on the nodes that are left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lerobot_ray.data.buffers import ALIGNMENT, SMALLEST_BYTES
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.on_ray.capacity import cpu_only_nodes_exist, gpu_nodes
from lerobot_ray.on_ray.decode import DecodeBlocks
from lerobot_ray.on_ray.framing import NUMBER, unframe_block
from lerobot_ray.on_ray.landing import LandingPlaces
from lerobot_ray.on_ray.placement import place_decoders, this_node

if TYPE_CHECKING:
    import ray.data

    from lerobot_ray.data.sample import SampleSpec

logger = logging.getLogger(__name__)

PAST_THE_CACHE = "glibc.cpu.x86_non_temporal_threshold=0x10000"
"""A setting of the C library: a copy of more than 64 KB leaves the processor's cache to the decoder. Nobody reads a
frame again before its whole block has pushed it out. Other libraries and processors ignore it."""
PLACES_AHEAD = 6
"""Landing places beside those that are being written: blocks on their way, waiting, and trained on."""
_POLL_S = 0.5
_PATIENCE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How much of the cluster one rank's decoding may use."""

    num_decoders: int = 1
    """Decode actors at most; work starts with the first that finds a place. 0: decode in this process."""
    cpus_per_decoder: float = 1.0
    gives_back_actors: bool = False
    """Whether actors that have nothing to do are ended, so that their nodes may go. Ray Data then ends one whenever
    decoding waits for training, and starts it again, imports and all, when training waits."""
    object_store_bytes: int | None = None
    """For blocks of this stream at once, in landing places and in the object store. None: half the cluster's object
    store, shared by ranks."""
    token_holder: Any = None
    """Whom decode actors ask for the Hub's token (`on_ray.token`); None: they need none."""
    labels: dict[str, str] | None = None
    """Run decode actors only on nodes with these Ray labels."""
    node_loss_patience_s: float = 10.0
    """How long nothing may arrive after a node was lost before the segment is started again."""


class NodeLost(Exception):
    """A node died and the segment stopped moving: start what is left of it again."""


class Segment:
    """Blocks [first, last) as (number, columns), in order."""

    def __init__(self, spec: SampleSpec, plan: StreamPlan, first: int, last: int, options: SegmentOptions) -> None:
        self._patience_s = options.node_loss_patience_s
        store_bytes = options.object_store_bytes or share_of_store(plan.world_size)
        self._places = landing_places(spec, plan, options, store_bytes)
        if self._places is not None:
            store_bytes -= self._places.num_bytes
        self._dataset = decoding_dataset(spec, plan, first, last, options, store_bytes, self._places)
        self._nodes = _alive_nodes()
        self._tables: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._iterate, daemon=True, name=f"segment-{first}")
        self._thread.start()

    def next(self, stopping: threading.Event) -> tuple[int, dict[str, Any]] | None:
        """The next block; None at the end, or when `stopping` is set meanwhile."""
        quiet_since = time.monotonic()
        while not stopping.is_set():
            try:
                item = self._tables.get(timeout=_POLL_S)
            except queue.Empty:
                if time.monotonic() - quiet_since > self._patience_s and not self._nodes <= _alive_nodes():
                    raise NodeLost from None
                continue
            if isinstance(item, BaseException):
                raise item
            return None if item is None else unframe_block(item, self._places)
        return None

    def close(self, *, is_stuck: bool = False) -> None:
        """End the execution and its actors. `is_stuck`: it waits for what will never come, so do not wait for it.

        Returns when its thread and Ray Data's have ended, for a thread that talks to Ray after `ray.shutdown` ends the
        whole process.
        """
        self._closed.set()
        if self._places is not None:
            self._places.close()
        executor = self._dataset._current_executor  # no public way reaches a running execution from another thread
        self._thread.join(timeout=0 if is_stuck else _PATIENCE_S)
        if self._thread.is_alive() and executor is not None:
            with contextlib.suppress(Exception):  # half of what it talks to may be gone
                executor.shutdown(force=True)
        self._thread.join(timeout=_PATIENCE_S)
        if isinstance(executor, threading.Thread):  # its shutdown waits two seconds for it, which may be too few
            executor.join(timeout=_PATIENCE_S)

    def _iterate(self) -> None:
        try:
            for table in self._dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                self._offer(table)
                if self._closed.is_set():
                    return
            self._offer(None)
        except BaseException as error:  # raised where somebody can act on it
            self._offer(error)

    def _offer(self, item: Any) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._tables.put(item, timeout=_POLL_S)
                return


class SegmentHere:
    """The same, decoded by the thread that asks: no actors, no object store, and no more than one core."""

    def __init__(self, spec: SampleSpec, plan: StreamPlan, first: int, last: int, _: SegmentOptions) -> None:
        self._decode, self._numbers = DecodeBlocks(spec, plan), iter(range(first, last))

    def next(self, stopping: threading.Event) -> tuple[int, dict[str, Any]] | None:
        number = None if stopping.is_set() else next(self._numbers, None)
        return None if number is None else unframe_block(self._decode.decode(number))

    def close(self, *, is_stuck: bool = False) -> None:
        """Nothing runs between two calls of `next`."""


def landing_places(
    spec: SampleSpec, plan: StreamPlan, options: SegmentOptions, store_bytes: int
) -> LandingPlaces | None:
    """Places for blocks, of the memory that this stream may take; two blocks' worth is left for the object store.

    None where they are of no use: blocks too small to be worth it, too little memory, no such thing on this system.
    """
    block_bytes = spec.sample_bytes * plan.micro_batch * plan.micro_batches_per_block
    place_bytes = block_bytes + ALIGNMENT * len(spec.specs)
    count = min(options.num_decoders + PLACES_AHEAD, store_bytes // place_bytes - 2)
    if not hasattr(os, "memfd_create") or block_bytes < SMALLEST_BYTES or count < 1:
        return None
    try:
        return LandingPlaces(count, place_bytes, node_id=this_node())
    except OSError as error:  # a sandbox that forbids it, or no file descriptors left
        logger.info("rank %d: blocks travel through the object store (%s)", plan.rank, error)
        return None


def decoding_dataset(
    spec: SampleSpec,
    plan: StreamPlan,
    first: int,
    last: int,
    options: SegmentOptions,
    store_bytes: int,
    places: LandingPlaces | None,
) -> ray.data.Dataset:
    """Block numbers mapped to blocks; nothing runs yet."""
    import ray

    here, crowded = this_node(), gpu_nodes()
    placement = place_decoders(
        here, gpu_nodes=crowded, has_cpu_only=here in crowded and cpu_only_nodes_exist(), labels=options.labels
    )
    # One Arrow row per block number, put here: unlike `ray.data.range`, that needs no CPU of its own, for which it
    # would wait for ever where decode actors have taken the last one.
    numbers = [pa.table({NUMBER: [number]}) for number in range(first, last)]
    dataset = ray.data.from_blocks(numbers).map_batches(
        DecodeBlocks,
        fn_constructor_args=(spec, plan, options.token_holder, None if places is None else places.address),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=options.num_decoders),
        num_cpus=options.cpus_per_decoder,
        runtime_env={"env_vars": decoder_environment(os.environ)},
        **placement.as_arguments(),
    )
    context = dataset.context
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # a FrameError arrives as one, not as text in another
    context.target_max_block_size = None  # a block is one row, and stays one
    context.downstream_capacity_backpressure_ratio = None  # the limit below bounds the store, no guess at consumption
    if not options.gives_back_actors:
        context.autoscaling_config = replace(context.autoscaling_config, actor_pool_util_downscaling_threshold=-1.0)
    execution = context.execution_options
    execution.preserve_order = True
    execution.resource_limits = ray.data.ExecutionResources(
        cpu=options.num_decoders * options.cpus_per_decoder,
        object_store_memory=store_bytes,
    )
    return dataset


def decoder_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a decode actor's process must know when it starts. The user's own settings have the last word."""
    return {"GLIBC_TUNABLES": ":".join(filter(None, [PAST_THE_CACHE, environment.get("GLIBC_TUNABLES")]))}


def share_of_store(world_size: int, runs_at_once: int = 1) -> int:
    """One rank's share of half the cluster's object store; the rest is slack."""
    import ray

    return int(ray.cluster_resources().get("object_store_memory", 1 << 30) / 2 / world_size / runs_at_once)


def _alive_nodes() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
