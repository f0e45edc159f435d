"""One data file against the metadata: are its rows there, numbered, on the time grid, and finite?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_ray.core.errors import DatasetError, LerobotRayError
from lerobot_ray.core.types import EPISODE_INDEX, FRAME_INDEX, INDEX, TASK_INDEX, TIMESTAMP
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.images import decode_image
from lerobot_ray.data.problems import Problem
from lerobot_ray.data.recount import column_array
from lerobot_ray.data.storage import Storage

TOLERANCE_S = 1e-4
"""How far a timestamp may be from its frame's place on the grid: LeRobot's default."""

IMAGES_AT_A_TIME = 64
RECORD_AGAIN = "Record the episode again or exclude it."
FETCH_AGAIN = "Fetch the file again, or exclude its episodes."


@dataclass(frozen=True)
class RowsTask:
    """A data file and the episodes the metadata puts into it, in order."""

    storage: Storage
    path: str
    fps: float
    columns: tuple[FeatureSpec, ...]
    episodes: tuple[int, ...]
    first_rows: tuple[int, ...]
    lengths: tuple[int, ...]
    tasks: tuple[frozenset[int], ...]
    """Numbers of the tasks each episode may have."""
    quick: bool
    """Decode the first and the last image of an episode only."""


@dataclass
class RowsReport:
    """What was found, and the range of every number column, to hold against the statistics."""

    problems: list[Problem] = field(default_factory=list)
    low: dict[str, np.ndarray] = field(default_factory=dict)
    high: dict[str, np.ndarray] = field(default_factory=dict)


def check_rows(task: RowsTask) -> RowsReport:
    """Runs the checks of one file. Never raises for what is wrong with the data."""
    report = RowsReport()
    try:
        _check_file(task, report)
    except (LerobotRayError, OSError, pa.ArrowException) as error:
        report.problems.append(Problem(task.path, f"cannot be read: {_short(error)}.", FETCH_AGAIN, task.episodes))
    return report


def _check_file(task: RowsTask, report: RowsReport) -> None:
    file = pq.ParquetFile(task.storage.local(task.path))
    names = set(file.schema_arrow.names)
    if missing := [spec.name for spec in task.columns if spec.name not in names]:
        text = f"has no column {', '.join(missing)}, which info.json lists."
        report.problems.append(Problem(task.path, text, "Write the file again, or correct info.json.", task.episodes))
    expected = sum(task.lengths)
    if file.metadata.num_rows != expected:
        text = f"has {file.metadata.num_rows} rows; the episode table puts {expected} here."
        report.problems.append(
            Problem(task.path, text, "Every row after it would be read as another. " + FETCH_AGAIN, task.episodes)
        )
        return
    bounds = np.cumsum([0, *task.lengths])
    for spec in task.columns:
        if spec.name not in names:
            continue
        column = file.read(columns=[spec.name])[spec.name]
        if column.null_count and not spec.is_language:
            _per_episode(task, report, bounds, _nulls(column), f"{spec.name} has no value")
        if spec.is_image:
            report.problems += _bad_images(task, spec, column, bounds)
        elif spec.is_numeric and not column.null_count:
            values = column_array(column, spec, where=task.path)
            _check_numbers(task, report, spec, values, bounds)


def _check_numbers(
    task: RowsTask, report: RowsReport, spec: FeatureSpec, values: np.ndarray, bounds: np.ndarray
) -> None:
    frame = np.arange(bounds[-1]) - np.repeat(bounds[:-1], task.lengths)
    if spec.name in (INDEX, EPISODE_INDEX, FRAME_INDEX):
        wanted = {
            INDEX: frame + np.repeat(task.first_rows, task.lengths),
            EPISODE_INDEX: np.repeat(task.episodes, task.lengths),
            FRAME_INDEX: frame,
        }[spec.name]
        _per_episode(task, report, bounds, values != wanted, f"{spec.name} is not what its place in the file says")
    elif spec.name == TIMESTAMP:
        off = ~(np.abs(values - frame / task.fps) <= TOLERANCE_S + np.spacing(np.abs(values)) / 2)
        _per_episode(task, report, bounds, off, f"timestamp is not frame_index / {task.fps:g}")
    elif spec.name == TASK_INDEX:
        allowed = [np.isin(part, list(numbers)) for part, numbers in _by_episode(values, bounds, task.tasks)]
        _per_episode(task, report, bounds, ~np.concatenate(allowed), "task_index is not one of the episode's tasks")
    if values.dtype.kind == "f":
        flat = values.reshape(len(values), -1)
        finite = np.isfinite(flat)
        _per_episode(task, report, bounds, ~finite.all(axis=1), f"{spec.name} is NaN or infinite")
        flat = np.where(finite, flat, np.nan)
    else:
        flat = values.reshape(len(values), -1)
    if len(flat) and not np.isnan(flat.astype(np.float64)).all(axis=0).any():
        wide = flat.astype(np.float64).reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
        report.low[spec.name], report.high[spec.name] = np.nanmin(wide, axis=0), np.nanmax(wide, axis=0)


def _by_episode(values: np.ndarray, bounds: np.ndarray, about: Any) -> Iterator[tuple[np.ndarray, Any]]:
    return zip(np.split(values, bounds[1:-1]), about, strict=True)


def _per_episode(task: RowsTask, report: RowsReport, bounds: np.ndarray, wrong: np.ndarray, text: str) -> None:
    """One problem per episode with a wrong row, with how many and where the first is."""
    for part, episode in _by_episode(wrong, bounds, task.episodes):
        if part.any():
            first, number = int(np.argmax(part)), int(part.sum())
            where = f"in frame {first}" if number == 1 else f"in {number} frames, the first is {first}"
            report.problems.append(Problem(task.path, f"{text} {where}.", RECORD_AGAIN, (episode,)))


def _nulls(column: pa.ChunkedArray) -> np.ndarray:
    return column.is_null().to_numpy()


def _bad_images(task: RowsTask, spec: FeatureSpec, column: pa.ChunkedArray, bounds: np.ndarray) -> list[Problem]:
    height, width = spec.channels_first_shape[1:]
    problems = []
    for episode, start, stop in zip(task.episodes, bounds[:-1], bounds[1:], strict=True):
        rows = np.unique([start, stop - 1]) if task.quick else np.arange(start, stop)
        bad: list[tuple[int, str]] = []
        for at in range(0, len(rows), IMAGES_AT_A_TIME):
            chosen = rows[at : at + IMAGES_AT_A_TIME]
            for row, struct in zip(chosen, column.take(chosen).to_pylist(), strict=True):
                try:
                    pixels = decode_image(struct, depth=spec.is_depth)
                except DatasetError as error:
                    bad.append((int(row - start), _short(error)))
                    continue
                if pixels.shape[:2] != (height, width):
                    bad.append((int(row - start), f"is {pixels.shape[1]}x{pixels.shape[0]}, not {width}x{height}"))
        if bad:
            first, reason = bad[0]
            text = f"{spec.name}: {len(bad)} images are bad, the first in frame {first}: {reason}."
            problems.append(Problem(task.path, text, RECORD_AGAIN, (episode,)))
    return problems


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
