"""The driver of a training run: refuses, starts the workers, shows how they do, says how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lerobot_ray.checkpoint.state import is_lerobot_checkpoint, load_record, step_of
from lerobot_ray.config.dataset import sample_order
from lerobot_ray.config.ray import folder_of_runs
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import CheckpointError, ConfigError, LerobotRayError
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.metadata import DatasetMetadata, check_same_features
from lerobot_ray.data.order import check_order
from lerobot_ray.on_ray.banner import banner
from lerobot_ray.on_ray.capacity import capacity_now
from lerobot_ray.on_ray.cluster import (
    Workers,
    connected,
    is_connected_or_remote,
    nodes_of_cluster,
    workers_here,
    workers_within,
)
from lerobot_ray.on_ray.ending import conclude, say
from lerobot_ray.on_ray.evaluated import evaluates
from lerobot_ray.on_ray.evaluation import cpus_of_rollouts
from lerobot_ray.on_ray.fit import Fit
from lerobot_ray.on_ray.frame_caches import release_frame_caches
from lerobot_ray.on_ray.lasting_actors import keep_lasting_actors_here
from lerobot_ray.on_ray.mirroring import check_store, open_store
from lerobot_ray.on_ray.outline import check_units
from lerobot_ray.on_ray.plan_run import plan_run
from lerobot_ray.on_ray.progress import Progress
from lerobot_ray.on_ray.rollout_check import check_room
from lerobot_ray.on_ray.run_evaluations import RunEvaluations
from lerobot_ray.on_ray.run_folder import (
    check_same_policy,
    checkpoint_to_resume,
    claimed,
    marks_of_checkpoints,
    refuse_used_folder,
    restore_audit,
)
from lerobot_ray.on_ray.run_samples import open_dataset
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.saving import dataset_record
from lerobot_ray.on_ray.waiting import Waiting

logger = logging.getLogger(__name__)

POLL_S = 0.3


def train(config: TrainConfig) -> int:
    """Run it; the exit code: 0 done, 1 failed, 2 refused, 128 + signal when stopped by one with a checkpoint saved."""
    try:
        return run(config)
    except LerobotRayError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("error: interrupted. The last complete checkpoint stays; continue with --resume=auto.")
        return 128 + signal.SIGINT


def run(config: TrainConfig) -> int:
    """As `train`, but what is refused is raised."""
    config = with_absolute_paths(config)
    refuse_used_folder(config)
    store = open_store(config)
    resume_from = checkpoint_to_resume(config)
    if resume_from is not None:
        check_same_policy(resume_from, config)
    if store is not None:
        check_store(store, config, resume_from)
    metadata = open_dataset(config)
    is_there = is_connected_or_remote(config.ray)
    device = config.policy.device if config.policy else None
    workers = None if is_there else workers_here(config.ray, device)
    setup = None if workers is None else settle(config, metadata, workers, resume_from)
    assert config.output_dir is not None
    rollout_cpus = cpus_of_rollouts(config.eval) if evaluates(config) else 0.0
    with claimed(config.output_dir), connected(config.ray, workers, rollout_cpus=rollout_cpus):
        if workers is None or setup is None:
            capacity = capacity_now()
            workers = workers_within(capacity, config.ray, device)
            setup = settle(config, metadata, workers, resume_from)
            setup = dataclasses.replace(setup, most_cpus=capacity.at_most("CPU"), cluster_grows=capacity.grows)
        if evaluates(config):
            check_room(config.eval, nodes_of_cluster())
        setup = dataclasses.replace(with_push(setup), store=store)
        if resume_from is not None and config.audit:
            restore_audit(resume_from, config.output_dir)
        if is_there:
            keep_lasting_actors_here()
        try:
            return supervise(setup, workers, where="the cluster" if is_there else "this machine")
        finally:
            if setup.runs_at_once == 1:  # the runs of a sweep hand theirs on
                release_frame_caches(setup.spec.cache)


def settle(config: TrainConfig, metadata: DatasetMetadata, workers: Workers, resume_from: Path | None) -> RunSetup:
    """The run on these workers; LerobotRayError for what cannot work."""
    assert config.output_dir is not None
    assert config.policy is not None
    device = "cuda" if workers.use_gpu else "mps" if config.policy.device == "mps" else "cpu"
    own = marks_of_checkpoints(config.output_dir)
    config = with_order_of_checkpoint(config, resume_from)
    setup = plan_run(config, metadata, world_size=workers.count, device=device, resume_from=resume_from, not_ours=own)
    check_units(setup)
    for count in range(workers.fewest, workers.count + 1):
        if workers.fewest < workers.count and setup.global_batch % count:
            logger.warning(
                "with %d workers a global batch of %d cannot be shared out; the run would stop there",
                count,
                setup.global_batch,
            )
    if resume_from is not None:
        compare_with_checkpoint(setup, resume_from, workers.count)
    return setup


def with_order_of_checkpoint(config: TrainConfig, checkpoint: Path | None) -> TrainConfig:
    """Samples in the order of the checkpoint that is continued, unless one was asked for. LeRobot's have LeRobot's."""
    if checkpoint is None or config.dataset.order is not None:
        return config
    name: Any = "lerobot" if is_lerobot_checkpoint(checkpoint) else load_record(checkpoint).order.get("name")
    if name is None or name == sample_order(config.dataset):
        return config
    logger.info("samples come in the order of the checkpoint, %s", name)
    return dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, order=name))


def with_push(setup: RunSetup) -> RunSetup:
    """The setup with what goes to the Hub, its repository there and fit for it; ConfigError otherwise."""
    from lerobot_ray.hub.preflight import plan_push

    first_step = step_of(setup.resume_from) if setup.resume_from is not None else 0
    plan = plan_push(setup.config, resume_from=setup.resume_from, first_step=first_step)
    return dataclasses.replace(setup, push=plan)


def compare_with_checkpoint(setup: RunSetup, checkpoint: Path, world_size: int) -> None:
    """CheckpointError when the run would not continue what the checkpoint began; what changes is said."""
    record = load_record(checkpoint, num_samples=setup.num_samples)
    order = setup.order.inner if isinstance(setup.order, SkippingOrder) else setup.order
    check_order(record.order, setup.order if "dropped_episodes" in record.order else order, checkpoint=str(checkpoint))
    if "features" in record.dataset:
        check_same_features(record.dataset["features"], setup.spec.metadata)
    if "selection" in record.dataset and record.dataset["selection"] != dataset_record(setup)["selection"]:
        raise CheckpointError(
            f"{checkpoint} was trained on other episodes or frames. Resume with the dataset and selection it was "
            "saved with, or start a new run from its policy with --policy.path."
        )
    if record.global_batch != setup.global_batch:
        logger.warning(
            "%d workers in place of %d make a global batch of %d in place of %d: no sample is lost or repeated, but "
            "steps are of another size from here on. --global_batch_size=%d keeps it.",
            world_size,
            record.world_size,
            setup.global_batch,
            record.global_batch,
            record.global_batch,
        )
    elif record.world_size != world_size:
        logger.info(
            "%d workers in place of %d: the same global batches of %d, shared out anew",
            world_size,
            record.world_size,
            setup.global_batch,
        )


def supervise(setup: RunSetup, workers: Workers, *, where: str) -> int:
    """Start the workers and stay with them until they are done; the exit code."""
    import ray

    from lerobot_ray.on_ray.board import start_board
    from lerobot_ray.on_ray.token import give_token

    progress = Progress(setup.config.steps)
    progress.say(banner(setup, workers, where=where))
    board = start_board()
    give_token(board)
    fit, waiting = Fit(setup, workers, board), Waiting(workers)
    evaluations = RunEvaluations(setup, deliver=board.deliver.remote, say=progress.say)
    received: list[int] = []
    with noted_signals(received), contextlib.closing(evaluations):
        fit.start()
        asked = False
        while fit.is_alive():
            fit.join(POLL_S)
            with contextlib.suppress(ray.exceptions.RayError):
                notes = ray.get(board.take.remote(), timeout=10)
                show(notes, progress, evaluations)
                if notes:
                    waiting.heard()
            if text := waiting.news():
                progress.say(text)
            evaluations.poll()
            if received and not asked:
                asked = True
                progress.say("stopping after this step, with a checkpoint; once more to stop at once")
                board.request_stop.remote(signal.Signals(received[0]).name)
            if len(received) > 1 or (received and waiting.is_waiting):  # nobody is there who could save first
                raise KeyboardInterrupt
        with contextlib.suppress(ray.exceptions.RayError):
            show(ray.get(board.take.remote(), timeout=10), progress, evaluations)
        error = fit.error
        with contextlib.suppress(ray.exceptions.RayError):
            error = ray.get(board.fatal.remote(), timeout=30) or error
        if error is None:
            evaluations.finish(waits_for=progress.waits_for, should_stop=lambda: bool(received))
    progress.clear()
    return conclude(setup, error, received)


def show(notes: list[tuple[str, Any]], progress: Progress, evaluations: RunEvaluations) -> None:
    for kind, value in notes:
        if kind == "step":
            progress.at(value)
        elif kind == "numbers":
            progress.numbers(*value)
        elif kind == "parameters":
            progress.say(f"{value[0] / 1e6:.3g} M parameters trained of {value[1] / 1e6:.3g} M")
        elif kind == "checkpoint":
            evaluations.add(value)
        elif kind == "log":
            progress.say(value[1])


@contextlib.contextmanager
def noted_signals(received: list[int]) -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM are noted down."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Workers run in other folders than the user."""
    if config.output_dir is None:
        raise ConfigError("output_dir is not set.")
    dataset = config.dataset
    if dataset.root is not None and "://" not in dataset.root:
        dataset = dataclasses.replace(dataset, root=str(Path(dataset.root).expanduser().absolute()))
    policy = config.policy
    if policy is not None and policy.pretrained_path and Path(policy.pretrained_path).expanduser().is_dir():
        policy.pretrained_path = str(Path(policy.pretrained_path).expanduser().absolute())
    return dataclasses.replace(
        config,
        dataset=dataset,
        policy=policy,
        output_dir=folder_of_runs(config.ray) / Path(config.output_dir).expanduser(),
        checkpoint_path=config.checkpoint_path and Path(config.checkpoint_path).expanduser().absolute(),
    )
