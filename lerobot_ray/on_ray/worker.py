"""One training process: the place where the parts of a run are put together. Everything it builds is plain torch.

Each start, the first and every one after a lost worker, does the same: find the newest complete checkpoint of the run,
build everything, go on from there. What a start needs to agree on (which checkpoint, the number of the attempt) is
settled by rank 0 and told to the others.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch

from lerobot_ray.checkpoint.load import load_record, load_training_state
from lerobot_ray.config.parallel import autocast_precision, is_sharded
from lerobot_ray.core.errors import LerobotRayError, StorageError, StreamError
from lerobot_ray.data.audit import Attempt, AuditWriter, begin_attempt
from lerobot_ray.data.augment import ImageTransforms
from lerobot_ray.data.bad_episodes import SkippingOrder, restore_dropped
from lerobot_ray.data.order import check_order
from lerobot_ray.data.plan import StreamPlan
from lerobot_ray.engine.ema import Ema
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.loop import LoopSettings, train
from lerobot_ray.engine.optim import build_optimizers
from lerobot_ray.engine.parallel import place
from lerobot_ray.engine.schedule import build_schedules
from lerobot_ray.engine.state import TrainState
from lerobot_ray.on_ray.batches import TrainingBatches
from lerobot_ray.on_ray.beside import Beside
from lerobot_ray.on_ray.board import logging_to
from lerobot_ray.on_ray.held_out import HeldOut
from lerobot_ray.on_ray.ingest import BlockStream, IngestOptions, decoders_per_rank, micro_batches_per_block
from lerobot_ray.on_ray.run_folder import latest_checkpoint
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.train_host import TrainHost
from lerobot_ray.policies.registry import build_policy

logger = logging.getLogger(__name__)

FRAMES_PER_BLOCK = 512
"""Camera frames in a block at most: about a second of one decoder, so that a stream starts without a long wait."""
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_worker(arguments: dict[str, Any]) -> None:
    """What Ray Train runs in every training process: `setup` (a RunSetup) and `board`."""
    setup, board = arguments["setup"], arguments["board"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    with logging_to(board, rank):
        try:
            _train(setup, board, rank, world_size)
        except LerobotRayError as error:
            if isinstance(error, StorageError | StreamError):  # may go better next time
                raise
            ray.get(board.fail.remote(error))
            if world_size > 1:  # the others wait for this rank: restart them, to find the run failed
                raise


@dataclass(frozen=True)
class Start:
    """What the ranks of one start agree on."""

    is_over: bool = False
    """An earlier start failed in a way that would only come again."""
    checkpoint: Path | None = None
    attempt: Attempt | None = None


def _agree_on_start(setup: RunSetup, board: Any, rank: int, world_size: int) -> Start:
    """Collective: every rank calls this."""
    start = None
    if rank == 0:
        is_over = ray.get(board.fatal.remote()) is not None
        checkpoint = latest_checkpoint(setup.output_dir, not_ours=setup.not_ours) or setup.resume_from
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
        start = Start(is_over, checkpoint, attempt)
    return ray.train.collective.broadcast_from_rank_zero(start)


def _state_of(setup: RunSetup, checkpoint: Path | None) -> TrainState:
    if checkpoint is None:
        return TrainState()
    record = load_record(checkpoint, num_samples=setup.num_samples)
    return TrainState(record.step, record.samples_seen)


def _train(setup: RunSetup, board: Any, rank: int, world_size: int) -> None:
    config = setup.config
    device = _device(setup)
    start = _agree_on_start(setup, board, rank, world_size)
    if start.is_over:
        return
    _set_up_torch(setup)
    learner = build_learner(setup, device=device, world_size=world_size, has_weights=start.checkpoint is not None)
    state = _state_of(setup, start.checkpoint)
    order = setup.order
    if start.checkpoint is not None:
        record = load_record(start.checkpoint, num_samples=setup.num_samples)
        check_order(record.order, order, checkpoint=str(start.checkpoint))
        if isinstance(order, SkippingOrder):
            order = restore_dropped(order.inner, setup.spec.selection, record.order)
        load_training_state(
            start.checkpoint,
            policy=learner.policy,
            optimizers=learner.optimizers,
            schedules=learner.schedules,
            ema=learner.ema,
            scaler=learner.scaler,
        )
        logger.info("continuing at step %d from %s", state.step, start.checkpoint)
    if state.step >= config.steps:
        logger.info("nothing left to train: step %d of %d is reached", state.step, config.steps)
        return

    batching = setup.batching(world_size)
    plan = _plan(setup, order, rank, world_size, start=state.samples_seen)
    blocks = plan.blocks_of_steps(0, config.steps - state.step)
    host = TrainHost(rank=rank, world_size=world_size, device=device, board=board)
    transforms = config.dataset.image_transforms
    with BlockStream(
        setup.spec, plan, num_blocks=len(blocks), options=_ingest_options(setup, world_size, plan)
    ) as stream:
        batches = TrainingBatches(
            stream,
            setup.spec,
            micro_batch=batching.micro_batch,
            device=device,
            preprocessor=setup.preprocessor,
            image_transform=ImageTransforms(transforms, seed=setup.seed) if transforms.enable else None,
        )
        with Beside(
            setup=setup,
            learner=learner,
            order=order,
            batches=batches,
            batching=batching,
            state=state,
            rank=rank,
            world_size=world_size,
            device=device,
            board=board,
            audit=AuditWriter(setup.output_dir, start.attempt, rank=rank) if start.attempt else None,
            held_out=_held_out(setup, rank, world_size, device),
        ) as beside:
            settings = LoopSettings(
                steps=config.steps,
                global_batch=batching.global_batch,
                accumulation_steps=batching.accumulation_steps,
                seed=setup.seed,
                log_freq=config.log_freq,
                save_freq=config.save_freq,
                eval_freq=config.eval_steps,
                saves_last=config.save_checkpoint,
                skips_nonfinite=config.on_nonfinite == "skip",
            )
            while True:
                state = train(learner, batches, state, settings, host, beside.hooks())
                if host.reason or state.step >= config.steps:
                    break
                logger.warning("a node of this run will be taken away: saved step %d, going on meanwhile", state.step)
            beside.finish(stopped=host.reason)


def build_learner(setup: RunSetup, *, device: torch.device, world_size: int, has_weights: bool) -> Learner:
    """Collective: every rank calls this. The policy on its devices and what moves it.

    `has_weights`: they come from a checkpoint, so that fetching pretrained ones would be for nothing.
    """
    config = setup.config
    policy_config: Any = config.policy
    precision = autocast_precision(config.accelerator, policy_config, device=device.type)
    dtype = PRECISIONS[precision]
    torch.manual_seed(setup.seed)
    policy = build_policy(
        _without_pretrained(policy_config) if has_weights else policy_config,
        dataset_stats=setup.stats,
        dataset_meta=setup.spec.metadata,
        device="cpu" if is_sharded(config.parallelism) else str(device),
    )
    policy.noise_seed = setup.seed
    placed = place(
        policy,
        device=device,
        world_size=world_size,
        parallelism=config.parallelism,
        accelerator=config.accelerator,
        compute_dtype=dtype,
    )
    optimizers = build_optimizers(config.optimizer, policy.get_optim_params())
    return Learner(
        policy=policy,
        forward=placed.forward,
        optimizers=optimizers,
        schedules=build_schedules(config.scheduler, optimizers, config.steps),
        grad_clip_norm=getattr(config.optimizer, "grad_clip_norm", 0.0) or 0.0,
        autocast_dtype=dtype,
        scaler=torch.amp.GradScaler(device.type) if precision == "fp16" else None,
        ema=Ema(policy, config.ema) if config.ema.enable else None,
        sync_gradients=placed.sync_gradients,
    )


def _without_pretrained(policy_config: Any) -> Any:
    policy_config = copy.deepcopy(policy_config)
    policy_config.pretrained_path = None
    if getattr(policy_config, "pretrained_backbone_weights", None) is not None:
        policy_config.pretrained_backbone_weights = None
    return policy_config


def _device(setup: RunSetup) -> torch.device:
    wanted = str(setup.config.policy.device)  # type: ignore[union-attr]
    return ray.train.torch.get_device() if wanted == "cuda" else torch.device(wanted)


def _set_up_torch(setup: RunSetup) -> None:
    torch.backends.cudnn.benchmark = not setup.config.cudnn_deterministic
    torch.backends.cudnn.deterministic = setup.config.cudnn_deterministic
    if "OMP_NUM_THREADS" not in os.environ:
        return
    # Ray gives a worker as many threads as CPUs it reserved, which is how many are its own.
    torch.set_num_threads(max(1, int(os.environ["OMP_NUM_THREADS"])))


def _plan(setup: RunSetup, order: Any, rank: int, world_size: int, *, start: int) -> StreamPlan:
    batching = setup.batching(world_size)
    cameras = sum(len(setup.spec.offsets.get(feature.name, (0,))) for feature in setup.spec.specs if feature.is_camera)
    by_frames = max(1, FRAMES_PER_BLOCK // max(1, cameras * batching.micro_batch))
    return StreamPlan(
        order=order,
        global_batch=batching.global_batch,
        micro_batch=batching.micro_batch,
        world_size=world_size,
        rank=rank,
        start=start,
        micro_batches_per_block=min(micro_batches_per_block(setup.spec.sample_bytes, batching.micro_batch), by_frames),
    )


def _ingest_options(setup: RunSetup, world_size: int, plan: StreamPlan) -> IngestOptions:
    config = setup.config
    training_cpus = world_size * (config.ray.resources_per_worker or {"CPU": 1.0}).get("CPU", 1.0)
    decoders = config.num_workers
    if decoders is None:
        cpus = ray.cluster_resources().get("CPU", 1.0)
        decoders = decoders_per_rank(cpus, training_cpus=training_cpus, world_size=world_size)
    ready = -(-config.prefetch_factor // plan.micro_batches_per_block)
    return IngestOptions(num_decoders=max(1, decoders), buffered_blocks=max(2, ready))


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
