"""One rank's sample stream as a run wants it: how it is cut into blocks, how many actors decode it."""

from __future__ import annotations

from typing import Any

import ray

from lerobot_ray.data.order import Order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.data.storage import LocalStorage
from lerobot_ray.on_ray.evaluated import evaluates
from lerobot_ray.on_ray.evaluation import cpus_of_rollouts
from lerobot_ray.on_ray.ingest import IngestOptions, decoders_per_rank, micro_batches_per_block
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.segment import share_of_store

BLOCKS_IN_STORE = 8
"""Blocks of one rank the object store must have room for: being decoded, on their way, and being trained on."""
MOST_DECODE_CPUS = 4096
"""Beyond it `num_workers` must be named: an autoscaler without a limit is no reason to want everything."""


def plan_stream(setup: RunSetup, order: Order, rank: int, world_size: int, *, start: int) -> StreamPlan:
    batching = setup.batching(world_size)
    store = share_of_store(world_size, setup.runs_at_once)
    return StreamPlan(
        order=order,
        global_batch=batching.global_batch,
        micro_batch=batching.micro_batch,
        world_size=world_size,
        rank=rank,
        start=start,
        micro_batches_per_block=micro_batches_per_block(
            setup.spec, batching.micro_batch, most_bytes=store // BLOCKS_IN_STORE
        ),
    )


def ingest_options(setup: RunSetup, world_size: int, plan: StreamPlan, board: Any) -> IngestOptions:
    config = setup.config
    training_cpus = world_size * (config.ray.resources_per_worker or {"CPU": 1.0}).get("CPU", 1.0)
    decoders = config.num_workers
    if decoders is None:
        # Of a cluster that grows, what it may have: Ray Data starts more actors, and so asks for more nodes, only while
        # training waits for data.
        cpus = min(max(ray.cluster_resources().get("CPU", 1.0), setup.most_cpus), MOST_DECODE_CPUS)
        runs = setup.runs_at_once
        if evaluates(config):
            cpus -= runs * cpus_of_rollouts(config.eval)
        decoders = decoders_per_rank(cpus, training_cpus=runs * training_cpus, world_size=runs * world_size)
    ready = -(-config.prefetch_factor // plan.micro_batches_per_block)
    store = share_of_store(world_size, setup.runs_at_once)
    is_here = isinstance(setup.spec.metadata.storage, LocalStorage)
    return IngestOptions(
        num_decoders=decoders,
        buffered_blocks=max(2, ready),
        object_store_bytes=store,
        gives_back_actors=setup.cluster_grows,
        token_holder=None if is_here else board,
    )
