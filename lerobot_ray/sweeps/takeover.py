"""A trial takes over another's checkpoint: from then on it is its own, and a resume finds it there.

Three moves, each of which may be the last before a crash: the donor's newest checkpoint is copied aside in the trial's
folder (by hard links where the file system has them), the journal names it, and it replaces the trial's own
checkpoints. The last can be done again until it is done, so a resume begins with it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lerobot_ray.checkpoint.commit import complete_checkpoints, point_last_at
from lerobot_ray.core.errors import CheckpointError
from lerobot_ray.core.layout import CHECKPOINTS_DIR
from lerobot_ray.on_ray.evaluated import info_path, is_evaluated

ASIDE = ".taken-over-"


def set_aside(donor: Path, trial: Path, *, generation: int) -> str:
    """Copy the donor's newest checkpoint into the trial's folder; its name."""
    found = complete_checkpoints(donor)
    if not found:
        raise CheckpointError(f"{donor} holds no complete checkpoint to take over. Leave save_checkpoint on.")
    aside = trial / f"{ASIDE}{generation}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    shutil.copytree(found[-1], aside / found[-1].name, copy_function=_link)
    if is_evaluated(found[-1]):  # what its rollouts brought holds for the taker, too
        shutil.copy2(info_path(found[-1]), aside)
    return found[-1].name


def install(trial: Path, *, generation: int) -> bool:
    """Put what was set aside in the place of the trial's own checkpoints; False when that was done before."""
    aside = trial / f"{ASIDE}{generation}"
    kept = [path for path in aside.iterdir() if path.name.isdigit()] if aside.is_dir() else []
    if not kept:
        shutil.rmtree(aside, ignore_errors=True)
        return False
    for info in aside.glob("*.json"):
        place = info_path(trial / CHECKPOINTS_DIR / kept[0].name)
        place.parent.mkdir(exist_ok=True)
        shutil.copy2(info, place)
    checkpoints = trial / CHECKPOINTS_DIR
    shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.mkdir(parents=True)
    kept[0].rename(checkpoints / kept[0].name)
    point_last_at(checkpoints / kept[0].name)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
