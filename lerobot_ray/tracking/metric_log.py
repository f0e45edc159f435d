"""Reads `metrics.jsonl`: the curves of what the model was trained on, without those steps a restart took back.

A restarted run goes back to its checkpoint, and so do its curves: lines of an attempt count up to the step where a
later attempt began, as rows of the audit do. A line torn by a kill is skipped and counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.tracking.jsonl import METRICS_FILE

_OTHER_KEYS = frozenset({"event", "step", "time", "attempt"})


@dataclass(frozen=True, eq=False)
class Series:
    """One metric over the run, by rising step."""

    step: np.ndarray
    value: np.ndarray
    """float64; not a number where the run logged no finite one."""
    time_s: np.ndarray
    """Unix time."""
    attempt: np.ndarray

    @property
    def finite(self) -> Series:
        """Only the entries whose value is finite; may be empty."""
        keep = np.isfinite(self.value)
        return Series(self.step[keep], self.value[keep], self.time_s[keep], self.attempt[keep])


@dataclass(kw_only=True)
class AttemptLog:
    """One start of the run, and how far it came."""

    number: int
    first_step: int
    start_s: float
    last_step: int
    """The last step it said anything about."""
    last_s: float
    status: str | None = None
    """finished, stopped or failed; None: it did not live to say so (or is alive)."""
    message: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    """The rest of its first line: name, config, environment, world_size, …"""


@dataclass(frozen=True)
class CheckpointMark:
    step: int
    time_s: float
    path: str


@dataclass(frozen=True)
class MetricLog:
    series: dict[str, Series]
    attempts: tuple[AttemptLog, ...]
    checkpoints: tuple[CheckpointMark, ...]
    unreadable_lines: int


def load_metrics(run_dir: str | Path) -> MetricLog:
    """The metrics of a run's folder. DatasetError when it has none."""
    path = Path(run_dir) / METRICS_FILE
    try:
        raw_lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is not there. Give the output folder of a run.") from error
    attempts: dict[int, AttemptLog] = {}
    numbers: list[tuple[int, dict[str, Any]]] = []
    marks: list[tuple[int, CheckpointMark]] = []
    unreadable = 0
    for raw in raw_lines:
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
            step, time_s, number = int(line["step"]), float(line["time"]), int(line.get("attempt", 1))
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable += 1
            continue
        event = line.get("event")
        attempt = _note(attempts, number, step, time_s)
        if event == "start":
            attempt.first_step, attempt.start_s = step, time_s
            attempt.info = {key: value for key, value in line.items() if key not in _OTHER_KEYS}
        elif event == "end":
            attempt.status, attempt.message = line.get("status"), line.get("message", "")
        elif event == "checkpoint":
            marks.append((number, CheckpointMark(step, time_s, str(line.get("path", "")))))
        elif event is None:
            numbers.append((number, line))
    ordered = tuple(attempts[number] for number in sorted(attempts))
    limit = _limits(ordered)
    return MetricLog(
        series=_series([(number, line) for number, line in numbers if int(line["step"]) <= limit[number]]),
        attempts=ordered,
        checkpoints=tuple(mark for number, mark in marks if mark.step <= limit[number]),
        unreadable_lines=unreadable,
    )


def _note(attempts: dict[int, AttemptLog], number: int, step: int, time_s: float) -> AttemptLog:
    attempt = attempts.setdefault(
        number, AttemptLog(number=number, first_step=step, start_s=time_s, last_step=step, last_s=time_s)
    )
    attempt.last_step, attempt.last_s = max(attempt.last_step, step), max(attempt.last_s, time_s)
    return attempt


def _limits(attempts: tuple[AttemptLog, ...]) -> dict[int, float]:
    """The last step each attempt's lines count for: where the earliest later attempt began."""
    limits: dict[int, float] = {}
    earliest = float("inf")
    for attempt in reversed(attempts):
        limits[attempt.number] = earliest
        earliest = min(earliest, attempt.first_step)
    return limits


def _series(lines: list[tuple[int, dict[str, Any]]]) -> dict[str, Series]:
    columns: dict[str, tuple[list[int], list[float], list[float], list[int]]] = {}
    for number, line in lines:
        step, time_s = line["step"], line["time"]
        for name, value in line.items():
            if name in _OTHER_KEYS or not (value is None or isinstance(value, int | float)):
                continue
            if name not in columns:
                columns[name] = ([], [], [], [])
            steps, values, times, attempts = columns[name]
            steps.append(step)
            values.append(float("nan") if value is None else value)
            times.append(time_s)
            attempts.append(number)
    return {name: _in_order(*column) for name, column in columns.items()}


def _in_order(steps: list[int], values: list[float], times: list[float], attempts: list[int]) -> Series:
    """By step; of several values for one step the last written counts."""
    step = np.array(steps, dtype=np.int64)
    order = np.argsort(step, kind="stable")
    last = np.append(np.diff(step[order]) != 0, True)
    keep = order[last]
    return Series(
        step=step[keep],
        value=np.array(values, dtype=np.float64)[keep],
        time_s=np.array(times, dtype=np.float64)[keep],
        attempt=np.array(attempts, dtype=np.int64)[keep],
    )
