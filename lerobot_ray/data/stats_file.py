"""`meta/stats.json` as a file: written whole, and the one before it kept when it is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import STATS_PATH
from lerobot_ray.core.types import Stats
from lerobot_ray.data.disk import write_json
from lerobot_ray.data.stats import as_json


def replace_stats(root: Path, stats: Stats) -> Path:
    """The statistics of the dataset in this folder; those it had stay beside them, as stats.json.bak."""
    path = root / STATS_PATH
    if path.is_file():
        shutil.copy2(path, path.with_name("stats.json.bak"))
    write_stats(path, stats)
    return path


def write_stats(path: Path, stats: Stats) -> None:
    """A file as LeRobot reads it. DatasetError when it cannot be written."""
    try:
        write_json(path, as_json(stats))
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}.") from error
