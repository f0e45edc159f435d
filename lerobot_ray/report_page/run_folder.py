"""Everything the page is made of, read from a run's folder. Nothing here decides how it looks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_ray.checkpoint.commit import complete_checkpoints
from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import CHECKPOINTS_DIR, LAST_LINK
from lerobot_ray.report_page.coverage import Coverage, load_coverage
from lerobot_ray.report_page.step_time import StepTime, step_time
from lerobot_ray.tracking.metric_log import AttemptLog, MetricLog, load_metrics

STILL_ALIVE_S = 180.0
"""A run that said something so recently, and no end, is taken to be running."""


@dataclass(frozen=True)
class CheckpointFolder:
    step: int | None
    """None: a folder a writer has not finished."""
    name: str
    num_bytes: int
    saved_s: float
    is_complete: bool
    is_last: bool
    """The one `last` points at."""


@dataclass(frozen=True, eq=False)
class RunFolder:
    folder: Path
    log: MetricLog
    checkpoints: tuple[CheckpointFolder, ...]
    coverage: Coverage | str
    """Or a sentence why there is none."""
    videos: tuple[Path, ...]
    """Of the newest evaluation."""
    step_time: StepTime | None
    read_s: float
    """When this was read, Unix time."""

    @property
    def newest(self) -> AttemptLog:
        return self.log.attempts[-1]

    @property
    def info(self) -> Mapping[str, Any]:
        """What the newest start of the run said about itself."""
        return self.newest.info

    @property
    def config(self) -> Mapping[str, Any]:
        return self.info.get("config") or {}

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.info.get("facts") or {}

    @property
    def last_step(self) -> int:
        return self.newest.last_step

    @property
    def total_steps(self) -> int:
        return int(self.info.get("total_steps") or 0)

    @property
    def is_running(self) -> bool:
        return self.newest.status is None and self.read_s - self.newest.last_s < STILL_ALIVE_S


def load_run(run_dir: Path) -> RunFolder:
    """Read a run's folder, finished or not. DatasetError when it holds no metrics."""
    log = load_metrics(run_dir)
    if not log.attempts:
        raise DatasetError(f"{run_dir}: its metrics have no readable line. There is nothing to report on.")
    facts = log.attempts[-1].info.get("facts") or {}
    return RunFolder(
        folder=run_dir,
        log=log,
        checkpoints=_checkpoints(run_dir),
        coverage=load_coverage(run_dir, facts),
        videos=_newest_videos(run_dir),
        step_time=step_time(log),
        read_s=time.time(),
    )


def _checkpoints(run_dir: Path) -> tuple[CheckpointFolder, ...]:
    parent = run_dir / CHECKPOINTS_DIR
    if not parent.is_dir():
        return ()
    complete = set(complete_checkpoints(run_dir))
    last = (parent / LAST_LINK).resolve() if (parent / LAST_LINK).exists() else None
    found = []
    for path in sorted(parent.iterdir()):
        if path.is_symlink() or not path.is_dir():
            continue
        files = [file.stat() for file in path.rglob("*") if file.is_file()]
        found.append(
            CheckpointFolder(
                step=int(path.name) if path.name.isdigit() else None,
                name=path.name,
                num_bytes=sum(stat.st_size for stat in files),
                saved_s=max((stat.st_mtime for stat in files), default=path.stat().st_mtime),
                is_complete=path in complete,
                is_last=path.resolve() == last,
            )
        )
    return tuple(sorted(found, key=lambda entry: (entry.step is None, entry.step or 0)))


def _newest_videos(run_dir: Path) -> tuple[Path, ...]:
    folders = [path for path in (run_dir / "eval").glob("videos_step_*") if path.is_dir()]
    folders.sort(key=lambda path: int(path.name.rpartition("_")[2]) if path.name[-1].isdigit() else -1)
    return tuple(sorted(folders[-1].rglob("*.mp4"))) if folders else ()
