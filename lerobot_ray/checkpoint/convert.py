"""A checkpoint in parts as one of whole files, which LeRobot loads and resumes."""

from __future__ import annotations

import shutil
from pathlib import Path

from lerobot_ray.checkpoint.assemble import write_whole
from lerobot_ray.checkpoint.commit import MANIFEST_NAME, new_checkpoint
from lerobot_ray.checkpoint.optimizer import GROUPS_NAME, MAIN, STATE_NAME, key_of
from lerobot_ray.checkpoint.saved import open_saved
from lerobot_ray.checkpoint.sharded import add_whole_weights
from lerobot_ray.checkpoint.snapshot import OPTIMIZERS
from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_WEIGHTS_NAME,
    CHECKPOINTS_DIR,
    PRETRAINED_DIR,
    SHARDED_DIR,
    TRAINING_STATE_DIR,
    WEIGHTS_NAME,
)


def convert(checkpoint: Path, output: Path) -> Path:
    """Write `output/checkpoints/<step>`, committed as any; the folder. One tensor at a time is in memory."""
    parts = checkpoint / SHARDED_DIR
    if not parts.is_dir():
        raise CheckpointError(f"{checkpoint} holds whole files already: there is no {SHARDED_DIR} in it.")
    final = output / CHECKPOINTS_DIR / checkpoint.name
    if final.exists():
        raise CheckpointError(f"{final} exists already. Give another output folder.")
    is_adapter = (checkpoint / PRETRAINED_DIR / ADAPTER_CONFIG_NAME).is_file()
    name_of_last = int("9" * len(checkpoint.name))  # as many digits
    with new_checkpoint(output, int(checkpoint.name), total_steps=name_of_last) as folder:
        shutil.copytree(
            checkpoint, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SHARDED_DIR, MANIFEST_NAME)
        )
        add_whole_weights(parts, folder, ADAPTER_WEIGHTS_NAME if is_adapter else WEIGHTS_NAME)
        _write_optimizers(parts / OPTIMIZERS, folder / TRAINING_STATE_DIR)
    return final


def _write_optimizers(parts: Path, training_state: Path) -> None:
    with open_saved(parts) as tensors:
        for groups in sorted(training_state.rglob(GROUPS_NAME)):
            folder = groups.parent
            owner = MAIN if folder == training_state else folder.name
            own = {}
            for key, saved in tensors.items():
                of, number, name = key.split("/", 2)
                if of == owner:
                    own[key_of(int(number), name)] = saved
            write_whole(own, folder / STATE_NAME)
