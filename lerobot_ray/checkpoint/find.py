"""From what a person points at to a complete checkpoint of this package or of LeRobot."""

from __future__ import annotations

import json
from pathlib import Path

from lerobot_ray.checkpoint.commit import damaged_files
from lerobot_ray.checkpoint.optimizer import GROUPS_NAME, SCHEDULER_NAME, STATE_NAME
from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import (
    ADAPTER_WEIGHTS_NAME,
    CHECKPOINTS_DIR,
    CONFIG_NAME,
    LAST_LINK,
    PRETRAINED_DIR,
    PRETRAINED_EMA_DIR,
    TRAIN_CONFIG_NAME,
    TRAINING_STATE_DIR,
    TRAINING_STEP_NAME,
    WEIGHTS_NAME,
)


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint folder meant by it, its `pretrained_model`, its `train_config.json`, `last`, or a run's folder.

    Of a run it is the newest complete one. CheckpointError says what is there instead. Trusts sizes, not bytes:
    `commit.verify` reads them.
    """
    given = Path(path).expanduser()
    place = given.parent if given.is_file() else given
    if place.name in (PRETRAINED_DIR, PRETRAINED_EMA_DIR, TRAINING_STATE_DIR):
        place = place.parent
    if place.name == LAST_LINK and place.is_symlink():  # its own folder: `last` moves on while this run saves
        place = place.parent / place.readlink()
    run_checkpoints = place / CHECKPOINTS_DIR if (place / CHECKPOINTS_DIR).is_dir() else place
    steps = step_folders(run_checkpoints)
    if steps:
        whole = [step for step in steps if not what_is_missing(step)]
        if not whole:
            raise CheckpointError(f"{given} holds no complete checkpoint. {_listing(run_checkpoints)}")
        return whole[-1]
    if not place.is_dir() or run_checkpoints != place:
        around = place / CHECKPOINTS_DIR if run_checkpoints != place else place.parent
        raise CheckpointError(f"there is no checkpoint at {given}. {_listing(around)}")
    if missing := what_is_missing(place):
        raise CheckpointError(f"{place} is not a complete checkpoint: {missing}. {_listing(place.parent)}")
    return place


def step_folders(checkpoints: Path) -> list[Path]:
    """The folders named like steps, oldest first, complete or not."""
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.iterdir() if path.name.isdigit() and path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: int(path.name))


def what_is_missing(checkpoint: Path) -> str:
    """Why this is no complete checkpoint, in words; empty when it is one."""
    damaged = damaged_files(checkpoint)
    if damaged is None:  # LeRobot keeps no list of files, so look for what a resume reads
        damaged = _damaged_without_manifest(checkpoint)
    if not damaged:
        return ""
    rest = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    return f"{', '.join(damaged[:3])}{rest} missing or cut short"


def _damaged_without_manifest(checkpoint: Path) -> list[str]:
    pretrained, state = checkpoint / PRETRAINED_DIR, checkpoint / TRAINING_STATE_DIR
    adapter = pretrained / ADAPTER_WEIGHTS_NAME
    weights = adapter if adapter.exists() else pretrained / WEIGHTS_NAME
    needed = [pretrained / TRAIN_CONFIG_NAME, weights, state / TRAINING_STEP_NAME]
    if weights is not adapter:
        needed.append(pretrained / CONFIG_NAME)
    optimizers = sorted(path.parent for path in state.glob(f"**/{GROUPS_NAME}")) or [state]
    for folder in optimizers:
        needed += [folder / GROUPS_NAME, folder / STATE_NAME]
    if _has_schedule(pretrained / TRAIN_CONFIG_NAME):  # the file LeRobot writes last
        needed.append(state / SCHEDULER_NAME)
    return [path.relative_to(checkpoint).as_posix() for path in needed if not _is_whole(path)]


def _has_schedule(train_config: Path) -> bool:
    try:
        return json.loads(train_config.read_text(encoding="utf-8")).get("scheduler") is not None
    except (OSError, ValueError):
        return False


def _is_whole(path: Path) -> bool:
    """Whether the file is there and as long as it says it is."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
            return True
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return path.stat().st_size == 8 + header_bytes + max(ends, default=0)
    except (OSError, ValueError, KeyError, OverflowError, MemoryError):
        return False


def _listing(checkpoints: Path) -> str:
    steps = step_folders(checkpoints)
    if not steps:
        return f"{checkpoints} holds no checkpoint, complete or not." if checkpoints.is_dir() else ""
    words = [f"{step.name} ({what_is_missing(step) or 'complete'})" for step in steps[-5:]]
    return f"In {checkpoints}: {', '.join(words)}."
