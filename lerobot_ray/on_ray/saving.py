"""A run's checkpoints on one rank: the copy taken between two steps, and what is said about the run in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lerobot_ray.checkpoint.commit import Entries
from lerobot_ray.checkpoint.retention import Retention
from lerobot_ray.checkpoint.save import write_snapshot
from lerobot_ray.checkpoint.sharded import PartWriter, write_sharded
from lerobot_ray.checkpoint.snapshot import Snapshot, take_snapshot
from lerobot_ray.checkpoint.state import RunRecord
from lerobot_ray.checkpoint.tensors import HostCopies
from lerobot_ray.checkpoint.together import Together
from lerobot_ray.checkpoint.writer import CheckpointWriter
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.data.metadata import features_fingerprint
from lerobot_ray.data.order import Order
from lerobot_ray.engine.learner import Learner
from lerobot_ray.engine.state import TrainState
from lerobot_ray.on_ray.evaluated import held_back, is_due
from lerobot_ray.on_ray.run_setup import RunSetup


class Saver:
    """Saves the learner as it is. Every rank has one; rank 0's writes, in a thread, or every rank's its part."""

    def __init__(
        self,
        setup: RunSetup,
        learner: Learner,
        order: Callable[[], Order],
        *,
        rank: int,
        world_size: int,
        after_commit: Callable[[Path], None],
        may_remove: Callable[[Path], bool] = lambda _: True,
        mark: str = "parts",
    ) -> None:
        """Collective: every rank calls this. `mark` is this start's, the same on all ranks."""
        config = setup.config
        self._setup, self._learner, self._order = setup, learner, order
        self._rank, self._world_size = rank, world_size
        self._in_parts = config.checkpoint_format != "safetensors"
        self._together = Together(rank=rank, world_size=world_size) if self._in_parts else None
        self._copies = HostCopies(keeps=rank == 0 or self._in_parts)
        self._metric = config.best_metric
        self._writer = None
        self._part_writer = None
        if rank == 0:
            self._writer = CheckpointWriter(
                setup.output_dir,
                total_steps=config.steps,
                write=self._write,
                after_commit=after_commit,
                may_remove=may_remove,
                retention=retention_of(config),
                mark=mark if self._in_parts else None,
            )
        elif self._together is not None:
            self._part_writer = PartWriter(
                setup.output_dir, total_steps=config.steps, mark=mark, together=self._together
            )

    def save(self, state: TrainState) -> None:
        """Collective: every rank calls this. Returns when the copy is taken; raises what an earlier save met."""
        self._wait()  # one copy in host memory at a time
        if self._world_size > 1:  # what the others wrote about these steps is on disk before a checkpoint says so
            torch.distributed.barrier()
        snapshot = take_snapshot(
            policy=self._learner.policy,
            optimizers=self._learner.optimizers,
            schedules=self._learner.schedules,
            ema=self._learner.ema,
            scaler=self._learner.scaler,
            record=self._record(state),
            rank=self._rank,
            copies=self._copies,
            in_parts=self._in_parts,
        )
        writer = self._writer or self._part_writer
        if writer is not None and snapshot is not None:
            writer.submit(snapshot)

    def settle(self) -> None:
        """Collective: every rank calls this. Until the last checkpoint is complete, for all to know."""
        self._wait()
        if self._world_size > 1:
            torch.distributed.barrier()

    def note(self, step: int, values: dict[str, float]) -> None:
        """What a checkpoint of this step is worth, if it is what decides which one is best."""
        if self._writer is not None and self._metric in values:
            self._writer.note_score(step, values[self._metric])

    def close(self) -> None:
        """Until the last checkpoint is complete; raises what it met."""
        self._wait()
        if self._together is not None:
            self._together.close()

    def remove_old(self) -> None:
        """What could not be removed while somebody read it. After `close`."""
        if self._writer is not None:
            self._writer.remove_old()

    def _wait(self) -> None:
        writer = self._writer or self._part_writer
        if writer is not None:
            writer.wait()

    def _write(self, snapshot: Snapshot, folder: Path) -> Entries | None:
        """Rank 0's side, in the writer's thread."""
        config, setup = self._setup.config, self._setup
        model: dict[str, Any] = {
            "config": config,
            "policy_config": config.policy,
            "preprocessor": setup.preprocessor,
            "postprocessor": setup.postprocessor,
        }
        if self._together is None:
            write_snapshot(snapshot, folder, **model)
            return None
        has_whole = has_whole_weights(setup, snapshot.record.step)
        return write_sharded(snapshot, folder, together=self._together, has_whole=has_whole, **model)

    def _record(self, state: TrainState) -> RunRecord:
        return run_record(self._setup, self._order(), state, world_size=self._world_size)


def has_whole_weights(setup: RunSetup, step: int) -> bool:
    """Whether the checkpoint of this step holds the weights whole: where somebody reads them, and at the end."""
    config = setup.config
    is_read = is_due(config, step) or (setup.push is not None and setup.push.checkpoints)
    return config.checkpoint_format != "dcp" or is_read or step >= config.steps


def retention_of(config: TrainConfig) -> Retention:
    """Which checkpoints of the run stay."""
    return Retention(
        keep_last=config.keep_last,
        keep_every=config.keep_every,
        keep_best=1 if config.best_metric else 0,
        lower_is_better=config.best_metric != "eval/pc_success",
        held_back=functools.partial(held_back, config),
    )


def run_record(setup: RunSetup, order: Order, state: TrainState, *, world_size: int) -> RunRecord:
    """What a checkpoint says about the run."""
    return RunRecord(
        step=state.step,
        samples_seen=state.samples_seen,
        seed=setup.seed,
        global_batch=setup.global_batch,
        world_size=world_size,
        order=order.state(),
        dataset=dataset_record(setup),
    )


def dataset_record(setup: RunSetup) -> dict[str, Any]:
    """Which samples a run trains on, to compare when it is resumed."""
    metadata = setup.spec.metadata
    return {
        "repo_id": metadata.repo_id,
        "selection": setup.spec.selection.fingerprint(),
        "features": features_fingerprint(metadata),
    }
