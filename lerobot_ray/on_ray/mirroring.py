"""A run with `--ray.storage_path=s3://…`: checked on the driver, copied there by the rank that writes checkpoints.

Training sees its local folder only. What the store has and a folder has not, after a disk was lost, is brought back
before anybody looks for a checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path

from lerobot_ray.checkpoint.carrier import MAX_WAITING
from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.checkpoint.mirror import Mirror
from lerobot_ray.checkpoint.state import step_of
from lerobot_ray.checkpoint.store import RunStore, below
from lerobot_ray.checkpoint.stored import (
    bring_back,
    fetch_small_files,
    is_stored,
    stored_steps,
    upload_small_files,
)
from lerobot_ray.config.ray import store_of_runs
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError, StorageError
from lerobot_ray.core.layout import CHECKPOINTS_DIR
from lerobot_ray.on_ray.hub_side import own_checkpoints
from lerobot_ray.on_ray.run_folder import claimed, latest_checkpoint
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.on_ray.saving import retention_of

logger = logging.getLogger(__name__)

# The driver


def open_store(config: TrainConfig) -> RunStore | None:
    """The run's place in an object store, if it has one; StorageError when it may not be written to.

    With `resume=auto` what is there and not in the output folder is brought back first.
    """
    url = store_of_runs(config.ray)
    if url is None:
        return None
    assert config.output_dir is not None
    store = RunStore(below(url, config.output_dir.name))
    store.probe()
    if config.resume == "auto":
        with claimed(config.output_dir):
            bring_back(store, config.output_dir)
    return store


def check_store(store: RunStore, config: TrainConfig, resume_from: Path | None) -> None:
    """ConfigError when checkpoints of another run are there, or of steps that this one will train again."""
    steps = stored_steps(store)
    first = step_of(resume_from) if resume_from is not None else -1
    if steps and max(steps) > first:
        where = f"the last of step {max(steps)}" + (f", this run continues from {first}" if first >= 0 else "")
        raise ConfigError(
            f"{store.url} holds checkpoints already ({where}). Continue from the last with --resume=true "
            f"--config_path={store.url}, or name this run otherwise: its name there is that of --output_dir."
        )
    if resume_from is not None and first in steps and not is_stored(store, resume_from):
        raise ConfigError(
            f"{store.url} holds another step {first} than {resume_from}, which this run continues: they are of "
            "different runs. Name this run otherwise: its name there is that of --output_dir."
        )
    if steps and config.output_dir is not None:
        with claimed(config.output_dir):
            fetch_small_files(store, config.output_dir)


def collect(store: RunStore, output_dir: Path) -> None:
    """After the run: its numbers here for the report, wherever it trained. Worth a line if it fails."""
    try:
        fetch_small_files(store, output_dir)
    except (StorageError, OSError) as error:
        logger.warning("the run's logs stay in %s: %s", store.url, error)


def send_rest(store: RunStore, output_dir: Path) -> None:
    """After the run: its report, and what evaluations have left here. Worth a line if it fails."""
    try:
        upload_small_files(store, output_dir)
    except (StorageError, OSError) as error:
        logger.warning("the report is not in %s: %s", store.url, error)


def last_checkpoint(store: RunStore | None, output_dir: Path) -> str:
    """Where the newest checkpoint is, for a person; empty when there is none."""
    here = complete_checkpoints(output_dir)
    if store is not None and not here:  # it was trained on another machine
        try:
            steps = stored_steps(store)
        except StorageError:
            steps = {}
        if steps:
            return f"{store.url}/{CHECKPOINTS_DIR}/{steps[max(steps)]}"
    return str(here[-1]) if here else ""


# The rank that writes checkpoints


def newest_of_run(
    output_dir: Path, *, store: RunStore | None, resume_from: Path | None, not_ours: tuple[tuple[str, int], ...] = ()
) -> Path | None:
    """The checkpoint that a start begins with: this run's newest, here or brought back, else the one it continues.

    StorageError when the store cannot be asked and this machine has nothing of the run.
    """
    own = latest_checkpoint(output_dir, not_ours=not_ours)
    if store is not None:
        begun = step_of(resume_from) if resume_from is not None else -1
        try:
            bring_back(store, output_dir, newer_than=begun)
        except StorageError as error:
            if own is None:
                raise
            logger.warning("%s Going on with %s.", error, own)
        own = latest_checkpoint(output_dir, not_ours=not_ours)
    return own or resume_from


class MirrorSide:
    """A run's way to its store, on the rank that writes its checkpoints. Nothing in here stops training."""

    def __init__(self, setup: RunSetup, store: RunStore, *, first_step: int) -> None:
        self._setup, self._store = setup, store
        self._mirror = Mirror(store, setup.output_dir, retention=retention_of(setup.config))
        for checkpoint in own_checkpoints(setup, up_to=first_step)[-MAX_WAITING:]:  # an earlier start was cut off
            self._mirror.submit(checkpoint)

    def submit(self, checkpoint: Path) -> None:
        self._mirror.submit(checkpoint)

    def may_remove(self, checkpoint: Path) -> bool:
        """Whether nobody reads this checkpoint any more."""
        return not self._mirror.is_needed(checkpoint)

    def finish(self, *, is_done: bool) -> None:
        """Wait for what is on its way."""
        self._mirror.finish()
        send_rest(self._store, self._setup.output_dir)
        if summary := self._mirror.summary():
            logger.warning("%s", summary)

    def abandon(self) -> None:
        """The training process ends with an error; its successor goes on where this one stopped."""
        self._mirror.abandon()
