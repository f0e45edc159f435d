"""One training process: the place where the parts of a run are put together. Everything it builds is plain torch.

Each start, the first and every one after a lost worker, does the same: find the newest complete checkpoint of the run,
build everything, go on from there. What a start needs to agree on (which checkpoint, the number of the attempt) is
settled by rank 0 and told to the others.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
import torch

from lerobot_ray.checkpoint.load import load_record, load_training_state
from lerobot_ray.core.errors import LerobotRayError, StorageError, StreamError
from lerobot_ray.data.audit import Attempt, AuditWriter, begin_attempt
from lerobot_ray.data.augment import ImageTransforms
from lerobot_ray.data.bad_episodes import SkippingOrder, restore_dropped
from lerobot_ray.data.order import check_order
from lerobot_ray.engine.loop import LoopSettings, train
from lerobot_ray.engine.rates import rates_of, set_rates
from lerobot_ray.engine.state import TrainState
from lerobot_ray.hub.elsewhere import on_this_node
from lerobot_ray.on_ray.batches import TrainingBatches
from lerobot_ray.on_ray.beside import Beside
from lerobot_ray.on_ray.board import logging_to
from lerobot_ray.on_ray.build_learner import build_learner, set_up_torch, training_device
from lerobot_ray.on_ray.evaluated import evaluates
from lerobot_ray.on_ray.held_out import HeldOut
from lerobot_ray.on_ray.ingest import BlockStream
from lerobot_ray.on_ray.leaving import WorkerLeaves, listen
from lerobot_ray.on_ray.mirroring import newest_of_run
from lerobot_ray.on_ray.pulse import Pulse
from lerobot_ray.on_ray.rank_stream import ingest_options, plan_stream
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.second_places import second_places
from lerobot_ray.on_ray.token import adopt_token
from lerobot_ray.on_ray.train_host import TrainHost

logger = logging.getLogger(__name__)


def train_worker(arguments: dict[str, Any]) -> int | None:
    """What Ray Train runs in every training process: `setup` (a RunSetup) and `board`. The step it reached, if any."""
    setup, board = arguments["setup"], arguments["board"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    adopt_token(board)
    with logging_to(board, rank):
        try:
            return _train(setup, board, rank, world_size)
        except LerobotRayError as error:
            if isinstance(error, StorageError | StreamError | WorkerLeaves):  # may go better next time
                raise
            ray.get(board.fail.remote(error))
            if world_size > 1:  # the others wait for this rank: restart them, to find the run failed
                raise
            return None


@dataclass(frozen=True)
class Start:
    """What the ranks of one start agree on."""

    is_over: bool = False
    """An earlier start failed in a way that would only come again."""
    checkpoint: Path | None = None
    attempt: Attempt | None = None
    name: str = ""
    """Different for every start."""


def _agree_on_start(setup: RunSetup, board: Any, rank: int, world_size: int) -> Start:
    """Collective: every rank calls this."""
    start = None
    if rank == 0:
        is_over = ray.get(board.fatal.remote()) is not None
        checkpoint = newest_of_run(
            setup.output_dir, store=setup.store, resume_from=setup.resume_from, not_ours=setup.not_ours
        )
        if checkpoint is not None:
            checkpoint = on_this_node(checkpoint)
        attempt = None
        if setup.config.audit and not is_over:
            state = _state_of(setup, checkpoint)
            attempt = begin_attempt(
                setup.output_dir,
                first_step=state.step,
                samples_seen=state.samples_seen,
                global_batch=setup.global_batch,
                world_size=world_size,
            )
        start = Start(is_over, checkpoint, attempt, uuid.uuid4().hex)
    return ray.train.collective.broadcast_from_rank_zero(start)


def _state_of(setup: RunSetup, checkpoint: Path | None) -> TrainState:
    if checkpoint is None:
        return TrainState()
    record = load_record(checkpoint, num_samples=setup.num_samples)
    return TrainState(record.step, record.samples_seen)


def _train(setup: RunSetup, board: Any, rank: int, world_size: int) -> int | None:
    config = setup.config
    device = training_device(setup)
    start = _agree_on_start(setup, board, rank, world_size)
    if start.is_over:
        return None
    listen()
    set_up_torch(setup)
    if start.checkpoint is not None:
        start = dataclasses.replace(start, checkpoint=on_this_node(start.checkpoint))
    learner = build_learner(setup, device=device, world_size=world_size, has_weights=start.checkpoint is not None)
    state = _state_of(setup, start.checkpoint)
    order = setup.order
    if start.checkpoint is not None:
        record = load_record(start.checkpoint, num_samples=setup.num_samples)
        check_order(record.order, order, checkpoint=str(start.checkpoint))
        if isinstance(order, SkippingOrder):
            order = restore_dropped(order.inner, setup.spec.selection, record.order)
        own_rates = rates_of(learner) if setup.keeps_own_rates else None
        load_training_state(
            start.checkpoint,
            policy=learner.policy,
            optimizers=learner.optimizers,
            schedules=learner.schedules,
            ema=learner.ema,
            scaler=learner.scaler,
        )
        if own_rates is not None:
            set_rates(learner, own_rates)
        logger.info("continuing at step %d from %s", state.step, start.checkpoint)
    last_step = config.steps if setup.stop_at is None else min(setup.stop_at, config.steps)
    if state.step >= last_step:
        logger.info("nothing left to train: step %d of %d is reached", state.step, last_step)
        if rank == 0:
            for place in second_places(setup, first_step=state.step):
                place.finish(is_done=state.step >= config.steps)
        return state.step

    batching = setup.batching(world_size)
    plan = plan_stream(setup, order, rank, world_size, start=state.samples_seen)
    blocks = plan.blocks_of_steps(0, last_step - state.step)
    transforms = config.dataset.image_transforms
    process = f"{socket.gethostname()}, process {os.getpid()}"
    with (
        Pulse(start.name, rank, process, step=state.step, post=board.beat.remote) as pulse,
        BlockStream(
            setup.spec, plan, num_blocks=len(blocks), options=ingest_options(setup, world_size, plan, board)
        ) as stream,
    ):
        host = TrainHost(
            rank=rank,
            world_size=world_size,
            device=device,
            board=board,
            stream=stream,
            steps_left=last_step - state.step if last_step < config.steps else None,
            asks_every_s=setup.asks_every_s,
        )
        batches = TrainingBatches(
            pulse.while_fetching(stream),
            setup.spec,
            micro_batch=batching.micro_batch,
            device=device,
            preprocessor=setup.preprocessor,
            image_transform=ImageTransforms(transforms, seed=setup.seed) if transforms.enable else None,
        )
        with Beside(
            setup=setup,
            learner=learner,
            order=lambda: stream.plan.order,
            pulse=pulse,
            batches=batches,
            batching=batching,
            state=state,
            rank=rank,
            world_size=world_size,
            device=device,
            board=board,
            audit=AuditWriter(setup.output_dir, start.attempt, rank=rank) if start.attempt else None,
            held_out=_held_out(setup, rank, world_size, device),
            mark=start.name[:8],
        ) as beside:
            settings = LoopSettings(
                steps=config.steps,
                global_batch=batching.global_batch,
                accumulation_steps=batching.accumulation_steps,
                seed=setup.seed,
                log_freq=config.log_freq,
                save_freq=config.save_freq if config.save_checkpoint else 0,
                also_save_freq=config.env_eval_freq if evaluates(config) else 0,
                eval_freq=config.eval_steps,
                saves_last=config.save_checkpoint or setup.publishes,
                skips_nonfinite=config.on_nonfinite == "skip",
            )
            while True:
                state = train(learner, batches, state, settings, host, beside.hooks())
                if host.leaving and state.step < config.steps:
                    beside.settle()
                    if rank == 0:
                        logger.warning("rank %s was told to go (SIGTERM): saved step %d", host.leaving, state.step)
                    beside.finish(stopped="a training process was told to go")
                    raise WorkerLeaves(host.leaving[0], state.step)
                if host.reason or state.step >= config.steps:
                    break
                logger.warning("a node of this run will be taken away: saved step %d, going on meanwhile", state.step)
            if host.reason and rank == 0:
                logger.info("stopped as asked after step %d", state.step)
            beside.finish(stopped=host.reason)
    return state.step


def _held_out(setup: RunSetup, rank: int, world_size: int, device: torch.device) -> HeldOut | None:
    if setup.held_out is None or setup.held_out_ids is None:
        return None
    return HeldOut(
        dataclasses.replace(setup.held_out),
        setup.held_out_ids,
        batch_size=setup.config.batch_size,
        rank=rank,
        world_size=world_size,
        device=device,
        preprocessor=setup.preprocessor,
    )
