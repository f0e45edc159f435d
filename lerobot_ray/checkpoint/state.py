"""Where a run stands, apart from its tensors: what a checkpoint says about steps, samples, order and dataset.

    training_state/lerobot_ray_state.json    a `RunRecord`: ours
    training_state/training_step.json        LeRobot's, with the keys of both its versions

A checkpoint of LeRobot has the second file only; `load_record` turns its step into our stream position.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import (
    OWN_STATE_NAME,
    PRETRAINED_DIR,
    TRAIN_CONFIG_NAME,
    TRAINING_STATE_DIR,
    TRAINING_STEP_NAME,
)
from lerobot_ray.data.order import LeRobotOrder
from lerobot_ray.data.plan import samples_seen_of_lerobot_step

RECORD_VERSION = 1


@dataclass(frozen=True)
class RunRecord:
    """Plain JSON: what a resumed run needs to see the samples the unbroken one would have seen."""

    step: int
    """Optimizer steps taken."""
    samples_seen: int
    """The next stream index."""
    seed: int
    global_batch: int
    world_size: int
    order: dict[str, Any] = field(default_factory=dict)
    """`order.state()`, for `data.order.check_order`."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """repo_id, fingerprint of the selection and of the features; little of it is known of a LeRobot checkpoint."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else the run wants back: a tracker's run id, for one."""
    version: int = RECORD_VERSION


def is_lerobot_checkpoint(checkpoint: Path) -> bool:
    """Whether LeRobot wrote it rather than this package."""
    return not (checkpoint / TRAINING_STATE_DIR / OWN_STATE_NAME).is_file()


def save_record(record: RunRecord, training_state: Path) -> None:
    """Both files. To LeRobot every step was of `global_batch` samples, without accumulation, on whole models."""
    training_state.mkdir(parents=True, exist_ok=True)
    theirs = {
        "step": record.step,
        "num_processes": record.world_size,
        "dp_world_size": record.world_size,
        "batch_size": record.global_batch // record.world_size,
        "grad_accum_steps": 1,
        "parallelism": {"dp_replicate": record.world_size, "dp_shard": 1, "ring_degree": 1, "ulysses_degree": 1},
    }
    for name, values in ((OWN_STATE_NAME, asdict(record)), (TRAINING_STEP_NAME, theirs)):
        (training_state / name).write_text(json.dumps(values, indent=4), encoding="utf-8")


def load_record(checkpoint: Path, *, num_samples: int | None = None) -> RunRecord:
    """Where the run of this checkpoint stood.

    For a checkpoint of LeRobot, `num_samples` is needed: the samples of the dataset as selected, N. Its order is then
    `lerobot`, with the seed of its train_config.json.
    """
    checkpoint = Path(checkpoint)
    if is_lerobot_checkpoint(checkpoint):
        if num_samples is None:
            raise CheckpointError(
                f"{checkpoint} was written by LeRobot: where it stands in the data follows from the number of samples "
                "of its dataset. Open the dataset first and pass num_samples."
            )
        return _converted(checkpoint, num_samples)
    path = checkpoint / TRAINING_STATE_DIR / OWN_STATE_NAME
    values = _read(path)
    if values.get("version", 0) > RECORD_VERSION:
        raise CheckpointError(f"{path} was written by a newer version of lerobot_ray. Update the package to resume it.")
    known = {item.name for item in fields(RunRecord)}
    try:
        return RunRecord(**{key: value for key, value in values.items() if key in known})
    except TypeError as error:
        raise CheckpointError(f"{path} does not say all a resume needs: {error}. Resume from another.") from error


def step_of(checkpoint: Path) -> int:
    """The step of any checkpoint."""
    return int(_number(_read(path := checkpoint / TRAINING_STATE_DIR / TRAINING_STEP_NAME), path, "step"))


def _converted(checkpoint: Path, num_samples: int) -> RunRecord:
    path = checkpoint / TRAINING_STATE_DIR / TRAINING_STEP_NAME
    values = _read(path)
    processes = _number(values, path, "num_processes", "dp_world_size")
    batch_size = _number(values, path, "batch_size") * values.get("grad_accum_steps", 1)
    config = _read(checkpoint / PRETRAINED_DIR / TRAIN_CONFIG_NAME)
    step, seed = _number(values, path, "step"), config.get("seed") or 0
    order = LeRobotOrder(num_samples, seed)
    return RunRecord(
        step=step,
        samples_seen=samples_seen_of_lerobot_step(step, num_samples, batch_size, processes),
        seed=seed,
        global_batch=batch_size * processes,
        world_size=processes,
        order=order.state(),
        dataset={"repo_id": config.get("dataset", {}).get("repo_id")},
    )


def _number(values: dict[str, Any], path: Path, *names: str) -> int:
    found = next((values[name] for name in names if name in values), None)
    if not isinstance(found, int):
        raise CheckpointError(f"{path} does not say {' or '.join(names)}. Resume from another checkpoint.")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not there, so the checkpoint is not whole. Resume from another.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Resume from an earlier checkpoint.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} does not hold settings. Resume from an earlier checkpoint.")
    return values
