"""The output folder of a run: whether it may be used, which checkpoint is continued, and that one run uses it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lerobot_ray.checkpoint.commit import MANIFEST_NAME, complete_checkpoints, sweep
from lerobot_ray.checkpoint.find import find_checkpoint, step_folders, what_is_missing
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import CheckpointError, ConfigError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, CONFIG_NAME, PRETRAINED_DIR
from lerobot_ray.data.audit import AUDIT_DIR
from lerobot_ray.hub.client import check_can_push
from lerobot_ray.hub.elsewhere import audit_beside
from lerobot_ray.hub.fetch import fetch, newest_step

LOCK_NAME = ".running.lock"
RAY_DIR = ".ray"
"""Ray Train's own small files. Checkpoints are not among them."""


def refuse_used_folder(config: TrainConfig) -> None:
    """ConfigError when results of another run are there and this one does not continue them."""
    folder = config.output_dir
    assert folder is not None
    if config.resume is False and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} exists already. Give another --output_dir, or continue what is there with --resume=auto."
        )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block no other run uses the folder; ConfigError when one does. Cleared of what crashed writers left.

    The lock is the operating system's: it goes with the process, however that ends.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another run is writing to {folder}. Wait for it or stop it, or give another --output_dir."
        ) from None
    try:
        if (folder / CHECKPOINTS_DIR).is_dir():
            sweep(folder)
        yield
    finally:
        lock.release()


def checkpoint_to_resume(config: TrainConfig) -> Path | None:
    """The checkpoint this run begins from; None: from step 0. CheckpointError when the one it asks for is not there."""
    assert config.output_dir is not None
    if config.resume == "auto":
        steps = step_folders(config.output_dir / CHECKPOINTS_DIR)
        if any(not what_is_missing(step) for step in steps):
            return find_checkpoint(config.output_dir)
        return newest_on_hub(config)
    if config.resume is True:
        assert config.checkpoint_path is not None
        return find_checkpoint(config.checkpoint_path)
    return None


def newest_on_hub(config: TrainConfig) -> Path | None:
    """The newest checkpoint that an earlier start of this run has pushed, fetched; None when there is none."""
    repo_id = config.policy.repo_id if config.policy is not None else None
    if not (config.save_checkpoint_to_hub and repo_id):
        return None
    check_can_push(f"policy.repo_id={repo_id}", "leave out save_checkpoint_to_hub")
    return fetch(repo_id, what="checkpoint") if newest_step(repo_id) is not None else None


def restore_audit(checkpoint: Path, output_dir: Path) -> None:
    """Bring the audit that was kept with a fetched checkpoint into a run's folder that has none."""
    audit = None if (output_dir / AUDIT_DIR).exists() else audit_beside(checkpoint)
    if audit is None:
        return
    fresh = output_dir / f".{AUDIT_DIR}"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(audit, fresh)  # the cache has links to its files; these are copies
    fresh.rename(output_dir / AUDIT_DIR)


def check_same_policy(checkpoint: Path, config: TrainConfig) -> None:
    """CheckpointError when the checkpoint is of another type of policy."""
    import json

    saved = json.loads((checkpoint / PRETRAINED_DIR / CONFIG_NAME).read_text()).get("type")
    assert config.policy is not None
    if saved != config.policy.type:
        raise CheckpointError(
            f"{checkpoint} is of a policy of type {saved}, this run trains {config.policy.type}. "
            f"Resume with --policy.type={saved}, or give another --output_dir."
        )


def marks_of_checkpoints(folder: Path) -> tuple[tuple[str, int], ...]:
    """The checkpoints there are now, told from later ones of the same name by the time of their manifests."""
    return tuple((path.name, _mark(path)) for path in complete_checkpoints(folder))


def latest_checkpoint(folder: Path, *, not_ours: tuple[tuple[str, int], ...]) -> Path | None:
    """The newest complete checkpoint that this run has written."""
    own = [path for path in complete_checkpoints(folder) if (path.name, _mark(path)) not in not_ours]
    return own[-1] if own else None


def _mark(checkpoint: Path) -> int:
    return (checkpoint / MANIFEST_NAME).stat().st_mtime_ns
